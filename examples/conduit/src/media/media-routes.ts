/** Receiving uploads, for both faces, and serving what was made of them. */
import type { FastifyInstance, FastifyRequest, RouteHandlerMethod } from "fastify";
import type {} from "rungs/session/fastify";
import type { ObjectStore } from "rungs/storage";
import { acceptUploads, receiveUpload, sendObject, uploadRoute } from "rungs/storage/fastify";
import type { Upload, UploadPurpose } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { sharedFiles } from "../shared-answers.ts";
import { accepted, idOf, isPurpose, mediaTag, renditionKey } from "./upload-rules.ts";
import type { createUploads } from "./uploads.ts";

type UploadOperations = ReturnType<typeof createUploads>;

/** Time of the longest; the limits of each purpose are held while it is received. */
const route = uploadRoute({ timeMaxMs: accepted.video.timeMaxMs });
const immutable = "public, max-age=31536000, immutable";

/** Receives the file of a request as an upload; see {@link uploadReceiver}. */
export type ReceiveUpload = (
  request: FastifyRequest,
  upload: { readonly ownerId: string; readonly purpose: UploadPurpose },
) => Promise<Upload>;

/** Receives one file of a multipart form, in the field "file", as an upload of that purpose. */
export async function receive(
  request: FastifyRequest,
  uploads: UploadOperations,
  { ownerId, purpose }: Parameters<ReceiveUpload>[1],
): Promise<Upload> {
  await uploads.checkRoom(ownerId);
  const { kinds, fileBytesMax, timeMaxMs } = accepted[purpose];
  const { stored } = await receiveUpload(request, {
    accept: kinds,
    limits: { fileBytesMax, timeMaxMs },
    before: (fields) => request.checkCsrf(fields["_csrf"]),
    store: (file) => uploads.store(ownerId, purpose, file),
    discard: (file) => uploads.discard(file),
  });
  try {
    return await uploads.accept(stored);
  } catch (error) {
    await uploads.discard(stored).catch(() => {});
    throw error;
  }
}

/** The purpose of that name; a 422 problem when there is none. */
export function purposeOf(name: string | undefined): UploadPurpose {
  if (isPurpose(name)) return name;
  throw new ProblemError(422, { purpose: [`must be one of ${Object.keys(accepted).join(", ")}`] });
}

/** Adds a route that receives an upload, in a scope of its own. The handler calls {@link ReceiveUpload}. */
export function uploadReceiver(parent: FastifyInstance, path: string, handler: RouteHandlerMethod): void {
  parent.register(async (scope) => {
    await acceptUploads(scope);
    scope.post(path, { config: { ...route.config, csrf: "deferred" } }, handler);
  });
}

/** Serves renditions, to everybody: they are what public pages show. An address is never used for another content. */
export function mediaFiles(fastify: FastifyInstance, { storage }: { readonly storage: ObjectStore }): void {
  type Rendition = { Params: { ownerId: string; uploadId: string; name: string } };
  fastify.get<Rendition>("/media/:ownerId/:uploadId/:name", { config: sharedFiles }, async (request, reply) => {
    const { ownerId, uploadId, name } = request.params;
    const isAddress =
      idOf(ownerId) !== undefined && idOf(uploadId) !== undefined && /^[a-z0-9-]{1,64}\.(?:webp|avif|mp4)$/.test(name);
    if (!isAddress) return reply.callNotFound();
    reply.cacheTag(mediaTag(uploadId));
    const key = renditionKey(ownerId, uploadId, name);
    const isSent = await sendObject(request, reply, { store: storage, key, cacheControl: immutable, isShared: true });
    return isSent ? reply : reply.callNotFound();
  });
}
