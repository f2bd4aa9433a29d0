/** Two regions of one web process each, joined by real connections, with leaders that the test places. */
import type { FastifyInstance } from "fastify";
import { pino } from "pino";
import { CircuitBreaker } from "../../../src/call/index.ts";
import { systemClock } from "../../../src/kernel/clock.ts";
import { systemRandom } from "../../../src/kernel/random.ts";
import { createMetrics } from "../../../src/monitor/index.ts";
import { fastifyForward } from "../../../src/web/drivers/fastify-forward.ts";
import { fastifyRateLimit } from "../../../src/web/drivers/fastify-rate-limit.ts";
import { createWebServer, type WebServer } from "../../../src/web/drivers/fastify-web.ts";
import { forwardedRequests } from "../../../src/web/drivers/forwarded-requests.ts";
import { localRateLimitStore } from "../../../src/web/drivers/local-rate-limit-store.ts";
import { type RegionLink, regionLink } from "../../../src/web/drivers/region-link.ts";
import { type ForwardKey, forwardSigner, forwardVerifier } from "../../../src/web/forward-signature.ts";
import { rateLimit } from "../../../src/web/rate-limit.ts";

export const testKey: ForwardKey = { id: "regions", secret: Buffer.alloc(32, 7) };
export const testKeys = {
  newest: () => testKey,
  find: async (id: string) => (id === testKey.id ? testKey : undefined),
};

/** One region's process. */
export interface TestRegion {
  readonly name: string;
  readonly url: string;
  readonly web: WebServer;
  /** Where this region thinks the leader is. */
  leader: string;
  /** What asking the leader anew finds; default what was known. */
  foundByAsking: string | undefined;
  /** Forwarded requests by outcome. */
  readonly outcomes: Record<string, number>;
  readonly refusals: ReadonlyMap<string, number>;
  breakerState(region: string): string | undefined;
  close(): Promise<void>;
}

/** Starts one; `others` are the inner addresses by region, which may be told later. */
export async function startRegion(options: {
  readonly name: string;
  readonly leader: string;
  readonly others: ReadonlyMap<string, string>;
  readonly routes: (fastify: FastifyInstance) => void;
  readonly trustProxy?: readonly string[];
  readonly addressPerMinute?: number;
  readonly answerMs?: number;
  readonly onForward?: () => Promise<void>;
}): Promise<TestRegion> {
  const { name, others, routes, trustProxy = [], addressPerMinute, answerMs = 10_000, onForward } = options;
  const forwarded = forwardedRequests({ verify: forwardVerifier({ keys: testKeys, here: name }) });
  const metrics = createMetrics();
  const web = createWebServer({
    ...{
      host: "127.0.0.1",
      port: 0,
      bodyLimitBytes: 1_000_000,
      requestTimeoutMs: 30_000,
      trustProxy,
      metrics,
      forwarded,
    },
    log: pino({ level: "silent" }),
  });
  const outcomes: Record<string, number> = {};
  const links: RegionLink[] = [];
  const state = { leader: options.leader, foundByAsking: undefined as string | undefined };
  const targets = new Map(
    [...others].map(([region, url]) => {
      const link = regionLink(url);
      links.push(link);
      return [region, { link, breaker: new CircuitBreaker({ clock: systemClock, random: systemRandom }) }];
    }),
  );
  fastifyForward(web.fastify, {
    ...{ here: name, targets, answerMs, ...(onForward === undefined ? {} : { onForward }) },
    places: {
      regionOf: () => state.leader,
      common: () => state.leader,
      async ask() {
        state.leader = state.foundByAsking ?? state.leader;
      },
    },
    userShard: async () => undefined,
    sign: forwardSigner({ keys: testKeys }),
    isDraining: () => web.isDraining,
    observe(_region, outcome) {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    },
  });
  if (addressPerMinute !== undefined) {
    const address = rateLimit({ name: "address", perMinute: addressPerMinute, burst: addressPerMinute });
    fastifyRateLimit(web.fastify, { store: localRateLimitStore(), address });
  }
  routes(web.fastify);
  const url = await web.listen();
  return {
    ...{ name, url, web, outcomes, refusals: forwarded.refusals },
    breakerState: (region) => targets.get(region)?.breaker.state,
    get leader() {
      return state.leader;
    },
    set leader(region) {
      state.leader = region;
    },
    get foundByAsking() {
      return state.foundByAsking;
    },
    set foundByAsking(region) {
      state.foundByAsking = region;
    },
    async close() {
      for (const link of links) link.close();
      web.fastify.server.closeAllConnections();
      await web.close({ graceMs: 100 });
      metrics.close();
    },
  };
}
