/**
 * The web server of a process: Fastify with Rungs' limits, headers, errors, health, metrics and drain.
 *
 * Stopping (drain): readiness turns false, answers carry `Connection: close`, new connections are refused, requests under
 * way finish within a bound, then what is left is cut. Behind a proxy, idle connections stay open for 2.5 s more: the proxy may be
 * sending a request on one just now, and closes them itself before that.
 */

import type { RequestListener, Server } from "node:http";
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
  proxyIdleMs,
  refuseBrokenRequest,
  stopListening,
  whenUnconnected,
} from "../server-limits.ts";
import type { WebMetrics } from "../web-metrics.ts";
import { type ForwardedRequests, forwardedFacts, showClient } from "./forwarded-requests.ts";
import { acceptJsonBodies } from "./json-body.ts";
import { readRest } from "./read-rest.ts";
import { holdToDeadline } from "./request-deadline.ts";
import type { Shedder } from "./shed.ts";

export interface WebServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly bodyLimitBytes: number;
  /** A request must have arrived whole within this, unless its route's `config.requestTimeoutMs` says otherwise. */
  readonly requestTimeoutMs: number;
  /** Addresses (or networks) whose X-Forwarded-* headers are believed; none by default. */
  readonly trustProxy?: readonly string[];
  readonly log: FastifyBaseLogger;
  readonly metrics: WebMetrics;
  readonly checks?: readonly ReadinessCheck[];
  /** Refuses requests in front of everything else while the process is overloaded; default: none is refused. */
  readonly shedder?: Shedder;
  /** Recognises requests that other regions forward to this one; default: there are none. */
  readonly forwarded?: ForwardedRequests;
  /** Answers an error in the app's own form; default: JSON `{"errors":{...}}`. */
  readonly answerError?: (request: FastifyRequest, reply: FastifyReply, answer: ErrorAnswer) => unknown;
}

export interface WebServer {
  /** Add routes here before {@link WebServer.listen}. */
  readonly fastify: FastifyInstance;
  /** True once it drains. */
  readonly isDraining: boolean;
  /** Listens and gives the address as a URL. Raises `CONFIG_INVALID` when the port is taken. */
  listen(): Promise<string>;
  /**
   * Begins to drain: takes no new connection, answers on those there are. A balancer in front passes a refused connection on, so what is
   * not there for new requests any more can end after this.
   */
  refuse(): Promise<void>;
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
    requestTimeout: 0,
    keepAliveTimeout: keepAliveTimeoutMs,
    http: {
      headersTimeout: Math.min(headersTimeoutMs, options.requestTimeoutMs),
      connectionsCheckingInterval: connectionsCheckMs,
    },
    trustProxy: trusted.length > 0 ? [...trusted] : false,
    return503OnClosing: false,
    forceCloseConnections: "idle",
    routerOptions: { maxParamLength: 1_000, ignoreTrailingSlash: true },
    genReqId: (request) =>
      forwardedFacts(request)?.requestId ?? requestId(request.headers["x-request-id"], trusted.length > 0),
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

  const holdRequest = holdToDeadline(options.requestTimeoutMs);
  acceptJsonBodies(fastify);
  fastify.setErrorHandler((error, request, reply) => sendError(error, request, reply));
  fastify.setNotFoundHandler((request, reply) => sendError({ statusCode: 404 }, request, reply));
  fastify.addHook("onRequest", (request, reply, done) => {
    showClient(request);
    setBaseHeaders(request, reply, health);
    holdRequest(request, reply);
    done();
  });
  fastify.addHook("onResponse", (request, reply, done) => {
    // A stream of events lasts as long as its page is open; it is neither slow nor fast.
    if (String(reply.getHeader("content-type")).startsWith("text/event-stream")) return done();
    const route = request.routeOptions.url ?? "(none)";
    const { method } = request;
    const durationMs = reply.elapsedTime;
    options.metrics.observeRequest({ method, route, status: reply.statusCode, durationMs });
    const line = { method, route, status: reply.statusCode, ms: Math.round(durationMs) };
    if (durationMs > slowRequestMs) request.log.warn(line, "slow request");
    else request.log.debug(line, "request");
    done();
  });
  fastify.addHook("onSend", (request, reply, _payload, done) => {
    if (reply.statusCode !== 413) return done();
    void readRest(request.raw).then((isWhole) => {
      // Fastify would close the connection because of what is still to come: nothing is.
      if (isWhole) reply.removeHeader("connection");
      done();
    });
  });
  fastify.addHook("onSend", (_request, reply, _payload, done) => {
    // Also of a request that began before the drain: its connection must not go back to a proxy's pool.
    if (health.isDraining) reply.header("connection", "close");
    done();
  });
  addOperationalRoutes(fastify, health, options.metrics);
  if (options.forwarded !== undefined) putInFront(fastify.server, options.forwarded);
  // Before all else, so that a refusal costs next to nothing.
  if (options.shedder !== undefined) putInFront(fastify.server, options.shedder);

  return {
    fastify,
    get isDraining() {
      return health.isDraining;
    },
    async listen() {
      try {
        return await fastify.listen({ host: options.host, port: options.port, backlog: 1024 });
      } catch (error) {
        throw listenError(error, options);
      }
    },
    async refuse() {
      health.isDraining = true;
      await stopListening(fastify.server);
    },
    async close({ graceMs = 10_000, readinessDelayMs = 0 } = {}) {
      health.isDraining = true;
      if (readinessDelayMs > 0) await sleep(readinessDelayMs);
      await stopListening(fastify.server);
      if (trusted.length > 0) await whenUnconnected(fastify.server, proxyIdleMs);
      const cut = setTimeout(() => fastify.server.closeAllConnections(), graceMs);
      await fastify.close();
      clearTimeout(cut);
    },
  };
}

function putInFront(server: Server, gate: { wrap(listener: RequestListener): RequestListener }): void {
  const listeners = server.listeners("request") as RequestListener[];
  server.removeAllListeners("request");
  for (const listener of listeners) server.on("request", gate.wrap(listener));
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
