/**
 * The composition root: a topology and an app's definition become a running process.
 *
 * Order of a start: databases, placement, migrations, cache, sessions, routes, listening. Stopping goes the other way.
 */
import { join, resolve } from "node:path";
import type { FastifyBaseLogger } from "fastify";
import { createCache, localCacheStore } from "./cache/index.ts";
import {
  type EmbeddedPostgres,
  embeddedConnection,
  startEmbeddedPostgres,
} from "./database/drivers/embedded-postgres.ts";
import { openPostgres, type PostgresAddress } from "./database/drivers/postgres.ts";
import {
  type Database,
  directory,
  directoryMigrations,
  loadMigrations,
  migrate,
  type NamedMigration,
  openPlacement,
  placementMigrations,
  type ShardConnection,
  shardedDatabase,
  type TableDeclaration,
  tableRegistry,
} from "./database/index.ts";
import { systemClock } from "./kernel/clock.ts";
import { createLifecycle, type Lifecycle } from "./kernel/lifecycle.ts";
import { systemRandom } from "./kernel/random.ts";
import { createMetrics } from "./monitor/index.ts";
import type { AppDefinition, ServiceContext } from "./service.ts";
import { databaseSessionStore, sessionMigrations } from "./session/drivers/database-session-store.ts";
import { fastifySessions } from "./session/drivers/fastify-sessions.ts";
import { createLoginThrottle, createPasswords, createSessions, localAttemptStore } from "./session/index.ts";
import { type Environment, refuseUnsupported, Secret, type Topology } from "./topology/index.ts";
import { openAssets } from "./web/assets.ts";
import { serveAssets } from "./web/drivers/fastify-assets.ts";
import { createWebServer } from "./web/drivers/fastify-web.ts";

/** A running app. */
export interface RunningApp<T> {
  /** Where it listens, e.g. `http://127.0.0.1:3000`. */
  readonly address: string;
  /** Where the embedded databases keep their data; empty when all databases are servers. */
  readonly dataDirectories: readonly string[];
  /** The tiers, for tools that run beside the routes. */
  readonly context: ServiceContext<T>;
  /** Drains requests, then stops everything it started. Gives what went wrong on the way. */
  stop(): Promise<readonly Error[]>;
}

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
  readonly shards: readonly ShardConnection[];
  readonly dataDirectories: readonly string[];
  readonly embedded: readonly EmbeddedPostgres[];
}

/** Tables of Rungs itself, so that the shard-key guard knows them. */
const ownTables: Readonly<Record<string, TableDeclaration>> = {
  rungs_directory: { home: true },
  rungs_sessions: { home: true },
};
const sweepEveryMs = 60 * 60 * 1_000;

/** Starts an app. When a step fails, what was started is stopped again before the error is raised. */
export async function startApp<T>(definition: AppDefinition<T>, options: StartOptions): Promise<RunningApp<T>> {
  const lifecycle = options.lifecycle ?? createLifecycle({ log: options.log });
  try {
    return await start(definition, options, lifecycle);
  } catch (error) {
    await lifecycle.stop();
    throw error;
  }
}

async function start<T>(
  definition: AppDefinition<T>,
  options: StartOptions,
  lifecycle: Lifecycle,
): Promise<RunningApp<T>> {
  const { topology, log } = options;
  refuseUnsupported(topology);
  const { local, isEnabled } = topology.cache;
  const cache = createCache({
    store: isEnabled ? localCacheStore({ entriesMax: local.entries, bytesMax: local.bytes }) : null,
  });
  const databases = await openDatabases(definition, options, lifecycle, (tags) => cache.invalidate(tags));
  const { db, home } = databases;
  const sessions = createSessions({ store: databaseSessionStore({ database: home }), log });
  const assets = await openAssets({ folders: definition.assets ?? [] });
  const metrics = createMetrics();
  lifecycle.started("metrics", async () => metrics.close());
  const directories = new Map<string, ReturnType<typeof directory>>();
  const context: ServiceContext<T> = {
    db,
    cache,
    sessions,
    passwords: createPasswords(),
    loginThrottle: createLoginThrottle({ store: localAttemptStore() }),
    assets,
    directory(space) {
      const opened = directories.get(space) ?? directory({ home: db.home as never, space });
      directories.set(space, opened);
      return opened;
    },
    clock: systemClock,
    random: systemRandom,
    log,
  };
  metrics.registerGauge({
    name: "database_pool_connections",
    help: "Connections of the database pools by state.",
    labelNames: ["shard", "state"],
    read: () =>
      db.poolStats().flatMap(({ shard, total, idle, waiting }) => [
        { labels: { shard, state: "busy" }, value: total - idle },
        { labels: { shard, state: "idle" }, value: idle },
        { labels: { shard, state: "waiting" }, value: waiting },
      ]),
  });
  metrics.registerGauge({
    name: "cache_events",
    help: "Cache counters since the start, and its size.",
    labelNames: ["kind"],
    read: () => Object.entries(cache.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });

  const web = createWebServer({
    ...topology.web,
    log,
    metrics,
    checks: [...new Set([...databases.shards, home])].map((shard) => ({
      name: shard.name,
      check: () => shard.query(undefined, "select 1", []),
    })),
    ...(definition.answerError === undefined ? {} : { answerError: definition.answerError }),
  });
  fastifySessions(web.fastify, { sessions });
  serveAssets(web.fastify, assets);
  for (const service of definition.services) {
    await web.fastify.register(async (scope) => service.routes?.(scope, context));
  }
  lifecycle.started("web", () => web.close(), 15_000);
  const address = await web.listen();
  await Promise.all(databases.embedded.map((server) => server.announce({ address })));
  sweepRegularly(() => sessions.sweep(), log, lifecycle);
  return { address, dataDirectories: databases.dataDirectories, context, stop: () => lifecycle.stop() };
}

/** Opens, places and migrates the databases of a topology; `lifecycle` learns how to close them. */
export async function openDatabases<T>(
  definition: AppDefinition<T>,
  options: StartOptions,
  lifecycle: Lifecycle,
  onInvalidate: (tags: readonly string[]) => void = () => {},
): Promise<OpenDatabases<T>> {
  const { topology, log } = options;
  const { addresses, embedded } = await databaseAddresses(options, lifecycle);
  const { pool, statementTimeoutMs, preparedStatements, strategy, splits } = topology.database;
  const open = (address: PostgresAddress, index: number) =>
    openPostgres({ name: `shard ${index}`, address, log, pool: { ...pool, statementTimeoutMs, preparedStatements } });
  const shards = addresses.map(open) as [ShardConnection, ...ShardConnection[]];
  lifecycle.started("database connections", async () => void (await Promise.all(shards.map((shard) => shard.close()))));
  const [home] = shards;
  await migrateAll(definition, addresses);
  const placement = await openPlacement(home.kysely, shards, { strategy, splits });
  const tables = tableRegistry([
    { name: "rungs", tables: ownTables },
    ...definition.services.map((service) => ({ name: service.name, tables: service.tables ?? {} })),
  ]);
  const db = shardedDatabase<T>({ shards, placement, tables, onInvalidate });
  return { db, home, shards, embedded, dataDirectories: embedded.map((server) => server.directory) };
}

async function databaseAddresses(
  { topology, log, environment = process.env, attach = false }: StartOptions,
  lifecycle: Lifecycle,
): Promise<{ addresses: PostgresAddress[]; embedded: EmbeddedPostgres[] }> {
  const { shards } = topology.database;
  if (typeof shards !== "number") {
    const reveal = (address: string | Secret) => (address instanceof Secret ? address.reveal(environment) : address);
    return { addresses: shards.map((shard) => ({ url: reveal(shard.leader) })), embedded: [] };
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

/** Migrations run on connections of their own, without a statement timeout. */
async function migrateAll<T>(definition: AppDefinition<T>, addresses: readonly PostgresAddress[]): Promise<void> {
  const services: { name: string; migrations: readonly NamedMigration[] }[] = [
    { name: "rungs", migrations: placementMigrations },
    { name: "rungs_directory", migrations: directoryMigrations },
    { name: "rungs_sessions", migrations: sessionMigrations },
  ];
  for (const { name, migrations = [] } of definition.services) {
    const list =
      typeof migrations === "string" || migrations instanceof URL ? await loadMigrations(migrations) : migrations;
    services.push({ name, migrations: list });
  }
  await Promise.all(
    addresses.map(async (address, index) => {
      const name = `shard ${index}`;
      const connection = openPostgres({
        name,
        address,
        pool: { connectionsMax: 2, statementTimeoutMs: 0, acquireTimeoutMs: 60_000 },
      });
      try {
        for (const { name: service, migrations } of services) {
          await migrate({ db: connection.kysely, name, service, target: "shards", migrations });
          if (index === 0)
            await migrate({ db: connection.kysely, name: "the home database", service, target: "home", migrations });
        }
      } finally {
        await connection.close();
      }
    }),
  );
}

function sweepRegularly(sweep: () => Promise<number>, log: FastifyBaseLogger, lifecycle: Lifecycle): void {
  const run = () => {
    sweep().then(
      (count) => log.debug({ count }, "ended sessions were deleted"),
      (error: unknown) => log.warn({ error }, "ended sessions could not be deleted"),
    );
  };
  const timer = setInterval(run, sweepEveryMs).unref();
  lifecycle.started("session sweep", async () => clearInterval(timer));
}
