/**
 * The web server of a process: Fastify with Rungs' limits, headers, errors, health, metrics and drain.
 *
 * Stopping (drain): readiness turns false, answers carry `Connection: close`, new connections are refused, requests under
 * way finish within a bound, then what is left is cut.
 */

import { setTimeout as sleep } from "node:timers/promises";
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from "fastify";
import { describeError, type ErrorAnswer } from "../error-answer.ts";
import { Health, type ReadinessCheck } from "../health.ts";
import { requestId } from "../request-id.ts";
import { securityHeaders, strictTransportSecurity } from "../security-headers.ts";
import {
  connectionsCheckMs,
  headersTimeoutMs,
  isLocalScrape,
  keepAliveTimeoutMs,
  listenError,
  refuseBrokenRequest,
  stopListening,
} from "../server-limits.ts";
import type { WebMetrics } from "../web-metrics.ts";
import { acceptJsonBodies } from "./json-body.ts";

export interface WebServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly bodyLimitBytes: number;
  /** A request must have arrived whole within this. */
  readonly requestTimeoutMs: number;
  /** Addresses (or networks) whose X-Forwarded-* headers are believed; none by default. */
  readonly trustProxy?: readonly string[];
  readonly log: FastifyBaseLogger;
  readonly metrics: WebMetrics;
  readonly checks?: readonly ReadinessCheck[];
  /** Answers an error in the app's own form; default: JSON `{"errors":{...}}`. */
  readonly answerError?: (request: FastifyRequest, reply: FastifyReply, answer: ErrorAnswer) => unknown;
}

export interface WebServer {
  /** Add routes here before {@link WebServer.listen}. */
  readonly fastify: FastifyInstance;
  /** Listens and gives the address as a URL. Raises `CONFIG_INVALID` when the port is taken. */
  listen(): Promise<string>;
  /** Drains and closes; requests under way get `graceMs`, default 10,000. */
  close(options?: { readonly graceMs?: number; readonly readinessDelayMs?: number }): Promise<void>;
}

const slowRequestMs = 1_000;

/** Makes the server; it does not listen yet. */
export function createWebServer(options: WebServerOptions): WebServer {
  const health = new Health(options.checks);
  const answerError = options.answerError ?? ((_request, reply, { errors }) => reply.send({ errors }));
  const trusted = options.trustProxy ?? [];
  const fastify = Fastify({
    loggerInstance: options.log,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "requestId" }),
    bodyLimit: options.bodyLimitBytes,
    requestTimeout: options.requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    http: {
      headersTimeout: Math.min(headersTimeoutMs, options.requestTimeoutMs),
      connectionsCheckingInterval: connectionsCheckMs,
    },
    trustProxy: trusted.length > 0 ? [...trusted] : false,
    return503OnClosing: false,
    forceCloseConnections: "idle",
    routerOptions: { maxParamLength: 1_000, ignoreTrailingSlash: true },
    genReqId: (request) => requestId(request.headers["x-request-id"], trusted.length > 0),
    frameworkErrors: (error, request, reply) => {
      setBaseHeaders(request, reply, health);
      sendError(error, request as FastifyRequest, reply as FastifyReply);
    },
    clientErrorHandler: refuseBrokenRequest,
  }) as unknown as FastifyInstance;

  function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const answer = describeError(error);
    if (answer.isFault) {
      request.log.error({ err: error, method: request.method, route: request.routeOptions?.url }, "request failed");
    }
    if (answer.retryAfterSeconds !== undefined) reply.header("retry-after", String(answer.retryAfterSeconds));
    reply.header("cache-control", "no-store").code(answer.status);
    answerError(request, reply, answer);
  }

  acceptJsonBodies(fastify);
  fastify.setErrorHandler((error, request, reply) => sendError(error, request, reply));
  fastify.setNotFoundHandler((request, reply) => sendError({ statusCode: 404 }, request, reply));
  fastify.addHook("onRequest", (request, reply, done) => {
    setBaseHeaders(request, reply, health);
    done();
  });
  fastify.addHook("onResponse", (request, reply, done) => {
    const route = request.routeOptions.url ?? "(none)";
    const { method } = request;
    const durationMs = reply.elapsedTime;
    options.metrics.observeRequest({ method, route, status: reply.statusCode, durationMs });
    const line = { method, route, status: reply.statusCode, ms: Math.round(durationMs) };
    if (durationMs > slowRequestMs) request.log.warn(line, "slow request");
    else request.log.debug(line, "request");
    done();
  });
  addOperationalRoutes(fastify, health, options.metrics);

  return {
    fastify,
    async listen() {
      try {
        return await fastify.listen({ host: options.host, port: options.port, backlog: 1024 });
      } catch (error) {
        throw listenError(error, options);
      }
    },
    async close({ graceMs = 10_000, readinessDelayMs = 0 } = {}) {
      health.isDraining = true;
      if (readinessDelayMs > 0) await sleep(readinessDelayMs);
      await stopListening(fastify.server);
      const cut = setTimeout(() => fastify.server.closeAllConnections(), graceMs);
      await fastify.close();
      clearTimeout(cut);
    },
  };
}

function setBaseHeaders(
  request: Pick<FastifyRequest, "id" | "protocol">,
  reply: Pick<FastifyReply, "headers" | "header">,
  health: Health,
): void {
  reply.headers(securityHeaders as Record<string, string>);
  reply.header("x-request-id", request.id);
  if (request.protocol === "https") reply.header("strict-transport-security", strictTransportSecurity);
  if (health.isDraining) reply.header("connection", "close");
}

function addOperationalRoutes(fastify: FastifyInstance, health: Health, metrics: WebMetrics): void {
  fastify.get("/healthz", async (_request, reply) =>
    reply.header("cache-control", "no-store").send({ status: "alive" }),
  );
  fastify.get("/readyz", async (_request, reply) => {
    const { isReady, failing } = await health.readiness();
    return reply
      .header("cache-control", "no-store")
      .code(isReady ? 200 : 503)
      .send({ status: isReady ? "ready" : "not ready", failing });
  });
  fastify.get("/metrics", async (request, reply) => {
    if (!isLocalScrape(request.raw)) return reply.callNotFound();
    const { contentType, text } = await metrics.expose();
    return reply.header("cache-control", "no-store").type(contentType).send(text);
  });
}
