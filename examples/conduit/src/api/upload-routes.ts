/** Beside the RealWorld API: a user's own uploads. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Uploads } from "../domain/model.ts";
import { purposeOf, type ReceiveUpload, uploadReceiver } from "../media/media-routes.ts";
import { integerOf, textOf } from "./request.ts";

type Id = { Params: { id: string } };

export function uploadRoutes(
  api: FastifyInstance,
  options: {
    readonly uploads: Uploads;
    readonly receiveUpload: ReceiveUpload;
    /** The signed-in viewer, or a 401 problem. */
    required(request: FastifyRequest): Promise<{ readonly userId: string }>;
  },
): void {
  const { uploads, required } = options;

  uploadReceiver(api, "/uploads", async (request, reply) => {
    const { userId: ownerId } = await required(request);
    const upload = await options.receiveUpload(request, {
      ownerId,
      purpose: purposeOf(textOf(request.query, "purpose")),
    });
    return reply.code(202).header("location", upload.url).send({ upload });
  });
  api.get("/uploads", async (request, reply) => {
    const { userId } = await required(request);
    const { query } = request;
    const page = { limit: integerOf(query, "limit"), before: textOf(query, "before") };
    reply.header("cache-control", "private, no-store");
    return { uploads: await uploads.list(userId, page) };
  });
  api.get<Id>("/uploads/:id", async (request, reply) => {
    const { userId } = await required(request);
    reply.header("cache-control", "private, no-store");
    return { upload: await uploads.byId(userId, request.params.id) };
  });
  api.delete<Id>("/uploads/:id", async (request, reply) => {
    const { userId } = await required(request);
    await uploads.remove(userId, request.params.id);
    return reply.code(204).send();
  });
}
