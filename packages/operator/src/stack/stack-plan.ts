/** What a topology means on this machine: which servers, which programs, which topology each process gets. Starts nothing. */
import { join } from "node:path";
import { ConfigError, env } from "rungs";
import {
  presetShards,
  refuseUnsupported,
  rungOf,
  Secret,
  type ShardServers,
  shardCount,
  splitAddresses,
  type Topology,
  webGroup,
} from "rungs/topology";
import type { AppPackage } from "./app-package.ts";
import type { Replication } from "./databases/patroni-config.ts";
import { groupSettings, type PlannedGroup, type PlannedProcess, plannedGroups } from "./groups/planned-groups.ts";
import { type ServerProgram, serverPrograms } from "./process/programs.ts";
import {
  type PlannedRegion,
  plannedRegions,
  type RegionChoice,
  refuseServersOfYours,
  regionSettings,
  withoutRegions,
  withRegions,
} from "./regions/planned-regions.ts";
import {
  brokerVariable,
  cacheVariable,
  followerVariable,
  purgeVariable,
  redisReplicaVariable,
  redisVariable,
  shardVariable,
} from "./variables.ts";

/** The plan of a stack. */
export interface StackPlan {
  readonly rung: number;
  readonly app: AppPackage;
  /** The stack's folder, absolute. */
  readonly folder: string;
  /** With every default, as the operator wrote it. */
  readonly topology: Topology;
  readonly balancer: "nginx" | "haproxy" | undefined;
  /** The regions; one without a name where the stack has none. */
  readonly regions: readonly PlannedRegion[];
  /** Between two regions, there and back; 0: none. */
  readonly roundTripMs: number;
  /** The groups of the app's processes, of one region after the other; `web` first in each. */
  readonly groups: readonly PlannedGroup[];
  /** Places of all of them together: most processes that may use the databases. */
  readonly places: number;
  /** Embedded databases to start; 0 when the topology names servers. */
  readonly embedded: number;
  /** Shards on clusters of PostgreSQL to start; 0 when the databases are embedded, or servers of the operator's. */
  readonly clusters: number;
  /** Servers of each. */
  readonly membersPerShard: number;
  /** Index of the region in which a new shard's first leader is. */
  readonly firstLeaderOf: (shard: number) => number;
  /** What a commit waits for in them. */
  readonly replication: Replication;
  /** Which keys live on a shard, in words. */
  readonly placementOf: (shard: number) => string;
  /** Whether a Redis for sessions is started here. */
  readonly hasRedis: boolean;
  /** Whether a Redis for the shared cache is started here. */
  readonly hasCache: boolean;
  /** The message broker to start here; undefined: there is none, or it is the operator's. */
  readonly broker: BrokerKind | undefined;
  /** Whether a Varnish is started here, in front of the balancer. */
  readonly hasVarnish: boolean;
  readonly programs: readonly ServerProgram[];
  readonly processTopology: (process: PlannedProcess) => Topology;
}

/** A broker that can be started here. */
export type BrokerKind = "rabbitmq" | "kafka";

/** Servers of a shard, when they are started here: with one down a commit still has a second one. With regions there is one in each. */
const membersPerShard = 3;

/**
 * Plans. Raises `CAPABILITY_MISSING` when the topology asks for what nothing carries out yet, and `CONFIG_INVALID` when it
 * contradicts itself.
 */
export function planStack(options: {
  readonly topology: Topology;
  readonly app: AppPackage;
  readonly folder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Default "synchronous": asynchronous fail-overs lose what was acknowledged last. */
  readonly replication?: Replication;
  /** Which broker to start where the topology names none of the operator's; default "rabbitmq". */
  readonly broker?: BrokerKind;
  /** Default none. */
  readonly regions?: RegionChoice;
  /** Whether somebody said the setting at this path, and not a preset; default: nobody. */
  readonly isChosen?: (path: string) => boolean;
}): StackPlan {
  const { app, folder, environment, replication = "synchronous" } = options;
  const { isChosen = () => false } = options;
  const regions = plannedRegions(options.regions, { folder, host: options.topology.web.host });
  const topology =
    options.regions === undefined
      ? withoutRegions(options.topology)
      : withRegions(options.topology, regions, { environment, isChosen, broker: options.broker });
  const hasVarnish = topology.cdn?.provider === "varnish" && topology.cdn.addresses === undefined;
  const { processes, balancer } = topology.web;
  const groups = plannedGroups(topology, { app, regions });
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
  const clusters = clustersOf(topology, environment);
  const members = options.regions === undefined ? membersPerShard : regions.length;
  // A process reads from all of them; with regions from the one in its own.
  const read = options.regions === undefined ? members : 1;
  const followers = followerNumbers(topology, environment, clusters === 0 ? 0 : read);
  const processTopology = ({
    group,
    region,
    port,
    purgePorts = [1],
    internalPorts = {},
  }: PlannedProcess): Topology => ({
    ...topology,
    ...(region === undefined
      ? {}
      : {
          ...regionSettings(regions, region),
          sessions: { ...topology.sessions, replica: env(redisReplicaVariable) },
        }),
    ...groupSettings(topology, group, internalPorts),
    ...(hasVarnish
      ? {
          cdn: {
            provider: "varnish",
            addresses: purgePorts.map((purgePort) => `http://127.0.0.1:${purgePort}`),
            token: env(purgeVariable),
          },
        }
      : {}),
    dataDirectory: folder,
    web: {
      ...topology.web,
      processes: 1,
      balancer: undefined,
      port,
      ...(balancer === undefined && group === webGroup ? {} : { host: "127.0.0.1", trustProxy: ["loopback"] }),
    },
    database: {
      ...topology.database,
      shards: Array.from({ length: typeof shards === "number" ? shards : shards.length }, (_, index) => ({
        leader: env(shardVariable(index)),
        followers: Array.from({ length: followers[index] ?? 0 }, (_, follower) =>
          env(followerVariable(index, follower)),
        ),
      })),
    },
  });
  const first = regions[0]?.name;
  const anyRegion = first === undefined ? {} : { region: { name: first, urls: {} } };
  refuseUnsupported(processTopology({ group: webGroup, port: 1, ...anyRegion }));
  const { url } = topology.sessions;
  const isOursBy = (address: unknown, variable: string) =>
    address instanceof Secret && address.variable === variable && (environment[variable] ?? "") === "";
  const hasRedis = isOursBy(url, redisVariable);
  const hasCache = isOursBy(topology.cache.url, cacheVariable);
  const broker = isOursBy(topology.queue.url, brokerVariable) ? (options.broker ?? "rabbitmq") : undefined;
  if (options.broker !== undefined && broker === undefined) refuseBrokerFlag(topology, options.broker);
  if (options.regions !== undefined) refuseServersOfYours(topology, { clusters, hasRedis, hasCache });
  return {
    rung: options.regions === undefined ? rungOf(topology) : 5,
    app,
    folder,
    topology,
    balancer,
    regions,
    roundTripMs: options.regions?.roundTripMs ?? 0,
    groups,
    places: groups.reduce((sum, group) => sum + group.places, 0),
    embedded,
    clusters,
    membersPerShard: members,
    firstLeaderOf: (shard) => (options.regions?.isSpread === true ? shard % regions.length : 0),
    replication,
    placementOf: (shard) => placementOf(topology, shard),
    hasRedis,
    hasCache,
    broker,
    hasVarnish,
    programs: [
      ...(clusters === 0
        ? []
        : [serverPrograms.postgres, serverPrograms.patroni, serverPrograms.etcd, serverPrograms.haproxy]),
      ...(hasRedis || hasCache ? [serverPrograms.redis] : []),
      ...(broker === undefined ? [] : [serverPrograms[broker]]),
      ...(balancer === undefined || (balancer === "haproxy" && clusters > 0) ? [] : [serverPrograms[balancer]]),
      ...(hasVarnish ? [serverPrograms.varnish] : []),
      ...(options.regions === undefined ? [] : [serverPrograms.gdnsd]),
    ],
    processTopology,
  };
}

function refuseBrokerFlag(topology: Topology, broker: BrokerKind): never {
  throw new ConfigError(
    "CONFIG_INVALID",
    topology.queue.url === undefined
      ? `--queue ${broker} has an effect only where the topology has a broker: --rung 5, or queue: { url: env("${brokerVariable}") }.`
      : `--queue ${broker} would start a broker, but queue.url names one of yours. Leave the flag out, or unset ${brokerVariable}.`,
  );
}

/** Addresses of databases that the topology names, revealed for the web processes' own variables. None of those started here. */
export function shardAddresses(
  topology: Topology,
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const { shards } = topology.database;
  if (typeof shards === "number" || clustersOf(topology, environment) > 0) return {};
  return Object.fromEntries(
    shards.flatMap((servers, index) => [
      [shardVariable(index), revealed(servers.leader, environment)],
      ...followersOf(servers, environment).map((address, follower) => [followerVariable(index, follower), address]),
    ]),
  );
}

/** How many shards of the preset have no servers yet. Raises `CONFIG_INVALID` when only some of them have. */
function clustersOf(topology: Topology, environment: Readonly<Record<string, string | undefined>>): number {
  const { shards } = topology.database;
  if (typeof shards === "number") return 0;
  const isUnset = (address: unknown, named: Secret) =>
    address instanceof Secret && address.variable === named.variable && (environment[named.variable] ?? "") === "";
  const preset = presetShards(shards.length);
  const unset = shards.filter(({ leader }, index) => isUnset(leader, (preset[index] as { leader: Secret }).leader));
  if (unset.length === 0) return 0;
  const given = shards.find((servers) => !unset.includes(servers));
  const [first] = unset as [ShardServers];
  if (given !== undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `${nameOf(given.leader)} is set and ${nameOf(first.leader)} is not: give the leader of every shard, or of none to have all servers started here.`,
    );
  }
  for (const { followers = [] } of shards) {
    const stray = followers.find(
      (follower) => !(follower instanceof Secret) || (environment[follower.variable] ?? "") !== "",
    );
    if (stray === undefined) continue;
    throw new ConfigError(
      "CONFIG_INVALID",
      `${nameOf(stray)} is set and ${nameOf(first.leader)} is not: set the leader's address too, or neither to have all servers started here.`,
    );
  }
  return shards.length;
}

function nameOf(address: ShardServers["leader"]): string {
  return address instanceof Secret ? address.variable : "An address in the settings";
}

/** Followers of each shard, as the web processes get them. `started`: how many of a shard are started here. */
function followerNumbers(
  topology: Topology,
  environment: Readonly<Record<string, string | undefined>>,
  started: number,
): number[] {
  const { shards } = topology.database;
  if (typeof shards === "number") return [];
  return shards.map((servers) => (started > 0 ? started : followersOf(servers, environment).length));
}

/** A variable may list several; one of the preset that is not set stands for none. */
function followersOf(
  { followers = [] }: ShardServers,
  environment: Readonly<Record<string, string | undefined>>,
): string[] {
  const preset = /^SHARD_\d+_FOLLOWER_URL$/;
  return followers.flatMap((follower) => {
    if (!(follower instanceof Secret)) return [follower];
    if (preset.test(follower.variable) && (environment[follower.variable] ?? "") === "") return [];
    return splitAddresses(follower.reveal(environment));
  });
}

function revealed(address: ShardServers["leader"], environment: Readonly<Record<string, string | undefined>>): string {
  return address instanceof Secret ? address.reveal(environment) : address;
}

function placementOf(topology: Topology, shard: number): string {
  const { strategy, splits } = topology.database;
  const shards = shardCount(topology);
  if (shards === 1) return "all keys";
  if (strategy === "range") {
    const [from, to] = [splits[shard - 1], splits[shard]].map((key) =>
      key === undefined ? undefined : JSON.stringify(key),
    );
    return from === undefined
      ? `keys before ${to}`
      : to === undefined
        ? `keys from ${from}`
        : `keys from ${from} to before ${to}`;
  }
  return `hash, shard ${shard + 1} of ${shards}`;
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
