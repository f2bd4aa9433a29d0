/**
 * The way to another region: requests over connections that stay open, one at a time on each. What a failure says of the request is told
 * apart here: whether nothing of it was sent for sure, or it may have taken effect.
 *
 * Node's own client, because it gives and takes headers byte by byte as they came. The body is read only once there is a connection, so
 * that a request whose region is away can still go elsewhere.
 */
import { Agent, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest, Agent as TlsAgent } from "node:https";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { NotForwarded } from "../forward.ts";

/** One request on its way. */
export interface RegionRequest {
  readonly method: string;
  /** Path and query, as they came. */
  readonly url: string;
  readonly headers: readonly string[];
  /** Read once there is a connection; undefined without. */
  readonly body: Readable | undefined;
  /** Ends the request, whatever has become of it. */
  readonly signal: AbortSignal;
  /** How long the answer may take to begin once the request was sent whole. */
  readonly answerMs: number;
}

/** A way to one region. */
export interface RegionLink {
  /** For `Host`. */
  readonly host: string;
  /** Gives the answer, of which the head is there. Raises `NotForwarded`, and the signal's reason. */
  send(request: RegionRequest): Promise<IncomingMessage>;
  close(): void;
}

/** Enough for what a process sends in the time of a round trip around the world, with uploads and streams that stay. */
const connectionsMax = 512;
/** A round trip around the world takes a third of a second. */
const connectMs = 2_000;
/** Balancers keep idle connections for a minute: they are closed here first, so that no request meets one that is being closed. */
const idleMs = 15_000;

/** Opens a way to this base address; nothing is connected before the first request. */
export function regionLink(url: string): RegionLink {
  const { protocol, host, hostname, port } = new URL(url);
  const isTls = protocol === "https:";
  const settings = { keepAlive: true, maxSockets: connectionsMax, maxFreeSockets: connectionsMax, timeout: idleMs };
  const agent = isTls ? new TlsAgent(settings) : new Agent(settings);
  const start = isTls ? httpsRequest : httpRequest;
  const target: RequestOptions = { agent, hostname: hostname.replace(/^\[|\]$/g, ""), port, setHost: false };
  let underWay = 0;

  return {
    host,

    async send(request) {
      request.signal.throwIfAborted();
      if (underWay >= connectionsMax) {
        const message = `${underWay} requests are under way to ${host} already.`;
        throw new NotForwarded(message, { reach: "none", reason: "busy" });
      }
      underWay++;
      try {
        return await sendOn(start, target, request, { host, isTls });
      } finally {
        underWay--;
      }
    },

    close: () => agent.destroy(),
  };
}

function sendOn(
  start: typeof httpRequest,
  target: RequestOptions,
  { method, url, headers, body, signal, answerMs }: RegionRequest,
  { host, isTls }: { readonly host: string; readonly isTls: boolean },
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let isBegun = false;
    const outgoing = start({ ...target, method, path: url, headers: headers as string[] });
    const limit = (ms: number, what: string) => setTimeout(() => outgoing.destroy(new Error(what)), ms).unref();
    let timer = limit(connectMs, `no connection within ${connectMs} ms`);
    const stop = () => outgoing.destroy(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });

    const begin = (socket: Socket) => {
      clearTimeout(timer);
      isBegun = true;
      // A region that is cut off answers nothing, not even that the connection is gone.
      socket.setKeepAlive(true, 5_000);
      if (body === undefined) outgoing.end();
      else body.pipe(outgoing);
    };
    outgoing.once("socket", (socket) => {
      if (socket.connecting) socket.once(isTls ? "secureConnect" : "connect", () => begin(socket));
      else begin(socket);
    });
    let isAnswered = false;
    outgoing.once("finish", () => {
      if (!isAnswered) timer = limit(answerMs, `no answer within ${answerMs} ms`);
    });
    outgoing.once("response", (answer) => {
      isAnswered = true;
      clearTimeout(timer);
      // Of a body that was refused halfway nothing more is sent, and its connection is of no use any more.
      answer.once("end", () => {
        if (!outgoing.writableFinished) outgoing.destroy();
      });
      resolve(answer);
    });
    // Also after the answer has begun: then its reader hears of it too, unless it is whole.
    outgoing.on("error", (error) => reject(signal.aborted ? signal.reason : notForwarded(error, host, isBegun)));
    outgoing.once("close", () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      body?.unpipe(outgoing);
    });
  });
}

function notForwarded(error: Error, host: string, isBegun: boolean): NotForwarded {
  const { code = error.message } = error as NodeJS.ErrnoException;
  const what = isBegun ? `the connection to ${host} was lost` : `there is no connection to ${host}`;
  return new NotForwarded(`${what} (${code}).`, {
    reach: isBegun ? "unknown" : "none",
    reason: "unreachable",
    cause: error,
  });
}
