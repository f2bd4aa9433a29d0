/** Serves assets on Fastify. */
import type { FastifyInstance } from "fastify";
import type { Assets } from "../assets.ts";

const yearMs = 365 * 24 * 60 * 60_000;

/** Adds the route of all assets. */
export function serveAssets(fastify: FastifyInstance, assets: Assets): void {
  // Kept by everybody: another content has another name.
  const cache = { sharedMaxAgeMs: yearMs, isForEveryone: true };
  fastify.get(`${assets.prefix}*`, { config: { rateLimit: "off", cache } }, (request, reply) => {
    const path = request.url.split("?", 1)[0] as string;
    const { status, headers, body } = assets.answer(path, request.headers);
    if (status === 404) return reply.callNotFound();
    return reply
      .code(status)
      .headers(headers)
      .send(body ?? "");
  });
}
