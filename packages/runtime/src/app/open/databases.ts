/** The databases of an app: opened by the topology, placed and migrated. */
import { join, resolve } from "node:path";
import type { FastifyBaseLogger } from "fastify";
import {
  type EmbeddedPostgres,
  embeddedConnection,
  startEmbeddedPostgres,
} from "../../database/drivers/embedded-postgres.ts";
import { openPostgres, type PostgresAddress } from "../../database/drivers/postgres.ts";
import {
  type Database,
  directoryMigrations,
  loadMigrations,
  migrate,
  type NamedMigration,
  onLeaders,
  type PoolStats,
  placementMigrations,
  type ReplicatedShard,
  replicatedShard,
  type ShardConnection,
  type ShardStanding,
  shardedDatabase,
  type TableDeclaration,
  tableRegistry,
} from "../../database/index.ts";
import { idempotencyMigrations } from "../../idempotency/index.ts";
import { systemClock } from "../../kernel/clock.ts";
import { ConfigError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import { systemRandom } from "../../kernel/random.ts";
import { type PostgresQueue, postgresQueue, queueMigrations } from "../../queue/index.ts";
import { sessionRevocationMigrations } from "../../session/drivers/database-session-revocations.ts";
import { sessionMigrations } from "../../session/drivers/database-session-store.ts";
import { signingKeyMigrations } from "../../session/drivers/database-signing-key.ts";
import {
  databaseGroupOf,
  type Environment,
  ownDatabaseGroup,
  Secret,
  type Topology,
  topologyOfDatabase,
} from "../../topology/index.ts";
import { leaderAddresses } from "../leaders/leader-addresses.ts";
import type { AppDefinition, ServiceContext } from "../service.ts";
import { openBroker } from "./broker.ts";
import { placeShards } from "./placement.ts";

export interface StartOptions {
  readonly topology: Topology;
  readonly log: FastifyBaseLogger;
  /** Where secrets are read from; default: the process's environment. */
  readonly environment?: Environment;
  /** Learns how to stop each part; give one to be able to stop a start that is under way. Default: the app's own. */
  readonly lifecycle?: Lifecycle;
  /** Use embedded databases that a running app holds, instead of refusing to. For tools beside the app; default false. */
  readonly attach?: boolean;
}

/** The databases of a topology, open, placed and migrated, without a web server: for tools such as seeding. */
export interface OpenDatabases<T> {
  readonly db: Database<T>;
  readonly home: ShardConnection;
  /**
   * The app's home database, which has what all processes share: signing keys, sessions and their revocations. Another than `home` only
   * where the services of this process own a database; then nothing else of it is used.
   */
  readonly shared: ShardConnection;
  readonly shards: readonly ShardConnection[];
  /** Those of the shards that have followers, by number. Empty: leaders answer everything. */
  readonly replicated: ReadonlyMap<number, ReplicatedShard>;
  /** What this process knows of each shard; empty with one, which is always used. */
  standings(): ShardStanding[];
  /** Pools to followers; those to leaders are the database's own. */
  followerPools(): PoolStats[];
  readonly dataDirectories: readonly string[];
  readonly embedded: readonly EmbeddedPostgres[];
  /** Writes what transactions publish; its handlers do not run. */
  readonly queue: PostgresQueue<ServiceContext<T>>;
}

/** Tables of Rungs itself, so that the shard-key guard knows them. */
const ownTables: Readonly<Record<string, TableDeclaration>> = {
  rungs_directory: { home: true },
  rungs_sessions: { home: true },
  rungs_session_revocations: { home: true },
  rungs_schedules: { home: true },
  rungs_signing_keys: { home: true },
  rungs_idempotency_keys: { shardBy: "owner_id" },
};
/** Opens, places and migrates the databases of a topology; `lifecycle` learns how to close them. */
export async function openDatabases<T>(
  definition: AppDefinition<T>,
  options: StartOptions,
  lifecycle: Lifecycle,
  onInvalidate: (tags: readonly string[], shard: number) => void | Promise<void> = () => {},
): Promise<OpenDatabases<T>> {
  const { log } = options;
  const group = ownDatabaseGroup(options.topology);
  const topology = topologyOfDatabase(options.topology, group);
  const { addresses, embedded } = await databaseAddresses({ ...options, topology }, lifecycle);
  const nameOf = (shard: number) => (group === undefined ? `shard ${shard}` : `${group} shard ${shard}`);
  const { shards, replicated, followers } = openShards({ ...options, topology }, addresses, nameOf);
  lifecycle.started("database connections", async () => void (await Promise.all(shards.map((shard) => shard.close()))));
  const [home] = shards;
  const isHere = ({ name }: { readonly name: string }) => databaseGroupOf(topology, name) === group;
  const declared = definition.services.map(({ name, tables = {} }) => ({ name, tables }));
  const tables = tableRegistry(
    [{ name: "rungs", tables: ownTables }, ...declared.filter(isHere)],
    declared.filter((service) => !isHere(service)),
  );
  const shared = group === undefined ? home : await openShared(options, lifecycle);
  const services = await migrationsOf(definition.services.filter(isHere));
  const migrations = [...(group === undefined ? sharedMigrations : []), ...services];
  const migrateOne = (shard: number) =>
    migrateShard(migrations, addresses[shard] as PostgresAddress, { shard, name: nameOf(shard) });
  const { placement, source } = await placeShards({
    ...{ topology, addresses, shards, replicated, tables, log, lifecycle },
    migrate: migrateOne,
  });
  const broker = await openBroker(topology, options.environment ?? process.env, log);
  if (broker !== undefined) lifecycle.started("broker", () => broker.close(), 5_000);
  const queue = postgresQueue<ServiceContext<T>>({
    ...(broker === undefined ? {} : { broker, partitions: topology.queue.partitions }),
    ...(group === undefined ? {} : { database: group }),
    handlers: named(definition.services, (service) => service.on).map(({ name, value }) => ({ ...value, name })),
    elsewhere: new Set(
      named(
        definition.services.filter((service) => !isHere(service)),
        (service) => service.on,
      ).map(({ name }) => name),
    ),
    schedules: named(definition.services.filter(isHere), (service) => service.schedules).map(({ name, value }) => ({
      name,
      schedule: value,
    })),
    clock: systemClock,
    random: systemRandom,
  });
  const db = shardedDatabase<T>({
    ...{ shards, placement, tables, ...(source === undefined ? {} : { source }) },
    deadlineMs: topology.database.statementTimeoutMs,
    onInvalidate: (tags, shard) => onInvalidate(tags, shards.indexOf(shard)),
    // What a commit wakes belongs to no request: its reads come from leaders.
    messages: {
      ...queue.messages,
      committed: (shardName) => onLeaders(() => queue.messages.committed(shardName)),
    },
  });
  return {
    ...{ db, home, shared, shards, replicated, embedded, queue },
    standings: () => source?.standings() ?? [],
    followerPools: () => followers.map((follower) => follower.stats()),
    dataDirectories: embedded.map((server) => server.directory),
  };
}

/** A pool to each leader and to each follower; the leaders alone are waited for, migrated and asked whether they work. */
function openShards(
  { topology, environment = process.env, log }: StartOptions,
  addresses: readonly PostgresAddress[],
  nameOf: (shard: number) => string,
) {
  const { pool, statementTimeoutMs, preparedStatements, replicas, shards } = topology.database;
  const settings = { ...pool, statementTimeoutMs, preparedStatements };
  const replicated = new Map<number, ReplicatedShard>();
  const pools: ShardConnection[] = [];
  const opened = addresses.map((address, shard): ShardConnection => {
    const urls = typeof shards === "number" ? [] : (shards[shard]?.followers ?? []);
    const isLeader = urls.length > 0;
    const leader = openPostgres({
      ...{ name: nameOf(shard), address, log },
      pool: isLeader ? { ...settings, leader: {} } : settings,
    });
    if (!isLeader) return leader;
    const followers = urls.map((url, index) => {
      const name = `${nameOf(shard)} follower ${index + 1}`;
      return openPostgres({ name, address: { url: revealed(url, environment) }, log, pool: settings });
    });
    pools.push(...followers);
    const joined = replicatedShard({
      ...{ shard, leader, followers, log, settings: replicas },
      clock: systemClock,
      random: systemRandom,
    });
    replicated.set(shard, joined);
    return joined;
  });
  return { shards: opened as [ShardConnection, ...ShardConnection[]], replicated, followers: pools };
}

/** For processes whose services own a database. What they need there they make there too, as they may be the first to start. */
async function openShared(options: StartOptions, lifecycle: Lifecycle): Promise<ShardConnection> {
  const { topology, environment = process.env, log } = options;
  const { pool, statementTimeoutMs, preparedStatements, shards } = topology.database;
  const name = "the app's home database";
  const [address] = await leaderAddresses(topology, environment);
  if (address === undefined) throw new ConfigError("CONFIG_INVALID", "database.shards names no database.");
  const hasFollowers = typeof shards !== "number" && (shards[0]?.followers ?? []).length > 0;
  const settings = { ...pool, statementTimeoutMs, preparedStatements, ...(hasFollowers ? { leader: {} } : {}) };
  const shared = openPostgres({ name, address, log, pool: settings });
  lifecycle.started("connections to the app's home database", () => shared.close());
  await migrateShard(sharedMigrations, address, { shard: 0, name });
  return shared;
}

function revealed(address: string | Secret, environment: Environment): string {
  return address instanceof Secret ? address.reveal(environment) : address;
}

/** What services declare by name, each under "service.name". */
function named<T, V>(
  services: AppDefinition<T>["services"],
  declared: (service: AppDefinition<T>["services"][number]) => Readonly<Record<string, V>> | undefined,
): { name: string; value: V }[] {
  return services.flatMap((service) =>
    Object.entries(declared(service) ?? {}).map(([name, value]) => ({ name: `${service.name}.${name}`, value })),
  );
}

async function databaseAddresses(
  { topology, log, environment = process.env, attach = false }: StartOptions,
  lifecycle: Lifecycle,
): Promise<{ addresses: PostgresAddress[]; embedded: EmbeddedPostgres[] }> {
  const { shards } = topology.database;
  if (typeof shards !== "number") {
    return { addresses: shards.map((shard) => ({ url: revealed(shard.leader, environment) })), embedded: [] };
  }
  const group = ownDatabaseGroup(topology);
  if (group !== undefined) {
    const path = `services.${group}.database.shards`;
    throw new ConfigError(
      "CONFIG_INVALID",
      `${path} is a number, and its processes share those databases: list servers there, or start the app by rungs up, which starts that many.`,
    );
  }
  const base = join(resolve(topology.dataDirectory), "database");
  const folders = Array.from({ length: shards }, (_, index) => join(base, `shard-${index}`));
  if (attach) {
    const running = await Promise.all(folders.map((folder) => embeddedConnection(folder)));
    if (running.every((address) => address !== undefined)) return { addresses: running, embedded: [] };
  }
  const starts = await Promise.allSettled(
    folders.map(async (folder, index) => {
      const server = await startEmbeddedPostgres({ directory: folder, log });
      lifecycle.started(`embedded database ${index}`, () => server.stop(), 30_000);
      return server;
    }),
  );
  const embedded: EmbeddedPostgres[] = [];
  for (const start of starts) {
    if (start.status === "rejected") throw start.reason;
    embedded.push(start.value);
  }
  return { addresses: embedded.map((server) => server.connection), embedded };
}

interface ServiceMigrations {
  readonly name: string;
  readonly migrations: readonly NamedMigration[];
}

/** Of what all processes of an app share. */
const sharedMigrations: readonly ServiceMigrations[] = [
  { name: "rungs_sessions", migrations: sessionMigrations },
  { name: "rungs_session_revocations", migrations: sessionRevocationMigrations },
  { name: "rungs_signing_keys", migrations: signingKeyMigrations },
];

async function migrationsOf<T>(owners: AppDefinition<T>["services"]): Promise<ServiceMigrations[]> {
  const services: ServiceMigrations[] = [
    { name: "rungs", migrations: placementMigrations },
    { name: "rungs_directory", migrations: directoryMigrations },
    { name: "rungs_queue", migrations: queueMigrations },
    { name: "rungs_idempotency", migrations: idempotencyMigrations },
  ];
  for (const { name, migrations = [] } of owners) {
    const list =
      typeof migrations === "string" || migrations instanceof URL ? await loadMigrations(migrations) : migrations;
    services.push({ name, migrations: list });
  }
  return services;
}

/** Migrations run on connections of their own, without a statement timeout. */
async function migrateShard(
  services: readonly ServiceMigrations[],
  address: PostgresAddress,
  { shard, name }: { readonly shard: number; readonly name: string },
): Promise<void> {
  const connection = openPostgres({
    name,
    address,
    pool: { connectionsMax: 2, statementTimeoutMs: 0, acquireTimeoutMs: 60_000 },
  });
  try {
    for (const { name: service, migrations } of services) {
      await migrate({ db: connection.kysely, name, service, target: "shards", migrations });
      if (shard === 0)
        await migrate({ db: connection.kysely, name: "the home database", service, target: "home", migrations });
    }
  } finally {
    await connection.close();
  }
}
