/**
 * Databases that services own: `services.GROUP.database`. The tables of the group's services are there and only there; every other
 * service's are in the app's database. Pure.
 */
import { ConfigError } from "../kernel/errors.ts";
import type { Topology } from "./topology.ts";

/** Names of the groups whose services own a database, in the order of the settings. */
export function databaseGroups({ services = {} }: Topology): string[] {
  return Object.entries(services).flatMap(([name, { database }]) => (database === undefined ? [] : [name]));
}

/** The group whose database has the tables of that service; undefined: they are in the app's. */
export function databaseGroupOf(topology: Topology, service: string): string | undefined {
  return databaseGroups(topology).find((name) => (topology.services?.[name]?.services ?? [name]).includes(service));
}

/** The group whose own database a process with this topology uses; undefined: the app's. */
export function ownDatabaseGroup(topology: Topology): string | undefined {
  return databaseGroups(topology).find((name) => name === topology.group);
}

/** The topology with the group's own database in place of the app's; as it is without a group. Bounds of pools are the app's. */
export function topologyOfDatabase(topology: Topology, group: string | undefined): Topology {
  const own = group === undefined ? undefined : topology.services?.[group]?.database;
  if (own === undefined) return topology;
  const { shards, strategy = "hash", splits = [] } = own;
  return { ...topology, database: { ...topology.database, strategy, splits, shards } };
}

/** Raises `CONFIG_INVALID` for a process that would do everything where services own databases: it would have to use them all. */
export function refuseUngrouped(topology: Topology): void {
  const [first] = databaseGroups(topology);
  if (first === undefined || topology.group !== undefined) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `services.${first}.database: its services own a database, which only the processes of that group may use, and this process belongs to no group. Start the app by rungs up, or say which group it is: RUNGS_GROUP.`,
  );
}
