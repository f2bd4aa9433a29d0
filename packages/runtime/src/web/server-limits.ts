/** What every web server of Rungs does alike, whichever adapter runs it. */
import type { IncomingMessage, Server } from "node:http";
import { type Socket, Server as TcpServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../kernel/errors.ts";
import { describeError } from "./error-answer.ts";
import { securityHeaders } from "./security-headers.ts";

/** Longer than the 60 s of nginx's upstream keep-alive, so that the balancer and not this process closes idle connections. */
export const keepAliveTimeoutMs = 65_000;
/** Headers must have arrived within this: a client that sends them byte by byte is cut off. */
export const headersTimeoutMs = 10_000;
/** How often Node looks for connections past their time. */
export const connectionsCheckMs = 1_000;

/** Metrics tell an attacker much: only this machine may read them, and not through a proxy on it. */
export function isLocalScrape(request: Pick<IncomingMessage, "headers" | "socket">): boolean {
  const peer = request.socket.remoteAddress ?? "";
  const isLoopback = peer === "::1" || /^(::ffff:)?127\./.test(peer);
  return isLoopback && request.headers["x-forwarded-for"] === undefined && request.headers["forwarded"] === undefined;
}

/** Answers what Node's parser refused; there is no request object for it. For `clientError`. */
export function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const line = brokenStatus(error.code);
  const { errors } = describeError({ statusCode: Number(line.slice(0, 3)) });
  const body = JSON.stringify({ errors });
  const headers = {
    connection: "close",
    "content-type": "application/json; charset=utf-8",
    "content-length": String(Buffer.byteLength(body)),
    ...securityHeaders,
  };
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${line}\r\n${head.join("")}\r\n${body}`);
}

/** A client that has just connected needs a moment to send its request. */
const lingerMs = 100;

/**
 * Takes no new connection, and gives those just made the time to be used. Node's own `close` on an HTTP server ends every
 * connection without a request under way, also one whose first request is on its way, which the client sees as a reset.
 */
export async function stopListening(server: Server): Promise<void> {
  if (!server.listening) return;
  TcpServer.prototype.close.call(server);
  await sleep(lingerMs);
}

/**
 * How long a draining process behind a proxy keeps idle connections open: longer than the 2 s after which the balancer of `rungs up`
 * closes its own, so that no request meets a connection that is being closed.
 */
export const proxyIdleMs = 2_500;
const lookEveryMs = 25;

/** Waits until all connections are gone, at most `ms`. */
export async function whenUnconnected(server: Server, ms: number): Promise<void> {
  const until = performance.now() + ms;
  while (performance.now() < until) {
    const count = await new Promise<number>((resolve) => server.getConnections((_error, found) => resolve(found ?? 0)));
    if (count === 0) return;
    await sleep(lookEveryMs);
  }
}

/** Says in plain words why a port cannot be listened on. */
export function listenError(error: unknown, address: { readonly host: string; readonly port: number }): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== "EADDRINUSE" && code !== "EACCES") return error;
  const reason = code === "EADDRINUSE" ? "is in use by another program" : "may not be opened by this user";
  return new ConfigError(
    "CONFIG_INVALID",
    `Port ${address.port} on ${address.host} ${reason}. Choose another with PORT=<number>, for example PORT=${address.port + 1}.`,
    { cause: error },
  );
}

function brokenStatus(code: string | undefined): string {
  if (code === "HPE_HEADER_OVERFLOW") return "431 Request Header Fields Too Large";
  return code === "ERR_HTTP_REQUEST_TIMEOUT" ? "408 Request Timeout" : "400 Bad Request";
}
