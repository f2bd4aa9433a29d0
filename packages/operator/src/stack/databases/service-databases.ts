/** Databases that services own and that are started here: where the settings say only how many, one embedded PostgreSQL a shard. */
import type { Logger } from "rungs";
import { databaseGroups, env, type ServiceGroup, type Topology } from "rungs/topology";
import { type DatabaseComponent, databaseComponent } from "./database.ts";

/** One shard of a service's database. */
export interface ServiceShard {
  readonly group: string;
  readonly shard: number;
  /** Name of the variable that holds its address. */
  readonly variable: string;
}

/** Those to start. */
export function serviceShards(topology: Topology): ServiceShard[] {
  return databaseGroups(topology).flatMap((group) => {
    const shards = topology.services?.[group]?.database?.shards;
    return typeof shards === "number" ? Array.from({ length: shards }, (_, shard) => shardOf(group, shard)) : [];
  });
}

/** The groups with addresses in place of numbers of databases. */
export function withServiceShards(
  services: Readonly<Record<string, ServiceGroup>>,
): Readonly<Record<string, ServiceGroup>> {
  return Object.fromEntries(
    Object.entries(services).map(([name, group]): [string, ServiceGroup] => {
      const { database } = group;
      if (typeof database?.shards !== "number") return [name, group];
      const shards = Array.from({ length: database.shards }, (_, shard) => ({
        leader: env(shardOf(name, shard).variable),
      }));
      return [name, { ...group, database: { ...database, shards } }];
    }),
  );
}

/** A component each, and the variable that gives its address to the app's processes. */
export function serviceDatabases(
  {
    topology,
    groups,
    folder,
  }: {
    readonly topology: Topology;
    readonly groups: readonly { readonly group: string; readonly places: number }[];
    readonly folder: string;
  },
  { address, log }: { readonly address: string; readonly log: Logger },
): { readonly component: DatabaseComponent; readonly variable: string }[] {
  return serviceShards(topology).map(({ group, shard, variable }) => {
    const places = groups.filter((each) => each.group === group).reduce((sum, each) => sum + each.places, 0);
    // As of the app's own.
    const connectionsMax = places * (topology.database.pool.connectionsMax + 5) + 30;
    return { component: databaseComponent({ group, shard, folder, address, log, connectionsMax }), variable };
  });
}

function shardOf(group: string, shard: number): ServiceShard {
  const name = group.toUpperCase().replaceAll("-", "_");
  return { group, shard, variable: `RUNGS_SERVICE_${name}_SHARD_${shard}_URL` };
}
