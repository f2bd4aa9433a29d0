/** The jobs of an app, for tools beside it: nothing is started, migrated or written until the caller acts on a job. */
import { openPostgres } from "./database/drivers/postgres.ts";
import { verifyPlacement } from "./database/index.ts";
import { ConfigError, UnsupportedError } from "./kernel/errors.ts";
import { leaderAddresses } from "./leader-addresses.ts";
import { type JobAdmin, jobAdmin } from "./queue/index.ts";
import type { Environment, Topology } from "./topology/index.ts";

/** The jobs of an app's databases, open. */
export interface OpenJobs extends JobAdmin {
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
 * Raises `DATABASE_UNREACHABLE` when a database does not run, `CONFIG_INVALID` when it is not the one that the topology says
 * or holds no jobs, `SECRET_MISSING`, and `CAPABILITY_MISSING` when jobs live in a broker.
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
  if (topology.queue.url !== undefined) {
    throw new UnsupportedError(
      "CAPABILITY_MISSING",
      "queue.url: jobs in a broker cannot be looked at by this version.",
    );
  }
  const addresses = await leaderAddresses(topology, environment);
  const { preparedStatements, strategy, splits } = topology.database;
  const pool = { connectionsMax, acquireTimeoutMs, statementTimeoutMs, preparedStatements };
  const shards = addresses.map((address, index) => openPostgres({ name: `shard ${index}`, address, pool }));
  const close = async () => void (await Promise.all(shards.map((shard) => shard.close())));
  try {
    const [home] = shards;
    if (home === undefined) throw new ConfigError("CONFIG_INVALID", "database.shards names no database.");
    await verifyPlacement(home.kysely, shards, { strategy, splits });
    for (const shard of shards) {
      const [found] = await shard.query<{ isThere: boolean }>(
        undefined,
        `select to_regclass('rungs_jobs') is not null as "isThere"`,
        [],
      );
      if (found?.isThere === true) continue;
      throw new ConfigError(
        "CONFIG_INVALID",
        `${shard.name} has no job table: the app was last started by a version without jobs. Start the app of this version once.`,
      );
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { ...jobAdmin(shards), close };
}
