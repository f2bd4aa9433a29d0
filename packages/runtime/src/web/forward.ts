/**
 * Writes go to the region of their data's leader: the whole request is replayed there, instead of each of its SQL statements crossing
 * the ocean. Which requests, where to, what of their headers goes along, and what a failure means.
 *
 * - A request that may change something (an unsafe method) goes to the region of the home database's leader while all leaders are
 *   together; where they are apart, to that of the signed-in user's shard. Safe ones are answered where they arrive.
 * - A request that was forwarded is carried out where it lands, even if the leader has moved meanwhile: slower, and never in circles.
 * - What was not sent for sure may be tried again, here or elsewhere, once the leaders were asked anew. What was sent is not: it may have
 *   taken effect.
 */
import { UnavailableError } from "../kernel/errors.ts";
import { forwardedHeader } from "./forward-signature.ts";

/** Where leaders are, as far as this process knows. */
export interface LeaderPlaces {
  /** Region of the leader of the shard of that number. */
  regionOf(shard: number): string;
  /** The region in which all leaders are; undefined while they are apart. */
  common(): string | undefined;
  /** Asks the leaders now; resolves when they have answered, and after `msMax` at the latest. Never raises. */
  ask(msMax: number): Promise<void>;
}

/** Where a request that may change something is to be carried out. `userShard` is asked only where the leaders are apart. */
export function regionOfWrite(
  places: Pick<LeaderPlaces, "regionOf" | "common">,
  options: { readonly homeShard: number; readonly userShard: () => Promise<number | undefined> },
): string | Promise<string> {
  const common = places.common();
  if (common !== undefined) return common;
  const { homeShard, userShard } = options;
  return userShard().then((shard) => places.regionOf(shard ?? homeShard));
}

/** Whether a method must not change anything (RFC 9110, 9.2.1). */
export function isSafe(method: string): boolean {
  return method === "GET" || method === "HEAD" || method === "OPTIONS" || method === "TRACE";
}

/** Why a request was not answered from another region. */
export class NotForwarded extends Error {
  /** "none": nothing of it was sent. "unknown": it may have taken effect. */
  readonly reach: "none" | "unknown";
  /** "denied": the other side does not take this process for one of its app. */
  readonly reason: "unreachable" | "denied" | "busy" | "gone";

  constructor(message: string, details: Pick<NotForwarded, "reach" | "reason"> & { readonly cause?: unknown }) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.reach = details.reach;
    this.reason = details.reason;
  }
}

/** What the client's answer is made of. `what`: method and route, never the address, which may hold a secret. */
export function toldOf(error: NotForwarded, what: string, region: string): UnavailableError {
  const hint =
    error.reach === "none" ? "Nothing was done; try again." : "It may have taken effect: look before you try again.";
  return new UnavailableError("REGION_UNREACHABLE", `${what} belongs to region ${region}: ${error.message} ${hint}`, {
    canRetry: error.reach === "none",
    cause: error,
  });
}

/** Of one connection alone (RFC 9110, 7.6.1); Node writes its own. */
const ofConnection = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
/** Said anew for the other region: by the signed header, by whoever stands in front of it, or by what follows here. */
const saidAnew = [
  "host",
  // This process has let the body come already.
  "expect",
  forwardedHeader,
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-proto",
  "x-real-ip",
  "x-request-id",
];

/** Headers as Node reads and writes them without touching them: name, value, name, value. */
export type RawHeaders = readonly string[];

/** The headers of a forwarded request: the client's, and what is said anew. Its body is of the same length, or chunked as before. */
export function requestHeaders(
  raw: RawHeaders,
  said: {
    readonly host: string;
    readonly forwarded: string;
    readonly requestId: string;
    /** In place of the client's own, if any. */
    readonly traceparent?: string | undefined;
    readonly hasBody: boolean;
  },
): string[] {
  const { host, forwarded, requestId, traceparent, hasBody } = said;
  const left = new Set([...ofConnection, ...saidAnew, ...(traceparent === undefined ? [] : ["traceparent"])]);
  const isChunked = hasHeader(raw, "transfer-encoding");
  // A message with both is read as chunked (RFC 9112, 6.3).
  if (isChunked || !hasBody) left.add("content-length");
  const headers = without(raw, left);
  headers.push("Host", host, "X-Request-Id", requestId, "Rungs-Forwarded", forwarded);
  if (traceparent !== undefined) headers.push("traceparent", traceparent);
  if (!hasBody) headers.push("Content-Length", "0");
  else if (isChunked) headers.push("Transfer-Encoding", "chunked");
  return headers;
}

/**
 * The headers of the answer to the client: those of the other region as they are, and what this process says of itself besides, such as
 * how much is left of a limit. The request's id is this process's.
 */
export function answerHeaders(
  raw: RawHeaders,
  own: Readonly<Record<string, number | string | readonly string[] | undefined>>,
): string[] {
  const left = new Set([...ofConnection, "x-request-id"]);
  const headers = without(raw, left);
  for (const [name, value] of Object.entries(own)) {
    if (value === undefined || ofConnection.includes(name) || (name !== "x-request-id" && hasHeader(raw, name)))
      continue;
    for (const each of Array.isArray(value) ? value : [value]) headers.push(name, String(each));
  }
  return headers;
}

function hasHeader(raw: RawHeaders, name: string): boolean {
  for (let at = 0; at < raw.length; at += 2) if (raw[at]?.toLowerCase() === name) return true;
  return false;
}

/** Without those headers, and without those that the message itself says are of its connection. */
function without(raw: RawHeaders, left: ReadonlySet<string>): string[] {
  const named = new Set(left);
  for (let at = 0; at < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== "connection") continue;
    for (const token of (raw[at + 1] ?? "").split(",")) named.add(token.trim().toLowerCase());
  }
  const kept: string[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] as string;
    if (!named.has(name.toLowerCase())) kept.push(name, raw[at + 1] as string);
  }
  return kept;
}
