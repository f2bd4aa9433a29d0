/** What a topology means on this machine: which servers, which programs, which topology each web process gets. Starts nothing. */
import { join } from "node:path";
import { ConfigError, env } from "rungs";
import { refuseUnsupported, rungOf, Secret, type Topology } from "rungs/topology";
import type { AppPackage } from "./app-package.ts";
import { type ServerProgram, serverPrograms } from "./programs.ts";

/** The plan of a stack. */
export interface StackPlan {
  readonly rung: number;
  readonly app: AppPackage;
  /** The stack's folder, absolute. */
  readonly folder: string;
  /** With every default, as the operator wrote it. */
  readonly topology: Topology;
  readonly balancer: "nginx" | "haproxy" | undefined;
  readonly processes: number;
  /** Places that the balancer knows; more than processes, for restarts and scaling. */
  readonly places: number;
  /** Embedded databases to start; 0 when the topology names servers. */
  readonly embedded: number;
  /** Whether a Redis for sessions is started here. */
  readonly hasRedis: boolean;
  readonly programs: readonly ServerProgram[];
  /** The topology of a web process that listens there. */
  readonly webTopology: (port: number) => Topology;
}

/** Name of the variable that holds the address of a shard. */
export const shardVariable = (index: number) => `RUNGS_SHARD_${index}_URL`;
/** Name of the variable that the preset of rung 2 names for sessions. */
export const redisVariable = "REDIS_URL";

/** Most web processes that scaling reaches without a change of the balancer. */
const placesOf = (processes: number) => Math.max(12, processes * 2);

/**
 * Plans. Raises `CAPABILITY_MISSING` when the topology asks for what nothing carries out yet, and `CONFIG_INVALID` when it
 * contradicts itself.
 */
export function planStack(options: {
  readonly topology: Topology;
  readonly app: AppPackage;
  readonly folder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}): StackPlan {
  const { topology, app, folder, environment } = options;
  const { processes, balancer } = topology.web;
  if (processes > 1 && balancer === undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `web.processes is ${processes}, and several need a balancer in front: --balancer nginx, or web: { balancer: "nginx" }.`,
    );
  }
  const { shards } = topology.database;
  const embedded = typeof shards === "number" ? shards : 0;
  const webTopology = (port: number): Topology => ({
    ...topology,
    dataDirectory: folder,
    web: {
      ...topology.web,
      processes: 1,
      balancer: undefined,
      port,
      ...(balancer === undefined ? {} : { host: "127.0.0.1", trustProxy: ["loopback"] }),
    },
    database: {
      ...topology.database,
      shards: Array.from({ length: typeof shards === "number" ? shards : shards.length }, (_, index) => ({
        leader: env(shardVariable(index)),
        ...(typeof shards === "number" ? {} : { followers: shards[index]?.followers }),
      })),
    },
  });
  refuseUnsupported(webTopology(1));
  const { url } = topology.sessions;
  const isOurs = url instanceof Secret && url.variable === redisVariable && (environment[redisVariable] ?? "") === "";
  return {
    rung: rungOf(topology),
    app,
    folder,
    topology,
    balancer,
    processes,
    places: balancer === undefined ? 1 : placesOf(processes),
    embedded,
    hasRedis: isOurs,
    programs: [
      ...(isOurs ? [serverPrograms.redis] : []),
      ...(balancer === undefined ? [] : [serverPrograms[balancer]]),
    ],
    webTopology,
  };
}

/** Where the addresses of databases that the topology names come from, revealed for the web processes' own variables. */
export function shardAddresses(
  topology: Topology,
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const { shards } = topology.database;
  if (typeof shards === "number") return {};
  return Object.fromEntries(
    shards.map(({ leader }, index) => [
      shardVariable(index),
      leader instanceof Secret ? leader.reveal(environment) : leader,
    ]),
  );
}

/** The address that people open: where nothing but "all" is listened on, this machine's own. */
export function publicAddress(host: string, port: number): string {
  const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  return `http://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
}

/** Folders of a stack. */
export function foldersOf(folder: string): { readonly logs: string; readonly secrets: string } {
  return { logs: join(folder, "logs"), secrets: join(folder, "secrets") };
}
