/** The five rungs of the ladder as topologies: what each adds to the one below. */
import type { Topology, TopologyInput } from "./schema.ts";
import { env } from "./secret.ts";

/** A position on the ladder. */
export type Rung = 1 | 2 | 3 | 4 | 5;

const balanced: TopologyInput = { web: { processes: 2, balancer: "nginx" }, sessions: { url: env("REDIS_URL") } };
const cached: TopologyInput = { ...balanced, cache: { url: env("CACHE_URL") }, cdn: { provider: "varnish" } };
const replicated: TopologyInput = {
  ...cached,
  database: { shards: [{ leader: env("DATABASE_URL"), followers: [env("FOLLOWER_URL")] }] },
};

const presets: Readonly<Record<Rung, TopologyInput>> = {
  1: {},
  2: balanced,
  3: cached,
  4: replicated,
  5: { ...replicated, queue: { url: env("QUEUE_URL") } },
};

/** The topology of a rung, to be filled up with defaults. */
export function presetFor(rung: Rung): TopologyInput {
  return presets[rung];
}

/** The highest rung whose mark the topology bears: a queue 5, followers or server shards 4, a shared cache or CDN 3, several processes 2. */
export function rungOf(topology: Topology): Rung {
  const { database, queue, cache, cdn, web, sessions, regions } = topology;
  if (queue.url !== undefined || regions !== undefined) return 5;
  const isSpread = typeof database.shards !== "number" && (database.shards.length > 1 || database.shards.some((shard) => (shard.followers?.length ?? 0) > 0));
  if (isSpread) return 4;
  if (cache.url !== undefined || cdn !== undefined) return 3;
  return web.processes > 1 || web.balancer !== undefined || sessions.url !== undefined ? 2 : 1;
}
