/** The regions of an app, as one of its processes meets them: where the leaders are, and how requests get there and come from there. */
import type { FastifyRequest } from "fastify";
import { CallStats, CircuitBreaker, storedCallKeys } from "../../call/index.ts";
import type { Database, ShardConnection } from "../../database/index.ts";
import { systemClock } from "../../kernel/clock.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import { systemRandom } from "../../kernel/random.ts";
import type { Metrics } from "../../monitor/index.ts";
import type { SqlDatabase } from "../../session/drivers/database-session-store.ts";
import { readSigningKeys } from "../../session/drivers/database-signing-key.ts";
import { otherRegions, ownDatabaseGroup, type Topology, topologyOfDatabase } from "../../topology/index.ts";
import { type FastifyForwardOptions, type ForwardTarget, fastifyForward } from "../../web/drivers/fastify-forward.ts";
import type { WebServer } from "../../web/drivers/fastify-web.ts";
import { type ForwardedRequests, forwardedRequests } from "../../web/drivers/forwarded-requests.ts";
import { regionLink } from "../../web/drivers/region-link.ts";
import { forwardSigner, forwardVerifier } from "../../web/forward-signature.ts";
import { type LeaderRegion, watchLeaderRegions } from "../leaders/leader-regions.ts";
import { showRegions } from "../show/regions.ts";

/** What the operator may ask a process about regions. */
export interface RegionsReport {
  /** The region of this process. */
  readonly region: string;
  readonly leaders: readonly LeaderRegion[];
  /** Requests that this process has forwarded since its start, by region and outcome. */
  readonly forwarded: readonly { readonly region: string; readonly outcome: string; readonly requests: number }[];
  /** Requests of other regions that this process has carried out since its start. */
  readonly received: number;
}

/** The regions, open. */
export interface OpenRegions {
  /** For the web server. */
  readonly forwarded: ForwardedRequests;
  /** Forwards from routes that are added afterwards. */
  forward(
    web: WebServer,
    options: Pick<FastifyForwardOptions, "onForward" | "traceparentOf"> & {
      readonly userOf: (request: FastifyRequest) => Promise<string | undefined>;
    },
  ): void;
  /** Whether jobs of the store of that name are for this region's processes: its leader is here. */
  mayClaim(storeName: string): boolean;
  /** Hears the name of each shard whose leader has come to this region. */
  onArrival(listener: (storeName: string) => void): void;
  report(): RegionsReport;
}

/** The balancer's own, beyond what it grants the app. */
const answerGraceMs = 5_000;
/** How long a start waits for the leaders to say where they are. */
const firstAskMsMax = 2_000;

/** Opens them; undefined for a process that has no region, or where there is no other. Raises what the home database raises. */
export async function openRegions<T>(options: {
  readonly topology: Topology;
  readonly databases: { readonly db: Database<T>; readonly shards: readonly ShardConnection[] };
  /** The home database's leader. */
  readonly home: SqlDatabase;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}): Promise<OpenRegions | undefined> {
  const { topology, databases, home, metrics, log, lifecycle } = options;
  const { region: here } = topology;
  const others = otherRegions(topology);
  if (here === undefined || others.size === 0) return undefined;
  const { db, shards } = databases;
  const clock = systemClock;
  const own = topologyOfDatabase(topology, ownDatabaseGroup(topology));
  const leaders = watchLeaderRegions({ topology: own, shards, log });
  lifecycle.started("regions of leaders", async () => leaders.stop());
  await leaders.ask(firstAskMsMax);
  const read = async () => {
    const found = await readSigningKeys({ database: home, name: "regions" });
    return found.map(({ name: id, secret }) => ({ id, secret }));
  };
  const keys = await storedCallKeys({ read, clock, log });
  const forwarded = forwardedRequests({ verify: forwardVerifier({ keys, here, clock }), log, clock });
  const targets = openTargets(others, lifecycle);
  const stats = new CallStats();
  showRegions(metrics, { leaders, stats, forwarded });

  return {
    forwarded,
    forward(web, { userOf, ...rest }) {
      fastifyForward(web.fastify, {
        ...{ ...rest, here, targets, places: leaders, log, clock },
        sign: forwardSigner({ keys, clock }),
        // Whose session cannot be read goes where nobody's goes: there it is read again.
        userShard: async (request) => {
          const user = await userOf(request).catch(() => undefined);
          return user === undefined ? undefined : db.shardOf(user);
        },
        answerMs: topology.web.requestTimeoutMs + answerGraceMs,
        isDraining: () => web.isDraining,
        observe: (region, outcome, ms) => stats.note(region, outcome, ms),
      });
    },
    mayClaim(storeName) {
      const shard = shards.findIndex(({ name }) => name === storeName);
      return shard === -1 || leaders.regionOf(shard) === here;
    },
    onArrival(listener) {
      leaders.onMove(({ shard, region }) => {
        if (region === here) listener((shards[shard] as ShardConnection).name);
      });
    },
    report: () => ({
      region: here,
      leaders: leaders.all(),
      forwarded: stats
        .all()
        .flatMap(({ method: region, outcomes }) =>
          [...outcomes].map(([outcome, requests]) => ({ region, outcome, requests })),
        ),
      received: forwarded.taken(),
    }),
  };
}

function openTargets(others: ReadonlyMap<string, string>, lifecycle: Lifecycle): ReadonlyMap<string, ForwardTarget> {
  return new Map(
    [...others].map(([region, url]) => {
      const link = regionLink(url);
      lifecycle.started(`connections to region ${region}`, async () => link.close());
      return [region, { link, breaker: new CircuitBreaker({ clock: systemClock, random: systemRandom }) }] as const;
    }),
  );
}
