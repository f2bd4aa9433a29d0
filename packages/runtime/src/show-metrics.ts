/** What each tier of a running app shows on `/metrics`. */
import type { Cache, InvalidationBus } from "./cache/index.ts";
import type { Purger } from "./cdn/index.ts";
import type { Database } from "./database/index.ts";
import type { Live } from "./live/index.ts";
import type { Metrics } from "./monitor/index.ts";
import type { RunningQueue } from "./queue/index.ts";
import type { Shedder } from "./web/drivers/shed.ts";

export function showDatabases<T>(metrics: Metrics, db: Database<T>): void {
  metrics.registerGauge({
    name: "database_pool_connections",
    help: "Connections of the database pools by state.",
    labelNames: ["shard", "state"],
    read: () =>
      db.poolStats().flatMap(({ shard, total, idle, waiting }) => [
        { labels: { shard, state: "busy" }, value: total - idle },
        { labels: { shard, state: "idle" }, value: idle },
        { labels: { shard, state: "waiting" }, value: waiting },
      ]),
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
