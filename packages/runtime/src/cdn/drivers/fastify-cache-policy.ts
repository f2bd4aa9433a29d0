/**
 * The cache policy on Fastify: says of every answer who may keep it.
 *
 * A route opts in by `config: { cache: { sharedMaxAgeMs, ... } }`, and its handler names what it shows by `reply.cacheTag(tag)`: the
 * same tags that writes invalidate. Everything else goes out as private, whatever its handler has set. Shared answers get an
 * entity tag, and a client that has the same already gets a 304.
 */
import { hash } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import {
  browserCacheControl,
  type CachePolicy,
  type CredentialHeaders,
  cdnCacheControl,
  isAnonymous,
  matchesEtag,
  privateCacheControl,
  sharingOf,
} from "../cache-policy.ts";
import type { Cdn } from "../cdn.ts";
import { siteKey, surrogateKey } from "../surrogate-key.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Lets the CDN and browsers keep the route's answers to anonymous requests; default: nobody keeps them. */
    cache?: CachePolicy<FastifyRequest, FastifyReply>;
  }
  interface FastifyReply {
    /** Says that the answer shows what this tag stands for: a write that invalidates the tag purges it at the CDN. */
    cacheTag(tag: string): void;
    rungsCacheTags: Set<string> | null;
    /** When the request came, by `performance.now()`: Fastify keeps that only where something listens for it. */
    rungsCameAt: number;
  }
}

/** Settings of {@link fastifyCachePolicy}. */
export interface FastifyCachePolicyOptions {
  /** The CDN in front; undefined: browsers alone are told. */
  readonly cdn?: Pick<Cdn, "keyHeader" | "keySeparator"> | undefined;
  /** Whether a request brings no credentials; default: no `Authorization`, and no cookie but those of measuring scripts. */
  readonly isAnonymous?: (headers: CredentialHeaders) => boolean;
}

/** All keys of an answer; Varnish takes 8 KB a header, nginx 8 KB for all of an answer. */
const keyBytesMax = 5_000;

/** Decorates replies and settles the caching of every answer. Call it before routes are added. */
export function fastifyCachePolicy(fastify: FastifyInstance, options: FastifyCachePolicyOptions = {}): void {
  fastify.decorateReply("rungsCacheTags", null);
  fastify.decorateReply("rungsCameAt", 0);
  fastify.addHook("onRequest", (_request, reply, done) => {
    reply.rungsCameAt = performance.now();
    done();
  });
  fastify.decorateReply("cacheTag", function cacheTag(this: FastifyReply, tag: string) {
    this.rungsCacheTags ??= new Set();
    this.rungsCacheTags.add(tag);
  });
  const settle = (request: FastifyRequest, reply: FastifyReply, payload: unknown) =>
    settleAnswer(request, reply, payload, options);
  fastify.addHook("onRoute", (route: RouteOptions) => {
    // Last of all, after hooks that may still set a cookie.
    route.onSend = [...listOf(route.onSend), async (request, reply, payload) => settle(request, reply, payload)];
  });
  // Unknown addresses have no route whose hooks would run.
  fastify.addHook("onSend", async (request, reply, payload) =>
    request.is404 ? settle(request, reply, payload) : payload,
  );
}

Object.assign(fastifyCachePolicy, { [Symbol.for("skip-override")]: true });

function settleAnswer(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
  options: FastifyCachePolicyOptions,
): unknown {
  const policy = request.is404 ? undefined : request.routeOptions.config.cache;
  const own = textOf(reply.getHeader("cache-control"));
  const sharing = sharingOf({
    policy,
    method: request.method,
    status: reply.statusCode,
    isAnonymous: (options.isAnonymous ?? isAnonymous)(request.headers),
    setsCookie: reply.hasHeader("set-cookie"),
    cacheControl: own,
    tookMs: performance.now() - reply.rungsCameAt,
  });
  const isKept = policy !== undefined && !("reason" in sharing) && options.cdn !== undefined;
  const keys = isKept ? keysOf(request, reply, policy) : [];
  const isFitting = keys.reduce((sum, key) => sum + key.length + 1, 0) <= keyBytesMax;
  if (policy === undefined || "reason" in sharing || !isFitting) {
    reply.header("cache-control", reply.hasHeader("set-cookie") ? "private, no-store" : privateCacheControl(own));
    if (policy !== undefined && policy.isForEveryone !== true) addVary(reply, ["Cookie", "Authorization"]);
    if (options.cdn !== undefined) reply.header("x-not-shared", "reason" in sharing ? sharing.reason : "too-many-keys");
    return payload;
  }
  const isFile = policy.isForEveryone === true && own !== undefined;
  if (!isFile) reply.header("cache-control", browserCacheControl(policy));
  addVary(reply, [...(policy.isForEveryone === true ? [] : ["Cookie", "Authorization"]), ...(policy.vary ?? [])]);
  if (options.cdn !== undefined) {
    reply.header("cdn-cache-control", cdnCacheControl(policy, sharing.sharedMaxAgeMs));
    reply.header(options.cdn.keyHeader, keys.join(options.cdn.keySeparator));
  }
  return reply.statusCode === 200 ? conditional(request, reply, payload) : payload;
}

function keysOf(request: FastifyRequest, reply: FastifyReply, policy: CachePolicy<FastifyRequest, FastifyReply>) {
  const tags = [...(policy.surrogateKeys?.(request, reply) ?? []), ...(reply.rungsCacheTags ?? [])];
  return [...new Set([siteKey, ...tags.map(surrogateKey)])];
}

/** Gives the answer its entity tag, unless the handler has; a client that has it already gets a 304 without the body. */
function conditional(request: FastifyRequest, reply: FastifyReply, payload: unknown): unknown {
  const isOurs = !reply.hasHeader("etag") && (typeof payload === "string" || Buffer.isBuffer(payload));
  if (!isOurs) return payload;
  // Weak: a proxy may send the same content in another coding.
  const etag = `W/"${hash("sha256", payload, "base64url").slice(0, 22)}"`;
  reply.header("etag", etag);
  if (!matchesEtag(request.headers["if-none-match"], etag)) return payload;
  reply.code(304).removeHeader("content-length");
  reply.removeHeader("content-type");
  return null;
}

function addVary(reply: FastifyReply, names: readonly string[]): void {
  const known = (textOf(reply.getHeader("vary")) ?? "").split(",").flatMap((name) => name.trim() || []);
  const all = [...known, ...names];
  const first = (name: string, index: number) => all.findIndex((o) => o.toLowerCase() === name.toLowerCase()) === index;
  if (all.length > 0) reply.header("vary", all.filter(first).join(", "));
}

function textOf(value: number | string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(", ") : value?.toString();
}

function listOf<T>(hooks: T | T[] | undefined): T[] {
  if (hooks === undefined) return [];
  return Array.isArray(hooks) ? hooks : [hooks];
}
