/** All parts of a stack, by its plan: those that its regions share, and those of each. Starts nothing. */
import { brokerComponent, brokerPorts } from "./broker/broker.ts";
import { type CompanionComponent, companionComponent } from "./companion.ts";
import type { Component } from "./component.ts";
import { type DatabaseComponent, databaseComponent } from "./databases/database.ts";
import {
  clusterPorts,
  farServers,
  type ReplicatedDatabases,
  replicatedDatabases,
} from "./databases/replicated-databases.ts";
import { serviceDatabases } from "./databases/service-databases.ts";
import { type DnsOfRegions, dnsOfRegions, dnsPortName } from "./dns/dns-of-regions.ts";
import { internalPortNames, isOnAppPort } from "./groups/planned-groups.ts";
import { type ProcessGroups, processGroups } from "./groups/process-groups.ts";
import { findProgram } from "./process/find-program.ts";
import { launcherLog } from "./process/launcher-log.ts";
import { generatedSecret } from "./process/secrets.ts";
import { redisComponent } from "./redis/redis.ts";
import { type RedisSet, redisSet, redisSetPorts } from "./redis/redis-set.ts";
import { distanceComponent } from "./regions/distance-proxy.ts";
import { type RegionOperations, regionOperations } from "./regions/region-operations.ts";
import { distancePorts, farFronts, type RegionOfStack, regionParts, regionPorts } from "./regions/region-parts.ts";
import { publicAddress, type StackPlan, shardAddresses } from "./stack-plan.ts";
import {
  brokerVariable,
  purgeSecretFile,
  purgeVariable,
  redisReplicaVariable,
  redisVariable,
  shardVariable,
} from "./variables.ts";

/** A stack, put together. */
export interface StackParts {
  readonly components: readonly Component[];
  /** Those of all regions. */
  readonly groups: ProcessGroups;
  readonly databases: ReplicatedDatabases | undefined;
  /** In the order of the plan. */
  readonly regions: readonly RegionOfStack[];
  /** Undefined where the stack has no regions. */
  readonly operations: RegionOperations | undefined;
  /** What should be told at the start. */
  readonly remarks: readonly string[];
}

/** Where the parts are, and what they are given. */
export interface PartsOptions {
  readonly ports: Readonly<Record<string, number>>;
  readonly appPort: number;
  readonly logs: string;
  readonly secrets: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly onWebFailure: ((error: unknown) => void) | undefined;
}

/** Names of the regions; none where the stack has but one, without a name. */
const namesOf = ({ regions }: StackPlan) => regions.flatMap(({ name }) => name ?? []);
/** Servers that are reached from other regions over the distance; none where there is no distance. */
const farOf = (plan: StackPlan) => [...farServers(plan), ...farFronts(plan)];

/** Names of all ports that the stack takes. */
export function portNames(plan: StackPlan): string[] {
  const { topology, hasRedis, broker, groups, regions } = plan;
  const names = namesOf(plan);
  const hasRegions = names.length > 0;
  return [
    ...(topology.web.port === 0 ? ["app"] : []),
    ...(hasRedis && !hasRegions ? ["redis"] : []),
    ...(hasRegions ? [...redisSetPorts(names), dnsPortName] : []),
    ...clusterPorts(plan),
    ...regions.flatMap((region) => regionPorts(plan, region)),
    ...distancePorts(farOf(plan)),
    ...(broker === undefined ? [] : brokerPorts(broker)),
    ...groups
      .filter((group) => !isOnAppPort(group))
      .flatMap(({ name, places }) => Array.from({ length: places }, (_, index) => `${name}-${index + 1}`)),
    ...regions.flatMap(({ name }) =>
      internalPortNames(groups.filter(({ region }) => region === name)).map((each) => each.name),
    ),
  ];
}

/** Puts the stack together. */
export async function stackParts(plan: StackPlan, options: PartsOptions): Promise<StackParts> {
  const { ports, appPort, logs, secrets, environment } = options;
  const shared = await sharedParts(plan, options);
  const { databases, set } = shared;
  const purgeSecret = plan.hasVarnish ? await generatedSecret(secrets, purgeSecretFile) : "";
  const regions: RegionOfStack[] = [];
  for (const [index, region] of plan.regions.entries()) {
    const { name } = region;
    regions.push(
      await regionParts(plan, region, {
        ...{ ports, appPort, logs, secrets, environment, purgeSecret, onWebFailure: options.onWebFailure },
        needs: shared.components.map((component) => component.name),
        databases: databases?.regions[index],
        shared: () => ({
          ...environment,
          ...shared.variables(),
          ...(plan.hasVarnish ? { [purgeVariable]: purgeSecret } : {}),
          ...(set === undefined || name === undefined
            ? {}
            : { [redisVariable]: set.urlFor(name), [redisReplicaVariable]: set.replicaUrlFor(name) }),
          RUNGS_DIR: plan.folder,
        }),
      }),
    );
  }
  const components = [...shared.components, ...regions.flatMap((region) => region.components)];
  const groups = processGroups(regions.flatMap((region) => region.groups.all));
  const common = { groups, databases, regions };
  if (databases === undefined || set === undefined) {
    return { ...common, components, operations: undefined, remarks: [] };
  }
  const needs = components.map(({ name }) => name);
  const dns = await nameServer(plan, { ...options, needs });
  return {
    ...common,
    // Last: it finds all regions well when it asks them first.
    components: [
      ...components,
      { ...dns.component, needs: regions.flatMap(({ components: own }) => own.at(-1)?.name ?? []) },
    ],
    remarks: dns.remarks,
    operations: regionOperations({
      ...{ clusters: databases.clusters, regionOfMember: databases.regionOfMember, redis: set, dns },
      appPort: options.appPort,
      patroniPassword: databases.patroniPassword,
      regions: regions.map(({ plan: { name = "", host }, components: parts }) => ({
        ...{ name, addresses: [host] },
        components: [...parts, ...set.components.filter(({ region }) => region === name)],
      })),
      askLeader: async ({ region: from, shard }) =>
        databases.regions.find(({ region }) => region.name === from)?.askLeader(shard),
    }),
  };
}

interface SharedParts {
  readonly components: readonly Component[];
  /** For the app's processes; asked for when one starts. */
  readonly variables: () => Readonly<Record<string, string>>;
  readonly databases: ReplicatedDatabases | undefined;
  /** The sessions' Redis of several regions. */
  readonly set: RedisSet | undefined;
}

/** Those that are there once, whatever the regions. */
async function sharedParts(plan: StackPlan, options: PartsOptions): Promise<SharedParts> {
  const { ports, appPort, logs, secrets, environment } = options;
  const { folder, topology } = plan;
  const app = publicAddress(plan.regions[0]?.host ?? topology.web.host, appPort);
  const databases =
    plan.clusters === 0 ? undefined : await replicatedDatabases(plan, { ports, logs, secrets, environment });
  const embedded: DatabaseComponent[] = Array.from({ length: plan.embedded }, (_, shard) =>
    databaseComponent({
      ...{ shard, folder, address: app, log: launcherLog(logs) },
      // Of all places, with what jobs and migrations take, and some for tools.
      connectionsMax: plan.places * (topology.database.pool.connectionsMax + 5) + 30,
    }),
  );
  const ofServices = serviceDatabases(plan, { address: app, log: launcherLog(logs) });
  const companions: CompanionComponent[] = plan.app.companions.map(({ name, program }) =>
    companionComponent({
      ...{ name, program, appFolder: plan.app.folder, secretFolder: secrets, logFolder: logs },
      environment: { ...environment, RUNGS_DIR: folder, RUNGS_APP_URL: app },
    }),
  );
  const set = namesOf(plan).length === 0 ? undefined : await sessionsOfRegions(plan, options);
  const redis = plan.hasRedis && set === undefined ? await sessionsRedis(plan, options) : undefined;
  const broker =
    plan.broker === undefined
      ? undefined
      : await brokerComponent(plan.broker, { ports, folder, logFolder: logs, secrets, environment });
  const far = farOf(plan);
  const { roundTripMs } = plan;
  return {
    databases,
    set,
    components: [
      ...(far.length === 0 ? [] : [distanceComponent({ servers: far, ports, roundTripMs, folder, logFolder: logs })]),
      ...embedded,
      ...ofServices.map(({ component }) => component),
      ...(databases?.components ?? []),
      ...companions,
      ...(set?.components ?? []),
      ...(redis === undefined ? [] : [redis.component]),
      ...(broker === undefined ? [] : [broker.component]),
    ],
    variables: () => ({
      ...Object.assign({}, ...companions.map((companion) => companion.provided())),
      ...shardAddresses(topology, environment),
      ...Object.fromEntries(embedded.map((database, index) => [shardVariable(index), database.url()])),
      ...Object.fromEntries(ofServices.map(({ component, variable }) => [variable, component.url()])),
      ...(redis === undefined ? {} : { [redisVariable]: redis.url }),
      ...(broker === undefined ? {} : { [brokerVariable]: broker.url }),
    }),
  };
}

async function sessionsRedis(
  { folder }: StackPlan,
  { ports, logs, secrets, environment }: PartsOptions,
): Promise<{ readonly component: Component; readonly url: string }> {
  const name = "redis";
  const password = await generatedSecret(secrets, `${name}-password`);
  const port = ports[name] as number;
  const program = findProgram("redis-server", environment) as string;
  const component = redisComponent({ name, role: "sessions", program, folder, logFolder: logs, port, password });
  return { component, url: `redis://:${password}@127.0.0.1:${port}/0` };
}

async function sessionsOfRegions(
  plan: StackPlan,
  { ports, logs, secrets, environment }: PartsOptions,
): Promise<RedisSet> {
  return redisSet({
    program: findProgram("redis-server", environment) as string,
    ...{ folder: plan.folder, logFolder: logs, regions: namesOf(plan), ports },
    password: await generatedSecret(secrets, "redis-password"),
    sentinelPassword: await generatedSecret(secrets, "sentinel-password"),
  });
}

function nameServer(
  plan: StackPlan,
  { ports, appPort, logs, environment, needs }: PartsOptions & { readonly needs: readonly string[] },
): Promise<DnsOfRegions> {
  return dnsOfRegions({
    needs,
    program: findProgram("gdnsd", environment) as string,
    controlProgram: findProgram("gdnsdctl", environment) as string,
    ...{ folder: plan.folder, logFolder: logs, port: ports[dnsPortName] as number, appPort },
    ...{ appFolder: plan.app.folder, appName: plan.app.name },
    regions: plan.regions.map(({ name = "", host }) => ({ name, addresses: [host] })),
  });
}
