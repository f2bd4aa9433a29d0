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
  /** Whether a Redis for the shared cache is started here. */
  readonly hasCache: boolean;
  /** Whether a Varnish is started here, in front of the balancer. */
  readonly hasVarnish: boolean;
  readonly programs: readonly ServerProgram[];
  /** The topology of a web process that listens there; `purgePort`: of the Varnish started here. */
  readonly webTopology: (port: number, purgePort?: number) => Topology;
}

/** Name of the variable that holds the address of a shard. */
export const shardVariable = (index: number) => `RUNGS_SHARD_${index}_URL`;
/** Name of the variable that the preset of rung 2 names for sessions. */
export const redisVariable = "REDIS_URL";
/** Name of the variable that the preset of rung 3 names for the shared cache. */
export const cacheVariable = "CACHE_URL";
/** Name of the variable that holds the secret of purges at a Varnish started here. */
export const purgeVariable = "RUNGS_PURGE_SECRET";
/** Its file among the stack's secrets. */
export const purgeSecretFile = "purge-secret";

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
  const { app, folder, environment } = options;
  const { topology } = options;
  const hasVarnish = topology.cdn?.provider === "varnish" && topology.cdn.addresses === undefined;
  const { processes, balancer } = topology.web;
  if (processes > 1 && balancer === undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `web.processes is ${processes}, and several need a balancer in front: --balancer nginx, or web: { balancer: "nginx" }.`,
    );
  }
  if (hasVarnish && balancer === undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      'cdn.provider "varnish" stands in front of a balancer: --balancer nginx, or web: { balancer: "nginx" }.',
    );
  }
  const { shards } = topology.database;
  const embedded = typeof shards === "number" ? shards : 0;
  const webTopology = (port: number, purgePort = 1): Topology => ({
    ...topology,
    ...(hasVarnish
      ? {
          cdn: { provider: "varnish", addresses: [`http://127.0.0.1:${purgePort}`], token: env(purgeVariable) },
        }
      : {}),
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
  const isOursBy = (address: unknown, variable: string) =>
    address instanceof Secret && address.variable === variable && (environment[variable] ?? "") === "";
  const hasRedis = isOursBy(url, redisVariable);
  const hasCache = isOursBy(topology.cache.url, cacheVariable);
  return {
    rung: rungOf(topology),
    app,
    folder,
    topology,
    balancer,
    processes,
    places: balancer === undefined ? 1 : placesOf(processes),
    embedded,
    hasRedis,
    hasCache,
    hasVarnish,
    programs: [
      ...(hasRedis || hasCache ? [serverPrograms.redis] : []),
      ...(balancer === undefined ? [] : [serverPrograms[balancer]]),
      ...(hasVarnish ? [serverPrograms.varnish] : []),
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
