/** How the regions of a stack are. */

import type { Component, MemberReport, ProcessReport, RegionReport, RegionsReport } from "../component.ts";
import type { ClusterComponent } from "../databases/cluster.ts";
import { isUp } from "../databases/patroni-api.ts";
import type { RegionOperationsOptions } from "./region-setting.ts";

const answerWithinMs = 3_000;

/** What is there now. Whatever does not answer within 3 s is told as away. */
export async function reportOnRegions(
  { regions, clusters, redis, dns, regionOfMember }: RegionOperationsOptions,
  isLost: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<RegionsReport> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);
  const [health, servers, members] = await Promise.all([
    dns.health(within),
    redis.report(within),
    Promise.all(clusters.map((cluster) => cluster.members(within).catch((): MemberReport[] => []))),
  ]);
  const drained = dns.drained();
  return {
    dns: dns.report,
    regions: regions.map(({ name, addresses, components }): RegionReport => {
      const own = members.map((all) => all.filter((member) => regionOfMember(member.name) === name && isUp(member)));
      const processes = processesOf({ components, clusters, regionOfMember, name });
      return {
        ...{ name, addresses, health: health[name] ?? "unknown" },
        state: isLost.has(name) ? "lost" : drained.includes(name) ? "drained" : "open",
        // Patroni knows of a lost one for some seconds more.
        leaders: isLost.has(name)
          ? []
          : own.flatMap((all, shard) => (all.some(({ role }) => role === "leader") ? [shard] : [])),
        members: isLost.has(name) ? 0 : own.filter((all) => all.length > 0).length,
        sessions: servers.find(({ region }) => region === name)?.role ?? "away",
        ready: processes.filter(({ role, state }) => isOfApp(role) && state === "ready").length,
        processes: processes.length,
      };
    }),
  };
}

const isOfApp = (role: ProcessReport["role"]) => role === "web" || role === "worker" || role === "service";

/** Its own parts', and those of its members of the clusters. */
function processesOf(options: {
  readonly components: readonly Component[];
  readonly clusters: readonly ClusterComponent[];
  readonly regionOfMember: (member: string) => string | undefined;
  readonly name: string;
}): ProcessReport[] {
  const { components, clusters, regionOfMember, name } = options;
  const servers = clusters.flatMap((cluster) => cluster.processes());
  return [
    ...components.flatMap((component) => component.processes()),
    ...servers.filter((process) => regionOfMember(process.name.replace("patroni", "postgres")) === name),
  ];
}
