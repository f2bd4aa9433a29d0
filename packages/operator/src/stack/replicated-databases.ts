/** The databases of rung 4: etcd, a cluster a shard, and the router in front of them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "rungs";
import { appUser } from "./app-database.ts";
import { type ClusterComponent, clusterComponent } from "./cluster.ts";
import type { Component, ShardReport } from "./component.ts";
import { databaseRouterComponent } from "./database-router.ts";
import { etcdComponent } from "./etcd.ts";
import { findProgram } from "./find-program.ts";
import { switchOver } from "./patroni-api.ts";
import { type PatroniCluster, type PatroniMember, scopeOf } from "./patroni-config.ts";
import { findPostgres, versionOfData } from "./postgres-programs.ts";
import { serverPrograms } from "./programs.ts";
import { generatedSecret } from "./secrets.ts";
import { serverHome } from "./server-home.ts";
import { followerVariable, membersPerShard, type StackPlan, shardVariable } from "./stack-plan.ts";

/** What the stack needs of them. */
export interface ReplicatedDatabases {
  readonly components: readonly Component[];
  /** Addresses, with the password, for the web processes' environment. */
  readonly environment: Readonly<Record<string, string>>;
  reports(signal: AbortSignal): Promise<ShardReport[]>;
  /** Raises `UnavailableError` with Patroni's words. */
  switchOver(shard: number, signal: AbortSignal): Promise<{ readonly from: string; readonly to: string }>;
}

/** The file of the app's password among the stack's secrets. */
export const appPasswordFile = "postgres-app-password";

/** The address of the app's database on a port of loopback. */
export function appUrl(port: number, password: string): string {
  return `postgres://${appUser}:${password}@127.0.0.1:${port}/${appUser}`;
}

const memberName = (shard: number, index: number) => `postgres-${shard}-${index + 1}`;

/** Names of the ports that this many shards take. */
export function clusterPorts(shards: number): string[] {
  if (shards === 0) return [];
  const ofShard = (shard: number) => [
    ...[`shard-${shard}-leader`, `shard-${shard}-followers`],
    ...Array.from({ length: membersPerShard }, (_, index) => memberName(shard, index)).flatMap((name) => [
      name,
      `${name}-patroni`,
    ]),
  ];
  return ["etcd", "etcd-peer", ...Array.from({ length: shards }, (_, shard) => ofShard(shard)).flat()];
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
      members: membersIn(shard, ports),
    };
    const place = join(home.folder, scopeOf(shard));
    return clusterComponent({
      ...{ cluster, etcd, logFolder, environment, appPassword, folder: place, user: home.user },
      programs: {
        patroni: program(serverPrograms.patroni),
        postgres: postgresFor(
          environment,
          cluster.members.map(({ name }) => join(place, name, "data")),
        ),
      },
    });
  });
  const routed = clusters.map(({ cluster: { shard, members } }) => ({
    ...{ name: scopeOf(shard), members, connectionsMax },
    leaderPort: ports[`shard-${shard}-leader`] as number,
    followersPort: ports[`shard-${shard}-followers`] as number,
  }));
  const router = databaseRouterComponent({
    program: program(serverPrograms.haproxy),
    ...{ folder, logFolder, environment, appPassword, shards: routed },
    needs: clusters.map(({ name }) => name),
  });
  const url = (port: number) => appUrl(port, appPassword);
  return {
    components: [etcd, ...clusters, router],
    environment: Object.fromEntries(
      routed.flatMap(({ leaderPort, members }, shard) => [
        [shardVariable(shard), url(leaderPort)],
        ...members.map(({ postgresPort }, index) => [followerVariable(shard, index), url(postgresPort)]),
      ]),
    ),
    reports: (signal) =>
      Promise.all(
        clusters.map(async ({ cluster, members }, shard) => ({
          shard,
          placement: plan.placementOf(shard),
          leaderPort: routed[shard]?.leaderPort as number,
          followersPort: routed[shard]?.followersPort as number,
          members: await members(signal).catch(() => cluster.members.map(unknownMember)),
        })),
      ),
    async switchOver(shard, signal) {
      const found = clusters[shard];
      if (found !== undefined) {
        return switchOver({ members: found.cluster.members, password: passwords.rest, signal });
      }
      throw new ConfigError("CONFIG_INVALID", `There is no shard ${shard}: the last one is ${clusters.length - 1}.`);
    },
  };
}

/** Whether servers of this stack have been started before. */
export function hasClusters(folder: string): boolean {
  return existsSync(join(folder, "clusters"));
}

function membersIn(shard: number, ports: Readonly<Record<string, number>>): PatroniMember[] {
  return Array.from({ length: membersPerShard }, (_, index) => {
    const name = memberName(shard, index);
    return { name, postgresPort: ports[name] as number, patroniPort: ports[`${name}-patroni`] as number };
  });
}

const unknownMember = ({ name, postgresPort }: PatroniMember) => ({
  ...{ name, role: "-", state: "unknown", timeline: null, lagBytes: null, port: postgresPort },
});

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
