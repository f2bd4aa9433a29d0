/** The databases of rung 4: etcd, a cluster a shard, and in each region the router in front of them. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "rungs";
import type { Component, MemberReport, ShardReport } from "../component.ts";
import { findProgram } from "../process/find-program.ts";
import { serverPrograms } from "../process/programs.ts";
import { generatedSecret } from "../process/secrets.ts";
import { serverHome } from "../process/server-home.ts";
import { distanceName, farPortName } from "../regions/distance-proxy.ts";
import type { PlannedRegion } from "../regions/planned-regions.ts";
import type { StackPlan } from "../stack-plan.ts";
import { followerVariable, shardVariable } from "../variables.ts";
import { appUser } from "./app-database.ts";
import { type ClusterComponent, clusterComponent } from "./cluster.ts";
import { databaseRouterComponent, expectWritable } from "./database-router.ts";
import type { RoutedShard } from "./database-router-config.ts";
import { etcdComponent } from "./etcd.ts";
import { switchOver } from "./patroni-api.ts";
import { type PatroniCluster, type PatroniMember, scopeOf } from "./patroni-config.ts";
import { findPostgres, versionOfData } from "./postgres-programs.ts";

/** What the stack needs of them. */
export interface ReplicatedDatabases {
  /** Those that all regions share. */
  readonly components: readonly Component[];
  readonly clusters: readonly ClusterComponent[];
  /** What each region has of its own, in the order of the plan. */
  readonly regions: readonly RegionDatabases[];
  /** The region of a server, by its name; undefined where there is but one, or no such server. */
  readonly regionOfMember: (name: string) => string | undefined;
  /** Of Patroni's orders. */
  readonly patroniPassword: string;
  reports(signal: AbortSignal): Promise<ShardReport[]>;
  /** `to`: name of the region that is to lead; default: Patroni chooses. Raises `UnavailableError` with Patroni's words. */
  switchOver(
    shard: number,
    options: { readonly to?: string | undefined; readonly signal: AbortSignal },
  ): Promise<{ readonly from: string; readonly to: string }>;
}

/** The way from one region to the databases. */
export interface RegionDatabases {
  readonly region: PlannedRegion;
  readonly router: Component;
  /** Addresses, with the password, for the environment of the region's processes. */
  readonly environment: Readonly<Record<string, string>>;
  /** Resolves when the shard's leader, as the region's processes reach it, takes writes; raises when not. */
  askLeader(shard: number): Promise<void>;
}

/** The file of the app's password among the stack's secrets. */
export const appPasswordFile = "postgres-app-password";

/** The address of the app's database on a port of loopback. */
export function appUrl(port: number, password: string): string {
  return `postgres://${appUser}:${password}@127.0.0.1:${port}/${appUser}`;
}

/** Names of the servers of a shard: one in each region, or all in the only one. */
function memberNames({ regions, membersPerShard }: StackPlan, shard: number): string[] {
  const named = regions.filter(({ name }) => name !== undefined);
  if (named.length > 0) return named.map(({ prefix }) => `${prefix}postgres-${shard}`);
  return Array.from({ length: membersPerShard }, (_, index) => `postgres-${shard}-${index + 1}`);
}

/** Names of the servers that are reached from other regions. */
export function farServers(plan: StackPlan): string[] {
  if (plan.roundTripMs === 0) return [];
  return Array.from({ length: plan.clusters }, (_, shard) => memberNames(plan, shard)).flat();
}

/** Names of the ports that its shards take. */
export function clusterPorts(plan: StackPlan): string[] {
  if (plan.clusters === 0) return [];
  const ofShard = (shard: number) => [
    ...plan.regions.flatMap(({ prefix }) => [`${prefix}shard-${shard}-leader`, `${prefix}shard-${shard}-followers`]),
    ...memberNames(plan, shard).flatMap((name) => [name, `${name}-patroni`]),
  ];
  return ["etcd", "etcd-peer", ...Array.from({ length: plan.clusters }, (_, shard) => ofShard(shard)).flat()];
}

/** Makes the components; the files are written when they start. */
export async function replicatedDatabases(
  plan: StackPlan,
  options: {
    readonly ports: Readonly<Record<string, number>>;
    readonly logs: string;
    readonly secrets: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<ReplicatedDatabases> {
  const { ports, logs: logFolder, secrets, environment } = options;
  const { folder, topology, replication } = plan;
  const isRegional = plan.regions.some(({ name }) => name !== undefined);
  const home = await serverHome(folder, "clusters");
  const secret = (name: string) => generatedSecret(secrets, `${name}-password`);
  const passwords = {
    superuser: await secret("postgres-superuser"),
    replication: await secret("postgres-replication"),
    rewind: await secret("postgres-rewind"),
    rest: await secret("patroni"),
    etcd: await secret("etcd-patroni"),
  };
  const appPassword = await generatedSecret(secrets, appPasswordFile);
  const program = (known: { readonly name: string }) => findProgram(known.name, environment) as string;
  const etcd = etcdComponent({
    program: program(serverPrograms.etcd),
    folder: join(home.folder, "etcd"),
    user: home.user,
    ...{ logFolder, environment },
    ports: { client: ports["etcd"] as number, peer: ports["etcd-peer"] as number },
    passwords: { root: await secret("etcd-root"), patroni: passwords.etcd },
  });
  // Of all places, with what jobs and migrations take, some for tools and for Patroni itself.
  const connectionsMax = plan.places * (topology.database.pool.connectionsMax + 5) + 40;
  const clusters = Array.from({ length: plan.clusters }, (_, shard): ClusterComponent => {
    const cluster: PatroniCluster = {
      ...{ shard, replication, connectionsMax, passwords, etcdPorts: [ports["etcd"] as number] },
      members: membersIn(plan, shard, ports),
    };
    const place = join(home.folder, scopeOf(shard));
    refuseOthers(place, cluster.members);
    return clusterComponent({
      ...{ cluster, etcd, logFolder, environment, appPassword, folder: place, user: home.user },
      ...(plan.roundTripMs === 0 ? {} : { needs: [distanceName] }),
      firstLeader: isRegional ? cluster.members[plan.firstLeaderOf(shard)]?.name : undefined,
      programs: {
        patroni: program(serverPrograms.patroni),
        postgres: postgresFor(
          environment,
          cluster.members.map(({ name }) => join(place, name, "data")),
        ),
      },
    });
  });
  const routedFrom = ({ name: region, prefix }: PlannedRegion): RoutedShard[] =>
    clusters.map(({ cluster: { shard, members } }) => ({
      ...{ name: scopeOf(shard), members, connectionsMax, region },
      leaderPort: ports[`${prefix}shard-${shard}-leader`] as number,
      followersPort: ports[`${prefix}shard-${shard}-followers`] as number,
    }));
  const url = (port: number) => appUrl(port, appPassword);
  const members = clusters.flatMap(({ cluster }) => cluster.members);
  return {
    components: [etcd, ...clusters],
    clusters,
    patroniPassword: passwords.rest,
    regionOfMember: (name) => members.find((member) => member.name === name)?.region,
    regions: plan.regions.map((region): RegionDatabases => {
      const routed = routedFrom(region);
      return {
        region,
        router: databaseRouterComponent({
          name: `${region.prefix}database-router`,
          region: region.name,
          program: program(serverPrograms.haproxy),
          ...{ folder: region.folder, logFolder, environment, appPassword, shards: routed },
          needs: clusters.map(({ name }) => name),
        }),
        environment: Object.fromEntries(
          routed.flatMap(({ leaderPort, members }, shard) => [
            [shardVariable(shard), url(leaderPort)],
            // With regions a process reads from the server in its own, or else from the leader.
            ...members
              .filter((member) => member.region === region.name)
              .map(({ postgresPort }, index) => [followerVariable(shard, index), url(postgresPort)]),
          ]),
        ),
        askLeader: (shard) => expectWritable(routed[shard]?.leaderPort as number, appPassword),
      };
    }),
    reports: (signal) =>
      Promise.all(
        clusters.map(async ({ cluster, members }, shard) => {
          const found = await members(signal).catch(() => cluster.members.map(unknownMember));
          const regionOf = (name: string | undefined) => cluster.members.find((member) => member.name === name)?.region;
          const led = regionOf(found.find(({ role }) => role === "leader")?.name);
          const from = plan.regions.find(({ name }) => name === led) ?? plan.regions[0];
          const routed = routedFrom(from as PlannedRegion)[shard];
          return {
            shard,
            placement: plan.placementOf(shard),
            leaderPort: routed?.leaderPort as number,
            followersPort: routed?.followersPort as number,
            members: found.map((member): MemberReport => {
              const region = regionOf(member.name);
              return region === undefined ? member : { ...member, region };
            }),
          };
        }),
      ),
    async switchOver(shard, { to, signal }) {
      const found = clusters[shard];
      if (found === undefined) {
        throw new ConfigError("CONFIG_INVALID", `There is no shard ${shard}: the last one is ${clusters.length - 1}.`);
      }
      const { members } = found.cluster;
      const candidate = to === undefined ? undefined : members.find(({ region }) => region === to)?.name;
      if (to !== undefined && candidate === undefined) {
        const known = plan.regions.flatMap(({ name }) => name ?? []);
        throw new ConfigError(
          "CONFIG_INVALID",
          known.length === 0
            ? "This stack has no regions: leave --to out."
            : `There is no region "${to}"; there are: ${known.join(", ")}`,
        );
      }
      return switchOver({
        members,
        password: passwords.rest,
        signal,
        ...(candidate === undefined ? {} : { candidate }),
      });
    },
  };
}

/** Whether servers of this stack have been started before. */
export function hasClusters(folder: string): boolean {
  return existsSync(join(folder, "clusters"));
}

function membersIn(plan: StackPlan, shard: number, ports: Readonly<Record<string, number>>): PatroniMember[] {
  return memberNames(plan, shard).map((name, index) => {
    const region = plan.regions[index]?.name;
    const farPort = ports[farPortName(name)];
    return {
      ...{ name, postgresPort: ports[name] as number, patroniPort: ports[`${name}-patroni`] as number },
      ...(region === undefined ? {} : { region }),
      ...(farPort === undefined ? {} : { farPort }),
    };
  });
}

const unknownMember = ({ name, postgresPort }: PatroniMember) => ({
  ...{ name, role: "-", state: "unknown", timeline: null, lagBytes: null, port: postgresPort },
});

/** A cluster that other servers made would wait for them: raises `DATA_DIRECTORY_INVALID` where there are some. */
function refuseOthers(place: string, members: readonly PatroniMember[]): void {
  const made = existsSync(place) ? readdirSync(place) : [];
  const others = made.filter((name) => !members.some((member) => member.name === name));
  const [other] = others.filter((name) => versionOfData(join(place, name, "data")) !== undefined);
  if (other === undefined) return;
  const region = /^(.*)-postgres-\d+$/.exec(other)?.[1];
  throw new ConfigError(
    "DATA_DIRECTORY_INVALID",
    `The databases in ${place} were made ${region === undefined ? "without regions" : `with a region ${region}`}, and are not moved to other servers. Start them as before, or others on another folder: --dir FOLDER.`,
  );
}

/** The version that made the data, or the newest. */
function postgresFor(environment: Readonly<Record<string, string | undefined>>, dataFolders: readonly string[]) {
  const made = dataFolders.find((data) => versionOfData(data) !== undefined);
  const found = findPostgres(environment, made);
  if (found !== undefined) return found;
  throw new ConfigError(
    "DATA_DIRECTORY_INVALID",
    `The data in ${made} was made by PostgreSQL ${versionOfData(made ?? "")}, which is not installed. Install it: apt-get install postgresql-${versionOfData(made ?? "")}. Or start on another folder: --dir FOLDER.`,
  );
}
