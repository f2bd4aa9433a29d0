/** Receiving uploads, for both faces, and serving what was made of them. */
import type { FastifyInstance, FastifyRequest, RouteHandlerMethod } from "fastify";
import type {} from "rungs/session/fastify";
import type { ObjectStore, PathSigner } from "rungs/storage";
import { acceptUploads, receiveUpload, sendObject, uploadRoute } from "rungs/storage/fastify";
import type { Upload, UploadPurpose } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { sharedFiles } from "../shared-answers.ts";
import { accepted, idOf, isPurpose, mediaTag, renditionKey } from "./upload-rules.ts";
import type { createUploads, WantedUpload } from "./uploads.ts";

type UploadOperations = ReturnType<typeof createUploads>;

/** Time of the longest; the limits of each purpose are held while it is received. */
const route = uploadRoute({ timeMaxMs: accepted.video.timeMaxMs });
const immutable = "public, max-age=31536000, immutable";

/** Receives the file of a request as an upload; see {@link uploadReceiver}. */
export type ReceiveUpload = (
  request: FastifyRequest,
  upload: Pick<WantedUpload, "ownerId" | "purpose">,
) => Promise<Upload>;

/**
 * Receives one file of a multipart form, in the field "file", as an upload of that purpose; a field "visibility" before it says
 * "private" or "public".
 */
export async function receive(
  request: FastifyRequest,
  uploads: UploadOperations,
  { ownerId, purpose }: Parameters<ReceiveUpload>[1],
): Promise<Upload> {
  await uploads.checkRoom(ownerId);
  const { kinds, fileBytesMax, timeMaxMs } = accepted[purpose];
  let isPrivate = false;
  const { stored } = await receiveUpload(request, {
    accept: kinds,
    limits: { fileBytesMax, timeMaxMs },
    before: (fields) => {
      request.checkCsrf(fields["_csrf"]);
      isPrivate = isPrivateOf(fields["visibility"], purpose);
    },
    store: (file) => uploads.store({ ownerId, purpose, isPrivate }, file),
    discard: (file) => uploads.discard(file),
  });
  try {
    return await uploads.accept(stored);
  } catch (error) {
    await uploads.discard(stored).catch(() => {});
    throw error;
  }
}

function isPrivateOf(visibility = "public", purpose: UploadPurpose): boolean {
  if (visibility !== "public" && visibility !== "private")
    throw new ProblemError(422, { visibility: ["must be public or private"] });
  if (visibility === "private" && purpose === "avatar")
    throw new ProblemError(422, { visibility: ["of a profile picture is always public"] });
  return visibility === "private";
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

/**
 * Serves renditions. Those under `/media/` to everybody: they are what public pages show. Those under `/private/` to whoever holds
 * a signed address, until it ends, and from no shared cache. An address is never used for another content.
 */
export function mediaFiles(
  fastify: FastifyInstance,
  { storage, signedPaths }: { readonly storage: ObjectStore; readonly signedPaths: PathSigner },
): void {
  type Rendition = { Params: { ownerId: string; uploadId: string; name: string } };
  fastify.get<Rendition>("/media/:ownerId/:uploadId/:name", { config: sharedFiles }, async (request, reply) => {
    const key = keyOf(request.params, false);
    if (key === undefined) return reply.callNotFound();
    reply.cacheTag(mediaTag(request.params.uploadId));
    const isSent = await sendObject(request, reply, { store: storage, key, cacheControl: immutable, isShared: true });
    return isSent ? reply : reply.callNotFound();
  });
  fastify.get<Rendition>("/private/:ownerId/:uploadId/:name", async (request, reply) => {
    const key = keyOf(request.params, true);
    const leftMs = signedPaths.check(request.url);
    // The same answer for a file that is not there: a guess tells nothing.
    if (key === undefined || leftMs === undefined) return reply.callNotFound();
    const cacheControl = `private, max-age=${Math.floor(leftMs / 1_000)}, immutable`;
    return (await sendObject(request, reply, { store: storage, key, cacheControl })) ? reply : reply.callNotFound();
  });
}

function keyOf(
  { ownerId, uploadId, name }: { ownerId: string; uploadId: string; name: string },
  isPrivate: boolean,
): string | undefined {
  const isAddress =
    idOf(ownerId) !== undefined && idOf(uploadId) !== undefined && /^[a-z0-9-]{1,64}\.(?:webp|avif|mp4)$/.test(name);
  return isAddress ? renditionKey({ ownerId, uploadId, isPrivate }, name) : undefined;
}
