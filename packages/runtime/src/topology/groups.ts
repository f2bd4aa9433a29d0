/**
 * Groups of processes: which services live in which, from `services` and the names of the app's services.
 *
 * - `web` serves the routes of every service without a group of its own, in `web.processes` processes.
 * - `workers`, where it is set, runs the handlers of those same services; otherwise `web` does.
 * - any other group serves the routes and runs the handlers of its services.
 *
 * A process without a group does everything, as at rungs 1 to 4.
 */
import { ConfigError } from "../kernel/errors.ts";
import { nearestName } from "./nearest.ts";
import type { ServiceGroup, Topology } from "./topology.ts";

/** Name of the group that serves what no other group does. */
export const webGroup = "web";
/** Name of the group that runs handlers only. */
export const workersGroup = "workers";

/** What each process of a group does. Services by name, in the order of the app. */
export interface ProcessWork {
  /** Those whose routes it serves, and whose methods others may call there. */
  readonly routes: readonly string[];
  /** Those whose handlers and schedules it runs; it then takes part in the relay to the broker too. */
  readonly handlers: readonly string[];
}

/** A group and what each of its processes does. */
export interface GroupWork extends ProcessWork {
  readonly name: string;
  readonly processes: number;
  /** Where processes of other groups reach it; undefined where nobody said. */
  readonly url: string | undefined;
}

/** The groups by name with their numbers of processes: `web` first, then `workers`, then the others in the order of the settings. */
export function groupSizes({ services = {}, web }: Topology): { readonly name: string; readonly processes: number }[] {
  const { [webGroup]: _, [workersGroup]: workers, ...own } = services;
  const others: [string, ServiceGroup][] = [
    ...(workers === undefined ? [] : [[workersGroup, workers] satisfies [string, ServiceGroup]]),
    ...Object.entries(own),
  ];
  return [
    { name: webGroup, processes: web.processes },
    ...others.map(([name, { processes = 1 }]) => ({ name, processes })),
  ];
}

/**
 * All groups, in the order of {@link groupSizes}. `services`: names of all services of the app.
 *
 * Raises `CONFIG_INVALID` when a group names a service that the app does not have.
 */
export function groupsOf(topology: Topology, services: readonly string[]): GroupWork[] {
  const groups = topology.services ?? {};
  const ownOf = (name: string) => groups[name]?.services ?? [name];
  const sizes = groupSizes(topology);
  const own = sizes.filter(({ name }) => name !== webGroup && name !== workersGroup);
  for (const { name } of own) for (const service of ownOf(name)) refuseUnknown(name, service, services);
  const taken = new Set(own.flatMap(({ name }) => ownOf(name)));
  const rest = services.filter((service) => !taken.has(service));
  const hasWorkers = Object.hasOwn(groups, workersGroup);
  const workOf = (name: string): ProcessWork => {
    if (name === webGroup) return { routes: rest, handlers: hasWorkers ? [] : rest };
    if (name === workersGroup) return { routes: [], handlers: rest };
    const mine = services.filter((service) => ownOf(name).includes(service));
    return { routes: mine, handlers: mine };
  };
  return sizes.map((size) => ({ ...size, ...workOf(size.name), url: groups[size.name]?.url }));
}

/** What a process with this topology does: that of its group, and without one everything. Raises as {@link groupsOf}. */
export function processWork(topology: Topology, services: readonly string[]): ProcessWork {
  const groups = groupsOf(topology, services);
  const { group } = topology;
  if (group === undefined) return { routes: services, handlers: services };
  const found = groups.find(({ name }) => name === group);
  if (found !== undefined) return found;
  throw new ConfigError("CONFIG_INVALID", `group: "${group}" is no group of services; set services.${group} too.`);
}

/** The group that serves a service's routes and methods. */
export function groupOfService(groups: readonly GroupWork[], service: string): GroupWork | undefined {
  return groups.find(({ routes }) => routes.includes(service));
}

function refuseUnknown(group: string, service: string, services: readonly string[]): void {
  if (services.includes(service)) return;
  const meant = nearestName(service, services);
  const known = meant === undefined ? `it has ${services.join(", ")}` : `did you mean ${meant}?`;
  const isByName = service === group;
  throw new ConfigError(
    "CONFIG_INVALID",
    `services.${group}: the app has no service "${service}"; ${known}${isByName ? ` A group with another name than its services lists them: services: { ${group}: { services: [...] } }.` : ""}`,
  );
}
