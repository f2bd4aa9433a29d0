/** A region that is gone at once, and comes back: the rehearsal of a loss that nobody planned. */
import { UnavailableError } from "rungs";
import type { Component, MemberReport } from "../component.ts";
import type { ClusterComponent } from "../databases/cluster.ts";
import { isUp, statesOf } from "../databases/patroni-api.ts";
import type { Progress } from "../groups/process-group.ts";
import { untilHolds } from "../process/until.ts";
import { startInOrder } from "../start-order.ts";
import { membersIn, type RegionParts } from "./region-setting.ts";

interface Loss {
  readonly own: RegionParts;
  readonly clusters: readonly ClusterComponent[];
  readonly regionOfMember: (member: string) => string | undefined;
  readonly progress: Progress;
}

const followsWithinMs = 120_000;

/** Kills all of it in one moment. The others are told nothing: they find out by themselves. */
export async function loseRegion({ own, clusters, regionOfMember, progress }: Loss): Promise<void> {
  const count = own.components.flatMap((component) => component.processes()).length;
  const servers = clusters.map((cluster) => ({ cluster, names: membersIn(cluster, own.name, regionOfMember) }));
  await Promise.all([
    ...own.components.map((component) => component.lose?.()),
    ...servers.map(({ cluster, names }) => cluster.loseMembers(names)),
  ]);
  const killed = servers.flatMap(({ names }) => names);
  progress(`${own.name}: ${count} processes killed, and ${killed.join(", ")} with its Patroni`);
}

/** Starts it in order, and waits until its database servers follow. What does not start is taken down again. */
export async function returnRegion(loss: Loss & { readonly signal: AbortSignal }): Promise<void> {
  const { own, clusters, regionOfMember, progress, signal } = loss;
  const back = clusters.map((cluster): Component => {
    const names = membersIn(cluster, own.name, regionOfMember);
    return {
      ...{ name: cluster.name, role: cluster.role, needs: [], plan: cluster.plan },
      async start(within) {
        await cluster.restoreMembers(names, within);
        await untilFollowing({ cluster, names, progress, signal: within });
      },
      stop: async () => {},
      lose: () => cluster.loseMembers(names),
      processes: () => [],
    };
  });
  const all = [...back, ...own.components];
  try {
    await startInOrder(all, {
      signal,
      onReady: ({ name }, ms) => progress(`${name} is back after ${Math.round(ms)} ms`),
    });
  } catch (error) {
    await Promise.all(all.map((component) => component.lose?.()));
    throw error;
  }
}

/** Until each follows whoever leads, on the same timeline. A former leader is rewound for that, or copied anew. */
async function untilFollowing(options: {
  readonly cluster: ClusterComponent;
  readonly names: readonly string[];
  readonly progress: Progress;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { cluster, names, progress, signal } = options;
  let seen: readonly MemberReport[] = [];
  await untilHolds({
    ...{ withinMs: followsWithinMs, everyMs: 100, signal },
    async holds() {
      seen = await cluster.members(signal).catch(() => []);
      const leader = seen.find((member) => member.role === "leader" && isUp(member));
      const own = seen.filter(({ name }) => names.includes(name));
      const follow = own.filter(
        (member) => member === leader || (isUp(member) && member.timeline === leader?.timeline),
      );
      if (leader === undefined || follow.length < names.length) return false;
      for (const { name, role } of own) progress(`${name} ${role === "leader" ? "leads" : `follows ${leader.name}`}`);
      return true;
    },
    late: () =>
      new UnavailableError(
        "SERVER_START_FAILED",
        `${names.join(", ")} does not follow after ${followsWithinMs / 1_000} s (${statesOf(seen)}).`,
        { canRetry: true },
      ),
  });
}
