/**
 * A region left as planned: nothing that was acknowledged is lost.
 *
 * 1. *Look*: every shard that is led there has a server in the other region that can take over. If not, nothing is done.
 * 2. *Drain*: DNS sends users elsewhere. Those who still come are served, and their writes forwarded.
 * 3. *Leaders*: one shard after the other is handed over, once the other server has everything (in the synchronous settings it is the
 *    one that commits wait for).
 * 4. *Sessions*: the master of their Redis is handed over.
 * 5. *Wait* until the other region's processes answer by the new ways.
 *
 * Each step looks first at what is already so: after a break the same command goes on.
 */
import { UnavailableError } from "rungs";
import type { MemberReport } from "../component.ts";
import type { ClusterComponent } from "../databases/cluster.ts";
import { isUp, setSynchronousFollowers, statesOf, switchOver } from "../databases/patroni-api.ts";
import type { Progress } from "../groups/process-group.ts";
import { statusOf } from "../process/http-probe.ts";
import { watchPause } from "../process/pause.ts";
import { untilHolds } from "../process/until.ts";
import type { RedisMove } from "../redis/redis-set.ts";
import { publicAddress } from "../stack-plan.ts";
import { membersIn, type RegionOperationsOptions } from "./region-setting.ts";

/** What an evacuation did. */
export interface Evacuation {
  readonly from: string;
  readonly to: string;
  readonly tookMs: number;
  /** Shards that were handed over, and for how long nobody took their writes. */
  readonly shards: readonly ShardMove[];
  /** Null: the master was elsewhere already. */
  readonly sessions: RedisMove | null;
}

/** One shard's leader, handed over. */
interface ShardMove {
  readonly shard: number;
  readonly from: string;
  readonly to: string;
  readonly pauseMs: number;
}

interface Plan extends RegionOperationsOptions {
  readonly from: string;
  readonly to: string;
  readonly signal: AbortSignal;
  readonly progress: Progress;
}

const readyWithinMs = 20_000;
const answerMsMax = 2_000;
const backWithinMs = 30_000;

/** Evacuates. Raises `REGION_REFUSED` where the other region cannot take over, and what a step raised that failed. */
export async function evacuate(plan: Plan): Promise<Evacuation> {
  const { clusters, from, to, dns, redis, signal, progress } = plan;
  const since = performance.now();
  const led = await ledThere(plan);
  for (const cluster of led) await expectSuccessor(plan, cluster);
  await dns.drain([...new Set([...dns.drained(), from])], signal);
  progress(`${from} is drained: DNS sends its users elsewhere`);
  const shards: ShardMove[] = [];
  for (const cluster of led) {
    const moved = await handOver(plan, cluster, clusters.indexOf(cluster));
    shards.push(moved);
    progress(
      `shard ${moved.shard}: ${moved.to} leads in place of ${moved.from}; writes waited for ${moved.pauseMs} ms`,
    );
  }
  const sessions = (await redis.moveTo(to, signal)) ?? null;
  if (sessions !== null) {
    progress(`sessions: the master is in ${to} now; their writes waited for ${sessions.pauseMs} ms`);
  }
  await untilServing(plan);
  progress(`${to} serves`);
  return { from, to, tookMs: Math.round(performance.now() - since), shards, sessions };
}

/** The clusters whose leader is in the region. One that has none just now may get one there: it is waited for. */
async function ledThere({ clusters, from, regionOfMember, signal }: Plan): Promise<ClusterComponent[]> {
  const leaders = await Promise.all(
    clusters.map(async (cluster) => {
      let leader: string | undefined;
      await until("a shard has no leader", signal, async () => {
        const members = await cluster.members(signal);
        leader = members.find((member) => member.role === "leader" && isUp(member))?.name;
        return leader !== undefined;
      });
      return leader as string;
    }),
  );
  return clusters.filter((_, index) => regionOfMember(leaders[index] as string) === from);
}

/** The server that is to lead, when it has all that was acknowledged. */
async function expectSuccessor(plan: Plan, cluster: ClusterComponent): Promise<string> {
  const { to, regionOfMember, patroniPassword, signal } = plan;
  const { replication, members } = cluster.cluster;
  const [name] = membersIn(cluster, to, regionOfMember);
  const isAsynchronous = replication === "asynchronous";
  let isAsked = false;
  let seen: readonly MemberReport[] = [];
  await until("", signal, async () => {
    seen = await cluster.members(signal);
    const own = seen.find((member) => member.name === name);
    if (own === undefined || !isUp(own)) return false;
    if (isAsynchronous || own.role === "sync_standby") return true;
    // Commits wait for another region's server: for the moment they wait for all, so that this one is among them.
    if (!isAsked && seen.some(({ role }) => role === "sync_standby")) {
      isAsked = true;
      await setSynchronousFollowers({ members, password: patroniPassword, count: members.length - 1, signal });
    }
    return false;
  }).catch(async () => {
    signal.throwIfAborted();
    if (isAsked) await forgetFollowers(plan, cluster);
    throw new UnavailableError(
      "REGION_REFUSED",
      `${plan.from} cannot be evacuated to ${to}: ${cluster.name} has no ${isAsynchronous ? "follower" : "synchronous follower"} there (${statesOf(seen)}).`,
      { canRetry: true },
    );
  });
  return name as string;
}

async function handOver(plan: Plan, cluster: ClusterComponent, shard: number): Promise<ShardMove> {
  const { to, askLeader, patroniPassword, signal } = plan;
  const { members } = cluster.cluster;
  const candidate = await expectSuccessor(plan, cluster);
  const watch = await watchPause(() => askLeader({ region: to, shard }), { withinMs: readyWithinMs });
  let moved: { readonly from: string; readonly to: string } | undefined;
  let pauseMs = 0;
  try {
    moved = await switchOver({ members, password: patroniPassword, candidate, signal });
  } finally {
    pauseMs = await watch.stop(moved === undefined ? 0 : backWithinMs);
    await forgetFollowers(plan, cluster);
  }
  return { shard, ...moved, pauseMs };
}

/** Commits wait for one follower again. */
async function forgetFollowers({ patroniPassword, signal }: Plan, { cluster }: ClusterComponent): Promise<void> {
  if (cluster.replication === "asynchronous" || cluster.members.length < 3) return;
  await setSynchronousFollowers({ members: cluster.members, password: patroniPassword, count: 1, signal }).catch(
    () => {},
  );
}

async function untilServing({ regions, dns, to, appPort, signal }: Plan): Promise<void> {
  const own = regions.find(({ name }) => name === to);
  const processes = own?.components.flatMap((component) => component.processes()) ?? [];
  const urls = [
    ...(own?.addresses ?? []).map((address) => publicAddress(address, appPort)),
    ...processes.filter(({ role }) => role === "web").map(({ port }) => publicAddress("127.0.0.1", port ?? appPort)),
  ];
  await Promise.all(
    urls.map((url) =>
      until(`${url} is not ready`, signal, async () => {
        const within = AbortSignal.any([signal, AbortSignal.timeout(answerMsMax)]);
        return (await statusOf(`${url}/readyz`, within)) === 200;
      }),
    ),
  );
  // Its checks may have met the moment without a leader.
  await until(`DNS takes ${to} for down`, signal, async () => (await dns.health(signal))[to] !== "down");
}

function until(otherwise: string, signal: AbortSignal, holds: () => Promise<boolean>): Promise<void> {
  const late = () =>
    new UnavailableError("SERVER_START_FAILED", `Not within ${readyWithinMs / 1_000} s: ${otherwise}.`, {
      canRetry: true,
    });
  return untilHolds({ withinMs: readyWithinMs, signal, holds, late });
}
