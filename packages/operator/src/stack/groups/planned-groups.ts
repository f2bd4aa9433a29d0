/** The groups of a stack's processes: how many, in how many places, and what each process is told of them. */
import { ConfigError } from "rungs";
import { groupSizes, type ServiceGroup, type Topology, webGroup, workersGroup } from "rungs/topology";
import type { AppPackage } from "../app-package.ts";
import { withServiceShards } from "../databases/service-databases.ts";
import type { PlannedRegion } from "../regions/planned-regions.ts";

/** Processes that do the same. */
export interface PlannedGroup {
  /** That of the group, with its region before it where there are several: "web", "eu-web". */
  readonly name: string;
  /** "web", "workers", or the name of a group in `services`. */
  readonly group: string;
  /** Name of the region it is in; undefined: there is but one. */
  readonly region: string | undefined;
  readonly role: "web" | "worker" | "service";
  readonly processes: number;
  /** Ports for them; more than processes, for restarts and scaling. */
  readonly places: number;
  /** Whether the balancer leads to it. */
  readonly isRouted: boolean;
}

/** What tells one process's topology from another's. */
export interface PlannedProcess {
  readonly group: string;
  /** The region that it runs in, and the inner addresses of the others; absent: there is but one. */
  readonly region?: { readonly name: string; readonly urls: Readonly<Record<string, string>> };
  /** Where it listens. */
  readonly port: number;
  /** Of each Varnish started here. */
  readonly purgePorts?: readonly number[];
  /** Ports at which processes reach a group, by its name; none where no service is split. */
  readonly internalPorts?: Readonly<Record<string, number>>;
}

/** Web without a balancer: the app's own port leads to it. */
export const isOnAppPort = ({ role, isRouted }: PlannedGroup) => role === "web" && !isRouted;

/** Names of the ports at which processes of a region reach the groups that serve; none where nothing is split off from `web`. */
export function internalPortNames(
  groups: readonly PlannedGroup[],
): { readonly group: string; readonly name: string }[] {
  const routed = groups.filter(({ isRouted }) => isRouted);
  return routed.length < 2 ? [] : routed.map(({ group, name }) => ({ group, name: `${name}-internal` }));
}
/** Parts of a stack by whose names no group may go: its processes and files would be taken for theirs. */
const otherParts = [
  ...["database", "postgres", "patroni", "shard", "etcd", "database-router", "redis", "cache", "varnish"],
  ...["balancer", "rabbitmq", "kafka", "launcher", "forward", "purge"],
];

/** The groups of each region with their places. Raises `CONFIG_INVALID` for what cannot be carried out here. */
export function plannedGroups(
  topology: Topology,
  { app, regions }: { readonly app: AppPackage; readonly regions: readonly PlannedRegion[] },
): PlannedGroup[] {
  if (topology.group !== undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `group is "${topology.group}", which is for one process alone; rungs up starts the processes of every group. Leave it out, or unset RUNGS_GROUP.`,
    );
  }
  const { balancer } = topology.web;
  refuseNames(topology, app);
  return regions.flatMap(({ name: region, prefix }) =>
    groupSizes(topology).map(({ name: group, processes }): PlannedGroup => {
      const common = { name: `${prefix}${group}`, group, region, processes };
      // Places of web are listed by the balancer and cost it little; those of the others are few, for databases count with all of them.
      const few = region === undefined ? 1 : 2;
      if (group === webGroup) {
        const places = balancer === undefined ? 1 : Math.max(12 / few, processes * 2);
        return { ...common, role: "web", places, isRouted: balancer !== undefined };
      }
      if (group === workersGroup) {
        return { ...common, role: "worker", places: Math.max(8 / few, processes * 2), isRouted: false };
      }
      return { ...common, role: "service", places: Math.max(4 / few, processes * 2), isRouted: true };
    }),
  );
}

/** Raises `CONFIG_INVALID` for groups that cannot go by their name here, or that nobody would send requests to. */
function refuseNames(topology: Topology, app: AppPackage): void {
  const { balancer } = topology.web;
  for (const { name } of groupSizes(topology)) {
    if (name === webGroup || name === workersGroup) continue;
    if ([...otherParts, ...app.companions.map((companion) => companion.name)].includes(name)) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `services.${name}: another part of the stack goes by this name. Call the group something else, and list its services: services: { ${name}_group: { services: ["${name}"] } }.`,
      );
    }
    if (balancer !== undefined) continue;
    throw new ConfigError(
      "CONFIG_INVALID",
      `services.${name} has routes of its own, which need a balancer in front: --balancer nginx, or web: { balancer: "nginx" }.`,
    );
  }
}

/** What a process is told of the groups; nothing where there is but one. */
export function groupSettings(
  { services }: Topology,
  group: string,
  internalPorts: Readonly<Record<string, number>>,
): Partial<Topology> {
  if (services === undefined) return {};
  const groups = withServiceShards(services);
  const addresses = Object.entries(internalPorts).map(([name, port]): [string, ServiceGroup] => [
    name,
    { ...groups[name], url: `http://127.0.0.1:${port}` },
  ]);
  return { services: { ...groups, ...Object.fromEntries(addresses) }, group };
}
