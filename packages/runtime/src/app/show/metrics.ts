/** What each tier of a running app shows on `/metrics`. */
import type { Cache, InvalidationBus } from "../../cache/index.ts";
import type { Purger } from "../../cdn/index.ts";
import type { Database, PoolStats, ReplicatedShard, ShardStanding } from "../../database/index.ts";
import type { Live } from "../../live/index.ts";
import type { Metrics } from "../../monitor/index.ts";
import type { RunningQueue } from "../../queue/index.ts";
import type { SessionReads } from "../../session/index.ts";
import type { Shedder } from "../../web/drivers/shed.ts";
import type { ReadFloors } from "../reads/read-floors.ts";

export function showDatabases<T>(
  metrics: Metrics,
  { db, followerPools }: { readonly db: Database<T>; readonly followerPools: () => PoolStats[] },
): void {
  metrics.registerGauge({
    name: "database_pool_connections",
    help: "Connections of the database pools by state; a follower's pool has its name in place of the shard's.",
    labelNames: ["shard", "state"],
    read: () =>
      [...db.poolStats(), ...followerPools()].flatMap(({ shard, total, idle, waiting }) => [
        { labels: { shard, state: "busy" }, value: total - idle },
        { labels: { shard, state: "idle" }, value: idle },
        { labels: { shard, state: "waiting" }, value: waiting },
      ]),
  });
}

/** Which shards this process uses, and how often they refused keys that they no longer own; nothing with one shard. */
export function showShards(metrics: Metrics, standings: () => readonly ShardStanding[]): void {
  metrics.registerGauge({
    name: "database_shard_used",
    help: "1 while the shard confirms what it owns, so that it is used; else 0, and its users are not served.",
    labelNames: ["shard"],
    read: () => standings().map(({ shard, isUsed }) => ({ labels: { shard: String(shard) }, value: isUsed ? 1 : 0 })),
  });
  metrics.registerGauge({
    name: "database_shard_epoch",
    help: "Epoch of the placement by which the shard's ownership last changed.",
    labelNames: ["shard"],
    read: () => standings().map(({ shard, epoch }) => ({ labels: { shard: String(shard) }, value: epoch })),
  });
  metrics.registerGauge({
    name: "database_shard_refusals",
    help: "Keys that the shard refused since the start, because it no longer owned them or never did.",
    labelNames: ["shard"],
    read: () => standings().map(({ shard, refusals }) => ({ labels: { shard: String(shard) }, value: refusals })),
  });
}

/** Who answers reads and why, and how followers keep up. */
export function showReplication(
  metrics: Metrics,
  { shards, floors }: { readonly shards: ReadonlyMap<number, ReplicatedShard>; readonly floors: ReadFloors },
): void {
  const all = () => [...shards.values()].map((shard) => shard.replicationStats());
  metrics.registerGauge({
    name: "database_reads",
    help: "Reads outside of transactions since the start by who answered: a follower, or the leader and why it did.",
    labelNames: ["shard", "role", "reason"],
    read: () =>
      all().flatMap(({ shard, readsByFollowers, readsByLeader }) => [
        { labels: { shard, role: "follower", reason: "" }, value: readsByFollowers },
        ...Object.entries(readsByLeader).map(([reason, value]) => ({
          labels: { shard, role: "leader", reason },
          value,
        })),
      ]),
  });
  metrics.registerGauge({
    name: "database_replication_events",
    help: "Writes, waits for followers and ms waited, second tries, ejections, fail-overs and possible losses since the start; the timeline now.",
    labelNames: ["shard", "kind"],
    read: () =>
      all().flatMap(({ shard, readsByFollowers, readsByLeader, followers, ...figures }) =>
        Object.entries(figures).map(([kind, value]) => ({ labels: { shard, kind }, value: Number(value) })),
      ),
  });
  metrics.registerGauge({
    name: "database_follower",
    help: "Lag of each follower in ms while it is known, reads under way and answered, ejections, and 1 for its state.",
    labelNames: ["shard", "follower", "kind"],
    read: () =>
      all().flatMap(({ shard, followers }) =>
        followers.flatMap(({ name: follower, state, lagMs, ...figures }) => [
          ...(lagMs === undefined ? [] : [{ labels: { shard, follower, kind: "lagMs" }, value: lagMs }]),
          ...Object.entries(figures).map(([kind, value]) => ({ labels: { shard, follower, kind }, value })),
          { labels: { shard, follower, kind: state }, value: 1 },
        ]),
      ),
  });
  metrics.registerGauge({
    name: "database_read_floors",
    help: "Shards whose leader answers all reads because it is not known how new they have to be, and how often that was so.",
    labelNames: ["kind"],
    read: () => Object.entries(floors.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

/** How requests are held to what their sessions have seen. */
export function showSessionReads(metrics: Metrics, reads: SessionReads): void {
  metrics.registerGauge({
    name: "session_reads",
    help: "Requests since the start, what was noted in sessions or by clients, their notes believed and refused, and failures to note.",
    labelNames: ["kind"],
    read: () => Object.entries(reads.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

export function showCache(metrics: Metrics, cache: Cache, bus: InvalidationBus | undefined): void {
  metrics.registerGauge({
    name: "cache_events",
    help: "Cache counters since the start, and its size.",
    labelNames: ["kind"],
    read: () => Object.entries(cache.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
  if (bus === undefined) return;
  metrics.registerGauge({
    name: "cache_invalidation_events",
    help: "Invalidations told and heard, gaps and waits since the start, and how long ago all were known to be heard.",
    labelNames: ["kind"],
    read: () => Object.entries(bus.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

/** Nothing without a CDN. */
export function showPurges(metrics: Metrics, purger: Purger | undefined): void {
  if (purger === undefined) return;
  metrics.registerGauge({
    name: "cdn_purges",
    help: "Keys purged at the CDN, calls, failures and keys given up since the start; keys that wait, and the oldest's age in ms.",
    labelNames: ["kind"],
    read: () => Object.entries(purger.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

export function showShedding(metrics: Metrics, shedder: Shedder): void {
  metrics.registerGauge({
    name: "web_admission",
    help: "Requests admitted and shed since the start by class, and whether there is overload now.",
    labelNames: ["kind"],
    read: () => {
      const { isOverloaded, admitted, shed } = shedder.stats();
      const values = Object.entries({ ...shed, admitted, overloaded: isOverloaded ? 1 : 0 });
      return values.map(([kind, value]) => ({ labels: { kind }, value }));
    },
  });
}

export function showQueue(metrics: Metrics, queue: RunningQueue): void {
  metrics.registerGauge({
    name: "queue_handler",
    help: "Jobs of each handler in this process since its start, those at work now, and the ms they waited and took in all.",
    labelNames: ["handler", "kind"],
    read: () =>
      queue
        .stats()
        .flatMap(({ handler, ...figures }) =>
          Object.entries(figures).map(([kind, value]) => ({ labels: { handler, kind }, value })),
        ),
  });
}

/**
 * What this process's handlers have to do in all processes together; the same in each of them. `group`: the group of processes that it
 * belongs to, if the app has some.
 */
export function showBacklog(metrics: Metrics, queue: RunningQueue, group: string | undefined): void {
  metrics.registerGauge({
    name: "queue_backlog",
    help: "Messages of each handler that are due and not done: in outboxes, broker and job tables; an estimate above 1,000.",
    labelNames: ["handler"],
    read: () => queue.load().handlers.map(({ handler, waiting }) => ({ labels: { handler }, value: waiting })),
  });
  metrics.registerGauge({
    name: "queue_load",
    help: "Of each handler: age of the oldest due message, ms a try takes and ms to work off what waits, as far as known; messages that come and are done a second, averaged over half a minute; 1 while it is paused.",
    labelNames: ["handler", "kind"],
    read: () => {
      const paused = queue.paused();
      return queue.load().handlers.flatMap(({ handler, oldestAgeMs, msPerTry, drainMs, arrivalsPerS, donePerS }) =>
        Object.entries({
          oldestAgeMs,
          msPerTry,
          drainMs,
          arrivalsPerS,
          donePerS,
          paused: Number(paused.includes(handler)),
        })
          .filter((entry): entry is [string, number] => entry[1] !== null)
          .map(([kind, value]) => ({ labels: { handler, kind }, value })),
      );
    },
  });
  metrics.registerGauge({
    name: "queue_wanted_processes",
    help: "How many processes with these handlers what comes and what waits would take; see docs/operating/jobs.md.",
    labelNames: ["group"],
    read: () => {
      const { wantedProcesses } = queue.load();
      return wantedProcesses === undefined ? [] : [{ labels: { group: group ?? "app" }, value: wantedProcesses }];
    },
  });
}

/** Nothing without a broker. */
export function showRelays(metrics: Metrics, queue: RunningQueue): void {
  if (queue.relays().length === 0) return;
  metrics.registerGauge({
    name: "queue_relay",
    help: "Of each shard's relay in this process: whether it is active; messages published and their ms on the way; failed batches.",
    labelNames: ["shard", "kind"],
    read: () =>
      queue.relays().flatMap(({ shard, isActive, published, batches, failures, delayMs }) =>
        Object.entries({ active: Number(isActive), published, batches, failures, delayMs }).map(([kind, value]) => ({
          labels: { shard, kind },
          value,
        })),
      ),
  });
  metrics.registerGauge({
    name: "queue_outbox",
    help: "What waits in each shard for the broker: messages, bytes, size on disk, age of the oldest in ms, 1 when publishing is refused.",
    labelNames: ["shard", "kind"],
    read: () =>
      queue
        .relays()
        .flatMap(({ shard, outbox }) =>
          Object.entries(outbox ?? {}).map(([kind, value]) => ({ labels: { shard, kind }, value: Number(value) })),
        ),
  });
}

export function showLive(metrics: Metrics, live: Live): void {
  metrics.registerGauge({
    name: "live",
    help: "Open live streams and topics; messages and ends of streams since the start.",
    labelNames: ["kind", "reason"],
    read: () =>
      Object.entries(live.stats()).flatMap(([kind, value]) =>
        typeof value === "number"
          ? [{ labels: { kind, reason: "" }, value }]
          : Object.entries(value).map(([reason, count]) => ({ labels: { kind, reason }, value: count as number })),
      ),
  });
}
