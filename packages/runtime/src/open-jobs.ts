/** The jobs of an app, for tools beside it: nothing is started, migrated or written until the caller acts on a job. */
import { openPostgres } from "./database/drivers/postgres.ts";
import { type ShardConnection, verifyPlacement } from "./database/index.ts";
import { ConfigError, UnavailableError } from "./kernel/errors.ts";
import { silentLogger } from "./kernel/log.ts";
import { leaderAddresses } from "./leader-addresses.ts";
import { openBroker } from "./open-broker.ts";
import { type JobAdmin, jobAdmin } from "./queue/index.ts";
import type { Environment, Topology } from "./topology/index.ts";

/** A shard or the broker that did not answer. */
export interface MissingPlace {
  /** E.g. "shard 1" or "RabbitMQ". */
  readonly name: string;
  readonly reason: string;
}

/** The jobs of an app's databases, open. */
export interface OpenJobs extends JobAdmin {
  /**
   * What did not answer when the last call was made, a shard or the broker: the call passed it over. The home database is always
   * needed.
   */
  missing(): readonly MissingPlace[];
  /** Closes the connections. Safe to call twice. */
  close(): Promise<void>;
}

/** Bounds of one {@link openJobs}. */
export interface OpenJobsOptions {
  /** Where addresses given by reference are read from; default: the process's environment. */
  readonly environment?: Environment;
  /** The server cancels a statement after this; default 30,000 ms. Counts of 1,000,000 jobs take about one second. */
  readonly statementTimeoutMs?: number;
}

/** A look at one database is one statement; the second connection serves a call made meanwhile. */
const connectionsMax = 2;
const acquireTimeoutMs = 5_000;

/**
 * Opens the jobs of the app that this topology describes: on its servers, or on the embedded databases that a running app holds.
 *
 * Raises `DATABASE_UNREACHABLE` when the home database or an embedded one does not run, `CONFIG_INVALID` when a database is not the
 * one that the topology says or holds no jobs, and `SECRET_MISSING`. Of several servers one may be down: see {@link OpenJobs.missing}.
 *
 * @example
 * const jobs = await openJobs(topology);
 * try {
 *   await jobs.retry({ handler: "media.makeRendition", state: "dead", limit: 1_000 });
 * } finally {
 *   await jobs.close();
 * }
 */
export async function openJobs(topology: Topology, options: OpenJobsOptions = {}): Promise<OpenJobs> {
  const { environment = process.env, statementTimeoutMs = 30_000 } = options;
  const addresses = await leaderAddresses(topology, environment);
  const { preparedStatements, strategy, splits } = topology.database;
  const pool = { connectionsMax, acquireTimeoutMs, statementTimeoutMs, preparedStatements };
  const shards = addresses.map((address, index) => openPostgres({ name: `shard ${index}`, address, pool }));
  const broker = openBroker(topology, environment, silentLogger);
  const close = async () => {
    await Promise.all([...shards.map((shard) => shard.close()), broker?.close()]);
  };
  try {
    const [home] = shards;
    if (home === undefined) throw new ConfigError("CONFIG_INVALID", "database.shards names no database.");
    const up = await answering(home, shards);
    await verifyPlacement(home.kysely, shards, { strategy, splits }, up);
    for (const shard of up) await refuseWithoutTables(shard);
  } catch (error) {
    await close();
    throw error;
  }
  const missing = new Map<string, string>();
  const admin = jobAdmin(shards, {
    ...(broker === undefined ? {} : { broker }),
    onMissing: (name, { message }) => void missing.set(name, message),
  });
  const anew = <A extends readonly unknown[], R>(call: (...given: A) => Promise<R>) => {
    return (...given: A): Promise<R> => {
      missing.clear();
      return call(...given);
    };
  };
  return {
    counts: anew(admin.counts),
    list: anew(admin.list),
    show: anew(admin.show),
    retry: anew(admin.retry),
    drop: anew(admin.drop),
    pause: anew(admin.pause),
    resume: anew(admin.resume),
    replay: anew(admin.replay),
    missing: () => [...missing].map(([name, reason]) => ({ name, reason })),
    close,
  };
}

/** The shards that answer. Raises `DATABASE_UNREACHABLE` when the home database does not. */
async function answering(home: ShardConnection, shards: readonly ShardConnection[]): Promise<ShardConnection[]> {
  const answers = await Promise.all(
    shards.map(async (shard) => {
      try {
        await shard.query(undefined, "select 1", []);
        return [shard];
      } catch (error) {
        const isDown = error instanceof UnavailableError && error.code === "DATABASE_UNREACHABLE";
        if (shard === home || !isDown) throw error;
        return [];
      }
    }),
  );
  return answers.flat();
}

async function refuseWithoutTables(shard: ShardConnection): Promise<void> {
  const sql = `select to_regclass('rungs_jobs') is not null and to_regclass('rungs_pauses') is not null as "isThere"`;
  const [found] = await shard.query<{ isThere: boolean }>(undefined, sql, []);
  if (found?.isThere === true) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `${shard.name} lacks tables for jobs: the app was last started by an older version. Start the app of this version once.`,
  );
}
