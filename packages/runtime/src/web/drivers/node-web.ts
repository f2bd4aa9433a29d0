/**
 * The web tier around any Node request handler (Express, Hono, Koa, plain `http`): the same limits, headers, request ids,
 * health, metrics and drain as on Fastify, without touching the app.
 *
 * @example
 * const web = serveNode(expressApp, { host: "127.0.0.1", port: 3000, bodyLimitBytes: 1e6, requestTimeoutMs: 30_000, log, metrics });
 * await web.listen();
 */
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import { describeError } from "../error-answer.ts";
import { Health, type ReadinessCheck } from "../health.ts";
import { requestId } from "../request-id.ts";
import { securityHeaders } from "../security-headers.ts";
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
import { readRest } from "./read-rest.ts";

export interface NodeWebOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** A request that declares a longer body is refused; what a handler reads beyond a declared length is its own business. */
  readonly bodyLimitBytes: number;
  /** A request must have arrived whole within this. */
  readonly requestTimeoutMs: number;
  readonly log: Logger;
  readonly metrics: WebMetrics;
  readonly checks?: readonly ReadinessCheck[];
  /** Pattern of the route of a request for metrics; default "(app)", so that the number of series stays bounded. */
  readonly routeOf?: (request: IncomingMessage) => string;
}

export interface NodeWeb {
  /** Listens and gives the address as a URL. Raises `CONFIG_INVALID` when the port is taken. */
  listen(): Promise<string>;
  /** Drains and closes; requests under way get `graceMs`, default 10,000. */
  close(options?: { readonly graceMs?: number; readonly readinessDelayMs?: number }): Promise<void>;
}

/** Serves the handler; it does not listen yet. */
export function serveNode(handler: RequestListener, options: NodeWebOptions): NodeWeb {
  const health = new Health(options.checks);
  const operations: Record<string, RequestListener> = {
    "/healthz": (_request, response) => answer(response, 200, { status: "alive" }),
    "/readyz": async (_request, response) => {
      const { isReady, failing } = await health.readiness();
      answer(response, isReady ? 200 : 503, { status: isReady ? "ready" : "not ready", failing });
    },
    "/metrics": async (request, response) => {
      if (!isLocalScrape(request)) return refuse(response, { statusCode: 404 });
      const { contentType, text } = await options.metrics.expose();
      response.writeHead(200, { "content-type": contentType, "cache-control": "no-store" }).end(text);
    },
  };

  const underWay = new Set<ServerResponse>();
  const server = createServer(
    {
      keepAliveTimeout: keepAliveTimeoutMs,
      headersTimeout: Math.min(headersTimeoutMs, options.requestTimeoutMs),
      requestTimeout: options.requestTimeoutMs,
      connectionsCheckingInterval: connectionsCheckMs,
    },
    (request, response) => {
      const since = performance.now();
      for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value);
      const id = requestId(request.headers["x-request-id"], false);
      response.setHeader("x-request-id", id);
      if (health.isDraining) response.setHeader("connection", "close");
      const path = (request.url ?? "/").split("?", 1)[0] as string;
      const operation = operations[path];
      underWay.add(response);
      response.once("close", () => underWay.delete(response));
      response.once("finish", () => {
        // Its headers went out before the drain: nobody else tells the connection that it is not used again.
        if (health.isDraining) request.socket.end();
        const route = operation === undefined ? (options.routeOf?.(request) ?? "(app)") : path;
        options.metrics.observeRequest({
          method: request.method ?? "",
          route,
          status: response.statusCode,
          durationMs: performance.now() - since,
        });
      });
      if (Number(request.headers["content-length"] ?? 0) > options.bodyLimitBytes)
        return void readRest(request).then((isWhole) => {
          if (!isWhole) response.setHeader("connection", "close");
          refuse(response, { statusCode: 413 });
        });
      run(operation ?? handler, request, response, (error) =>
        options.log.error({ err: error, requestId: id }, "request failed"),
      );
    },
  );
  server.on("clientError", refuseBrokenRequest);

  return {
    listen: () =>
      new Promise((resolve, reject) => {
        server.once("error", (error) => reject(listenError(error, options)));
        server.listen({ host: options.host, port: options.port, backlog: 1024 }, () => {
          const { port } = server.address() as { port: number };
          resolve(`http://${options.host.includes(":") ? `[${options.host}]` : options.host}:${port}`);
        });
      }),
    async close({ graceMs = 10_000, readinessDelayMs = 0 } = {}) {
      health.isDraining = true;
      // Requests that began before the drain: their connections would be idle until the time is over.
      for (const response of underWay) if (!response.headersSent) response.setHeader("connection", "close");
      if (readinessDelayMs > 0) await sleep(readinessDelayMs);
      const closed = new Promise<void>((resolve) => server.once("close", () => resolve()));
      await stopListening(server);
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), graceMs);
      await closed;
      clearTimeout(cut);
    },
  };
}

/** Runs a handler whose failure, thrown or rejected, must not end the process or leave the client waiting. */
function run(
  handler: RequestListener,
  request: IncomingMessage,
  response: ServerResponse,
  report: (error: unknown) => void,
): void {
  const fail = (error: unknown) => {
    report(error);
    refuse(response, error);
  };
  try {
    // Handlers may be asynchronous although Node's type does not say so.
    const result: unknown = handler(request as never, response as never);
    if (result instanceof Promise) result.catch(fail);
  } catch (error) {
    fail(error);
  }
}

function refuse(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, errors, retryAfterSeconds } = describeError(error);
  if (retryAfterSeconds !== undefined) response.setHeader("retry-after", String(retryAfterSeconds));
  answer(response, status, { errors });
}

function answer(response: ServerResponse, status: number, body: object): void {
  response
    .writeHead(status, { "content-type": "application/json; charset=utf-8", "cache-control": "no-store" })
    .end(JSON.stringify(body));
}
