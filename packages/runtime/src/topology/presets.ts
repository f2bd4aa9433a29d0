/** The five rungs of the ladder as topologies: what each adds to the one below. */
import { webGroup } from "./groups.ts";
import { putSetting, settingsOf } from "./paths.ts";
import { env, type Secret } from "./secret.ts";
import { deepFreeze, defaultTopology, type Topology, type TopologyInput } from "./topology.ts";

/** A position on the ladder: 1 monolith, 2 balanced, 3 cached, 4 replicated and sharded, 5 event-driven. */
export type Rung = 1 | 2 | 3 | 4 | 5;

const balanced: TopologyInput = { web: { processes: 4, balancer: "nginx" }, sessions: { url: env("REDIS_URL") } };
const cached: TopologyInput = { ...balanced, cache: { url: env("CACHE_URL") }, cdn: { provider: "varnish" } };
const sharded: TopologyInput = { ...cached, database: { shards: presetShards(1) } };

/**
 * The servers of a number of shards from rung 4 on, 1 or more: shard 0's leader in SHARD_0_LEADER_URL, its followers in
 * SHARD_0_FOLLOWER_URL, several with commas between them. Where the variables are not set, `rungs up` starts the servers.
 */
export function presetShards(count: number): { readonly leader: Secret; readonly followers: readonly Secret[] }[] {
  return Array.from({ length: count }, (_, index) => ({
    leader: env(`SHARD_${index}_LEADER_URL`),
    followers: [env(`SHARD_${index}_FOLLOWER_URL`)],
  }));
}

/**
 * What each rung sets; all else is default. Servers are named by environment variables, because only the operator
 * knows where they are. Regions are not part of a preset for the same reason.
 */
export const rungPresets: Readonly<Record<Rung, TopologyInput>> = deepFreeze({
  1: {},
  2: balanced,
  3: cached,
  4: sharded,
  5: { ...sharded, queue: { url: env("QUEUE_URL") }, services: { workers: { processes: 2 } } },
});

/** The whole topology of a rung, defaults filled in. */
export function presetFor(rung: Rung): Topology {
  const topology: Record<string, unknown> = structuredClone(defaultTopology) as object as Record<string, unknown>;
  for (const [path, value] of settingsOf(rungPresets[rung])) putSetting(topology, path, value);
  return deepFreeze(topology as object as Topology);
}

/**
 * The highest rung whose mark the topology bears: a broker, groups of processes or regions 5; followers or several database servers 4; a
 * shared cache or a CDN 3; several processes, a balancer or shared sessions 2. Several embedded shards stay rung 1:
 * they are still one process and its databases beside it.
 */
export function rungOf(topology: Topology): Rung {
  const { database, queue, cache, cdn, web, sessions, regions, services } = topology;
  const hasGroups = Object.keys(services ?? {}).some((name) => name !== webGroup);
  if (queue.url !== undefined || hasGroups || Object.keys(regions ?? {}).length > 0) return 5;
  const servers = typeof database.shards === "number" ? [] : database.shards;
  if (servers.length > 1 || servers.some(({ followers = [] }) => followers.length > 0)) return 4;
  if (cache.url !== undefined || cdn !== undefined) return 3;
  return web.processes > 1 || web.balancer !== undefined || sessions.url !== undefined ? 2 : 1;
}
