/**
 * How long a request may take to arrive, by route. Node's own limit is one for the whole server, and uploads need minutes
 * where a form must be here in seconds; so Node holds the headers to their limit, and this holds the bodies.
 */
import type { FastifyReply, FastifyRequest } from "fastify";
import { refuseBrokenRequest } from "../server-limits.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** How long a request to this route may take to arrive whole, in ms; default the server's `requestTimeoutMs`. */
    requestTimeoutMs?: number;
  }
}

/** A hook for `onRequest`: cuts the connection of a request whose body has not arrived in time, with a 408 if it still can. */
export function holdToDeadline(defaultMs: number): (request: FastifyRequest, reply: FastifyReply) => void {
  return (request, reply) => {
    const { raw } = request;
    if (raw.complete || !hasBody(request)) return;
    const timer = setTimeout(() => {
      const { socket } = raw;
      if (raw.complete || socket.destroyed) return;
      if (!reply.raw.headersSent) {
        refuseBrokenRequest(Object.assign(new Error("Request timeout"), { code: "ERR_HTTP_REQUEST_TIMEOUT" }), socket);
      }
      socket.destroySoon();
    }, request.routeOptions.config.requestTimeoutMs ?? defaultMs);
    // Of a body that was refused before it was read neither end nor close is heard: that must not hold up a stop.
    timer.unref();
    const clear = () => clearTimeout(timer);
    raw.once("end", clear);
    raw.once("close", clear);
  };
}

function hasBody({ headers }: FastifyRequest): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}
