/**
 * Calls over HTTP: `POST /internal/call/SERVICE/METHOD` over connections that stay open, one call at a time on each. What a broken try
 * says of the method is told apart here: whether it has begun for sure not, or may have.
 */
import { type Dispatcher, Pool } from "undici";
import { type CallDriver, CallNotAnswered, type CallReply, type OutgoingCall } from "../call.ts";
import { callContentType, callHeaders, callPathOf } from "../call-request.ts";
import type { SignedParts } from "../call-signature.ts";
import { callBytesMax } from "../method.ts";
import { readErrorText } from "../wire.ts";

export interface HttpCallsOptions {
  /** Base address, `http://host:port`. */
  readonly url: string;
  readonly sign: (parts: SignedParts) => string;
  /** Default 100, the bulkhead's. */
  readonly connectionsMax?: number;
}

/** A machine that answers at all takes a connection sooner. */
const connectMs = 1_000;
/** Idle connections end here first: balancers and draining processes keep theirs for longer (see `proxyIdleMs` of the web tier). */
const idleMs = 2_000;

/** Without a connection nothing was sent. */
const unconnected = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Opens a way; nothing is connected before the first call. */
export function httpCalls({ url, sign, connectionsMax = 100 }: HttpCallsOptions): CallDriver {
  const { origin } = new URL(url);
  const pool = new Pool(origin, {
    connections: connectionsMax,
    pipelining: 1,
    keepAliveTimeout: idleMs,
    keepAliveMaxTimeout: idleMs,
    connect: { timeout: connectMs },
    // The call's own signal ends it.
    headersTimeout: 0,
    bodyTimeout: 0,
    maxResponseSize: 2 * callBytesMax,
  });

  return {
    address: origin,

    async send(call, remainingMs) {
      const { signal } = call;
      signal.throwIfAborted();
      const request = requestOf(call, remainingMs, sign);
      try {
        const { statusCode, headers, body } = await pool.request({ ...request, signal });
        return readReply({ status: statusCode, headers, text: await body.text(), address: origin });
      } catch (error) {
        signal.throwIfAborted();
        throw error instanceof CallNotAnswered ? error : broken(error, origin);
      }
    },

    close: () => pool.destroy(),
  };
}

function requestOf(
  { method, text, idempotencyKey, traceparent, reads = "" }: OutgoingCall,
  remainingMs: number,
  sign: (parts: SignedParts) => string,
): Dispatcher.RequestOptions {
  const path = callPathOf(method.name);
  const deadlineMs = String(Math.max(1, Math.floor(remainingMs)));
  const headers: Record<string, string> = {
    authorization: sign({ path, deadlineMs, idempotencyKey, traceparent, reads, body: text }),
    "content-type": callContentType,
    [callHeaders.deadline]: deadlineMs,
    [callHeaders.key]: idempotencyKey,
    [callHeaders.traceparent]: traceparent,
  };
  if (reads !== "") headers[callHeaders.reads] = reads;
  // What may be sent again by us may be by a balancer in between.
  if (method.isSafe || method.isIdempotent) headers["idempotency-key"] = idempotencyKey;
  return { path, method: "POST", headers, body: text };
}

function readReply(reply: {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly address: string;
}): CallReply {
  const { status, headers, text, address } = reply;
  const kind = headers[callHeaders.kind];
  if (kind === "answer") {
    const reads = headers[callHeaders.reads];
    const note = typeof reads === "string" ? reads : undefined;
    if (status === 200) return { answer: { isOk: true, text }, reads: note };
    return { answer: { isOk: false, error: readErrorText(text) ?? { kind: "failed" } }, reads: note };
  }
  if (kind === "denied") {
    const message = `${address} does not take this process for one of its app. Both need the same home database, and clocks that agree.`;
    throw new CallNotAnswered(message, { reach: "none", reason: "denied" });
  }
  if (status === 404) {
    const message = `${address} serves no calls. Check the address of the group, and roll the service out before what calls it.`;
    throw new CallNotAnswered(message, { reach: "none", reason: "unknown" });
  }
  // From overload protection, the app's or a balancer's: neither passes on what it refuses.
  const isRefused = status === 503 || status === 429;
  throw new CallNotAnswered(`${address} answered ${status} without calling the method.`, {
    reach: isRefused ? "none" : "unknown",
    reason: isRefused ? "refused" : "unreachable",
  });
}

function broken(error: unknown, address: string): CallNotAnswered {
  const code = String((error as { readonly code?: unknown }).code ?? "unknown");
  const isUnconnected = unconnected.has(code);
  const what = isUnconnected ? "there is no connection to" : "the connection was lost to";
  return new CallNotAnswered(`${what} ${address} (${code}).`, {
    reach: isUnconnected ? "none" : "unknown",
    reason: "unreachable",
    cause: error,
  });
}
