/**
 * Limits on Fastify: by client address, by signed-in user, and by what a route says of itself.
 *
 * A request over a limit is answered 429 with `Retry-After`, before its body is read. Answers under a limit carry `RateLimit`
 * and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), of the limit with the least left.
 *
 * - The address is judged first, alone, so that a flood does not reach the session store. One that was refused is refused by
 *   this process itself, without asking the store, until its time has come.
 * - Then the user, for requests that bring a session token.
 * - When the store does not answer, limits go on in this process alone, each with the whole rate: requests are served rather
 *   than refused, and an attacker gains as many times the rate as there are processes. It is counted and logged.
 *
 * A route says `config: { rateLimit: { perMinute, burst, by } }` for a limit of its own beside those, or `rateLimit: "off"`
 * for none at all. Health checks and metrics have none, and requests that another region has forwarded were judged there.
 */

import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import { LRUCache } from "lru-cache";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { addressGroup } from "../client-address.ts";
import {
  type RateLimit,
  type RateLimitStore,
  type RateRequest,
  type RateVerdict,
  rateLimit,
  tightest,
} from "../rate-limit.ts";
import { forwardedFacts } from "./forwarded-requests.ts";
import { localRateLimitStore } from "./local-rate-limit-store.ts";

/** A route's own limit. */
export interface RouteRateLimit {
  readonly perMinute: number;
  /** Default a tenth, 10 at least. */
  readonly burst?: number;
  /** Whose requests are counted together; "user" is the address of those who are not signed in. Default "address". */
  readonly by?: "address" | "user";
}

declare module "fastify" {
  interface FastifyContextConfig {
    rateLimit?: RouteRateLimit | "off";
  }
}

/** Settings of {@link fastifyRateLimit}. */
export interface FastifyRateLimitOptions {
  readonly store: RateLimitStore;
  /** Of all routes together, by address; default none. */
  readonly address?: RateLimit | undefined;
  /** Of all routes together, by user; default none. */
  readonly user?: RateLimit | undefined;
  /** The signed-in user's id; asked only when a limit needs it, after the address was let through. Default: nobody is. */
  readonly userOf?: (request: FastifyRequest) => Promise<string | undefined>;
  readonly clock?: Clock;
  readonly log?: Logger;
}

/** Counters since the start. */
export interface RateLimitStats {
  readonly allowed: number;
  readonly refused: number;
  /** Requests judged by this process alone because the store did not answer. */
  readonly fallbacks: number;
}

const refusedKeysMax = 10_000;
const logEveryMs = 10_000;
const operational = new Set(["/healthz", "/readyz", "/metrics"]);

interface Judged {
  readonly limit: RateLimit;
  readonly verdict: RateVerdict;
}

/** Adds the limits to routes that are added afterwards. Costs nothing for those without any. */
export function fastifyRateLimit(
  fastify: FastifyInstance,
  options: FastifyRateLimitOptions,
): { stats(): RateLimitStats } {
  const gate = new RateGate(options);
  const { address, user } = options;
  const plans = new Map<string, RoutePlan | "off">();
  fastify.addHook("onRoute", (route) => {
    const own = route.config?.rateLimit;
    const isFree = own === "off" || operational.has(route.url);
    const plan = isFree ? "off" : planOf(options, own === undefined ? undefined : { name: nameOf(route), ...own });
    for (const method of [route.method].flat()) plans.set(`${method} ${route.url}`, plan);
    // With a limit on everything there is one hook for all, see below.
    if (
      address !== undefined ||
      user !== undefined ||
      plan === "off" ||
      plan.byAddress.length + plan.byUser.length === 0
    )
      return;
    const judge = (request: FastifyRequest, reply: FastifyReply) => gate.judge(request, reply, plan);
    route.onRequest = [judge, ...[route.onRequest ?? []].flat()];
  });
  if (address !== undefined || user !== undefined) {
    const unknown = planOf({ address }, undefined);
    fastify.addHook("onRequest", async (request, reply) => {
      // Addresses that lead nowhere count too: a flood of them is a flood.
      const { url } = request.routeOptions;
      const plan = url === undefined ? unknown : (plans.get(`${request.method} ${url}`) ?? unknown);
      if (plan !== "off") await gate.judge(request, reply, plan);
    });
  }
  return { stats: () => gate.stats() };
}

/** The limits of a route. */
interface RoutePlan {
  readonly byAddress: readonly RateLimit[];
  readonly byUser: readonly RateLimit[];
}

function planOf(
  { address, user }: Pick<FastifyRateLimitOptions, "address" | "user">,
  own: (RouteRateLimit & { readonly name: string }) | undefined,
): RoutePlan {
  const limit = own === undefined ? undefined : rateLimit(own);
  return {
    byAddress: [address, own?.by === "user" ? undefined : limit].flatMap((each) => each ?? []),
    byUser: [user, own?.by === "user" ? limit : undefined].flatMap((each) => each ?? []),
  };
}

/** Requests over a limit; Fastify answers with `statusCode`, and with Retry-After by `retryAfterMs`. */
class TooManyRequestsError extends Error {
  readonly statusCode = 429;
  readonly retryAfterMs: number;
  readonly errors = { body: ["too many requests; please try again later"] };

  constructor(retryAfterMs: number) {
    super("too many requests");
    this.retryAfterMs = retryAfterMs;
  }
}

class RateGate {
  private readonly options: FastifyRateLimitOptions;
  private readonly clock: Clock;
  private readonly local: RateLimitStore;
  /** By key of an address: until when it is refused, and by what. */
  private readonly refusals = new LRUCache<string, { readonly until: number; readonly judged: Judged }>({
    max: refusedKeysMax,
  });
  private readonly counters = { allowed: 0, refused: 0, fallbacks: 0 };
  private loggedAt = Number.NEGATIVE_INFINITY;

  constructor(options: FastifyRateLimitOptions) {
    this.options = options;
    this.clock = options.clock ?? systemClock;
    this.local = localRateLimitStore({ clock: this.clock });
  }

  stats(): RateLimitStats {
    return { ...this.counters };
  }

  async judge(request: FastifyRequest, reply: FastifyReply, { byAddress, byUser }: RoutePlan): Promise<void> {
    if (forwardedFacts(request.raw) !== undefined) return;
    const address = addressGroup(request.ip ?? "");
    const judged = await this.take(byAddress.map((limit) => ({ limit, key: address })));
    this.answer(reply, judged);
    if (byUser.length > 0) {
      // A session store that is away must not close pages that need no session; the handler hears of it if it asks.
      const userId = await this.options.userOf?.(request).catch(() => undefined);
      const owned = userId === undefined ? byUser.filter((limit) => limit !== this.options.user) : byUser;
      const key = userId === undefined ? address : `user ${userId}`;
      judged.push(...(await this.take(owned.map((limit) => ({ limit, key })))));
      this.answer(reply, judged);
    }
    this.counters.allowed++;
  }

  private async take(requests: readonly RateRequest[]): Promise<Judged[]> {
    if (requests.length === 0) return [];
    const now = this.clock.monotonic();
    const known = requests.map(({ limit, key }) => this.refusals.get(`${limit.name}:${key}`));
    const still = known.find((refusal) => refusal !== undefined && refusal.until > now);
    if (still !== undefined) {
      const retryAfterMs = still.until - now;
      return [{ limit: still.judged.limit, verdict: { ...still.judged.verdict, retryAfterMs, resetMs: retryAfterMs } }];
    }
    const verdicts = await this.ask(requests);
    return verdicts.map((verdict, index) => {
      const { limit, key } = requests[index] as RateRequest;
      const judged = { limit, verdict };
      if (!verdict.isAllowed) this.refusals.set(`${limit.name}:${key}`, { until: now + verdict.retryAfterMs, judged });
      return judged;
    });
  }

  private async ask(requests: readonly RateRequest[]): Promise<readonly RateVerdict[]> {
    const { store, log = silentLogger } = this.options;
    try {
      return await store.take(requests);
    } catch (error) {
      this.counters.fallbacks++;
      const now = this.clock.monotonic();
      if (now - this.loggedAt > logEveryMs) {
        this.loggedAt = now;
        log.warn({ error, fallbacks: this.counters.fallbacks }, "limits are kept by this process alone");
      }
      return this.local.take(requests);
    }
  }

  /** Writes the headers; raises when a limit was passed. */
  private answer(reply: FastifyReply, judged: readonly Judged[]): void {
    const worst = tightest(judged);
    if (worst === undefined) return;
    const { limit, verdict } = worst;
    const windowSeconds = Math.max(1, Math.ceil((limit.burst * 60) / limit.perMinute));
    const resetSeconds = Math.ceil((verdict.isAllowed ? verdict.resetMs : verdict.retryAfterMs) / 1_000);
    reply.header("ratelimit-policy", `"${limit.name}";q=${limit.burst};w=${windowSeconds}`);
    reply.header("ratelimit", `"${limit.name}";r=${verdict.remaining};t=${resetSeconds}`);
    if (verdict.isAllowed) return;
    this.counters.refused++;
    throw new TooManyRequestsError(Math.max(1, verdict.retryAfterMs));
  }
}

/** The route's method and path, as a name that may stand in a header. */
function nameOf({ method, url }: RouteOptions): string {
  const path = url.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  return `${[method].flat()[0]?.toLowerCase()}-${path === "" ? "root" : path}`;
}
