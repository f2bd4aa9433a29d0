/** Lets pages of other origins use an API. Never with cookies: bearer tokens are what such clients have. */
import type { FastifyInstance } from "fastify";

const headers = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "x-request-id, retry-after, location, idempotency-replayed, rungs-position",
};
const preflight = {
  "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
  "access-control-allow-headers":
    "authorization, content-type, x-requested-with, accept, idempotency-key, rungs-position",
  "access-control-max-age": "7200",
};

/** Adds CORS headers to every route of this Fastify scope and answers its preflights. */
export function allowCrossOrigin(scope: FastifyInstance): void {
  scope.addHook("onRequest", (_request, reply, done) => {
    reply.headers(headers);
    done();
  });
  scope.options("/*", (_request, reply) => {
    reply.headers(preflight).code(204).send();
  });
}
