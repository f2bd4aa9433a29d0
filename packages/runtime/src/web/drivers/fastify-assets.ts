/** Serves assets on Fastify. */
import type { FastifyInstance } from "fastify";
import type { Assets } from "../assets.ts";

/** Adds the route of all assets. */
export function serveAssets(fastify: FastifyInstance, assets: Assets): void {
  fastify.get(`${assets.prefix}*`, { config: { rateLimit: "off" } }, (request, reply) => {
    const path = request.url.split("?", 1)[0] as string;
    const { status, headers, body } = assets.answer(path, request.headers);
    if (status === 404) return reply.callNotFound();
    return reply
      .code(status)
      .headers(headers)
      .send(body ?? "");
  });
}
