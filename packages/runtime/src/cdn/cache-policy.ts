/**
 * Who may keep an answer, and for how long: the policy that routes declare, and what it becomes in headers.
 *
 * Nothing is shared unless its route opted in, and then only the good answer to a request without credentials that sets no
 * cookie. Browsers and unknown caches always ask again (`max-age=0, must-revalidate`); the CDN of the app is told its own times
 * in `CDN-Cache-Control` (RFC 9213), because a purge reaches it and not the others.
 */

/** For how long, and for whom; times in milliseconds. */
export interface CacheTimes {
  /** How long the CDN keeps an answer that nothing purged: the bound on staleness when a purge is lost. */
  readonly sharedMaxAgeMs: number;
  /** How long browsers use an answer without asking; no purge reaches them. Default 0. */
  readonly maxAgeMs?: number;
  /** After `sharedMaxAgeMs`, the CDN serves the old answer for this long while it fetches a new one. Default 0. */
  readonly staleWhileRevalidateMs?: number;
  /** After `sharedMaxAgeMs`, the CDN serves the old answer for this long when the app does not answer. Default 0. */
  readonly staleIfErrorMs?: number;
  /** How long the CDN keeps a 404. Default 0: not at all. */
  readonly notFoundMaxAgeMs?: number;
  /**
   * The answer is the same for signed-in visitors too, and the handler looks at no credentials: files. A `Cache-Control` that the
   * handler sets for browsers then stays. Default false.
   */
  readonly isForEveryone?: boolean;
}

/** Declared by a route: its answers to anonymous requests are the same for everybody. */
export interface CachePolicy<Request = unknown, Reply = unknown> extends CacheTimes {
  /** Tags of what the answer shows, beside those that the handler names by `reply.cacheTag`. */
  readonly surrogateKeys?: (request: Request, reply: Reply) => readonly string[];
  /** Further request headers that the answer depends on. */
  readonly vary?: readonly string[];
}

/** Headers of a request that say who it comes from. */
export interface CredentialHeaders {
  readonly authorization?: string | undefined;
  readonly cookie?: string | undefined;
}

/** What is known of an answer when it goes out. */
export interface AnswerFacts {
  readonly policy: CacheTimes | undefined;
  readonly method: string;
  readonly status: number;
  readonly isAnonymous: boolean;
  readonly setsCookie: boolean;
  /** The handler's own Cache-Control. */
  readonly cacheControl: string | undefined;
  /** Since the request came, ms. */
  readonly tookMs: number;
}

/** May the answer be shared, and if so for how long; else why not, for people who look for the reason. */
export type Sharing = { readonly sharedMaxAgeMs: number } | { readonly reason: string };

/**
 * An answer that took longer is not shared: it may show what a commit meanwhile has changed, and would reach the CDN only after
 * the repeated purge of that commit. See `purger.ts`.
 */
export const renderMsMax = 1_000;

/**
 * Names of cookies by which measuring scripts of others know visitors, and which no server-side code reads: they make nobody a
 * known visitor. A regular expression that both JavaScript and Varnish (PCRE) read.
 */
export const measuringCookies =
  "_ga[A-Za-z0-9_]*|_gid|_gat[A-Za-z0-9_]*|_gcl_[a-z]+|__utm[a-z]+|_fbp|_fbc|_pk_[a-z0-9._]+";

const measuringPair = new RegExp(`^(?:${measuringCookies})=`);

/** Whether a request brings nothing by which the app could know who asks. */
export function isAnonymous({ authorization, cookie }: CredentialHeaders): boolean {
  if (authorization !== undefined) return false;
  if (cookie === undefined) return true;
  return cookie.split(";").every((pair) => pair.trim() === "" || measuringPair.test(pair.trim()));
}

/** Applies the rules. */
export function sharingOf(facts: AnswerFacts): Sharing {
  const { policy, method, status, cacheControl = "" } = facts;
  if (policy === undefined) return { reason: "route-not-shared" };
  if (method !== "GET" && method !== "HEAD") return { reason: "method" };
  if (facts.setsCookie) return { reason: "sets-cookie" };
  if (!facts.isAnonymous && policy.isForEveryone !== true) return { reason: "has-credentials" };
  const isMissing = status === 404 && (policy.notFoundMaxAgeMs ?? 0) > 0;
  // The error handler writes `no-store` on every error; only the policy may say otherwise.
  if (isMissing) return { sharedMaxAgeMs: policy.notFoundMaxAgeMs ?? 0 };
  if (/no-store|private/i.test(cacheControl)) return { reason: "handler-says-private" };
  if (status !== 200 && status !== 206 && status !== 301 && status !== 308 && status !== 304)
    return { reason: "status" };
  if (policy.isForEveryone !== true && facts.tookMs > renderMsMax) return { reason: "took-too-long" };
  return { sharedMaxAgeMs: policy.sharedMaxAgeMs };
}

const seconds = (ms: number) => Math.floor(ms / 1_000);

/** For browsers and caches that no purge reaches. */
export function browserCacheControl({ maxAgeMs = 0 }: CacheTimes): string {
  return `public, max-age=${seconds(maxAgeMs)}, must-revalidate`;
}

/** For the CDN. */
export function cdnCacheControl(policy: CacheTimes, sharedMaxAgeMs: number): string {
  const { staleWhileRevalidateMs = 0, staleIfErrorMs = 0 } = policy;
  return [
    `max-age=${seconds(sharedMaxAgeMs)}`,
    ...(staleWhileRevalidateMs > 0 ? [`stale-while-revalidate=${seconds(staleWhileRevalidateMs)}`] : []),
    ...(staleIfErrorMs > 0 ? [`stale-if-error=${seconds(staleIfErrorMs)}`] : []),
  ].join(", ");
}

/** The handler's own Cache-Control with everything taken out that would let others keep the answer. */
export function privateCacheControl(own: string | undefined): string {
  if (own === undefined || own.trim() === "") return "private, no-store";
  if (/no-store|private/i.test(own)) return own;
  const kept = own
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "" && !/^(?:public|s-maxage\b.*|stale-.*|immutable)$/i.test(part));
  return ["private", ...kept].join(", ");
}

/** `If-None-Match` against an entity tag, weakly (RFC 9110, 13.1.2). */
export function matchesEtag(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  const opaque = (tag: string) => tag.trim().replace(/^W\//, "");
  return ifNoneMatch.trim() === "*" || ifNoneMatch.split(",").some((tag) => opaque(tag) === opaque(etag));
}
