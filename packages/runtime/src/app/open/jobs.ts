/** The jobs of an app, for tools beside it: nothing is started, migrated or written until the caller acts on a job. */
import { openPostgres } from "../../database/drivers/postgres.ts";
import { type ShardConnection, verifyPlacement } from "../../database/index.ts";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import { silentLogger } from "../../kernel/log.ts";
import { type JobAdmin, jobAdmin } from "../../queue/index.ts";
import {
  databaseGroupOf,
  databaseGroups,
  type Environment,
  type Topology,
  topologyOfDatabase,
} from "../../topology/index.ts";
import { leaderAddresses } from "../leaders/leader-addresses.ts";
import { openBroker } from "./broker.ts";

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
  const places = await Promise.all(
    [undefined, ...databaseGroups(topology)].map((group) =>
      openPlace(topology, group, { environment, statementTimeoutMs }),
    ),
  );
  const shards = places.flatMap((place) => place.shards);
  const broker = await openBroker(topology, environment, silentLogger);
  const close = async () => {
    await Promise.all([...shards.map((shard) => shard.close()), broker?.close()]);
  };
  try {
    for (const place of places) await verifyPlace(place);
  } catch (error) {
    await close();
    throw error;
  }
  const missing = new Map<string, string>();
  const admin = jobAdmin(shards, {
    ...(broker === undefined ? {} : { broker }),
    homes: places.slice(1).map((place) => place.shards[0]),
    // Handlers are named "service.handler".
    homeOf(handler) {
      const owner = databaseGroupOf(topology, handler.slice(0, handler.indexOf(".")));
      return places.find(({ group }) => group === owner)?.shards[0];
    },
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

/** One database: the app's, or that of a group's services. */
interface Place {
  readonly group: string | undefined;
  readonly shards: readonly [ShardConnection, ...ShardConnection[]];
  readonly placement: Pick<Topology["database"], "strategy" | "splits">;
}

async function openPlace(
  whole: Topology,
  group: string | undefined,
  { environment, statementTimeoutMs }: Required<OpenJobsOptions>,
): Promise<Place> {
  const { preparedStatements, strategy, splits } = topologyOfDatabase(whole, group).database;
  const addresses = await leaderAddresses(whole, environment, group);
  const pool = { connectionsMax, acquireTimeoutMs, statementTimeoutMs, preparedStatements };
  const [home, ...others] = addresses.map((address, index) =>
    openPostgres({ name: group === undefined ? `shard ${index}` : `${group} shard ${index}`, address, pool }),
  );
  if (home === undefined) throw new ConfigError("CONFIG_INVALID", "database.shards names no database.");
  return { group, shards: [home, ...others], placement: { strategy, splits } };
}

/** Of a service's database no part need be there; of the app's its home does. */
async function verifyPlace({ group, shards, placement }: Place): Promise<void> {
  const [home] = shards;
  const up = await answering(group === undefined ? home : undefined, shards);
  if (up.includes(home)) await verifyPlacement(home.kysely, shards, placement, up);
  for (const shard of up) await refuseWithoutTables(shard);
}

/** The shards that answer. Raises `DATABASE_UNREACHABLE` when the home database does not. */
async function answering(
  home: ShardConnection | undefined,
  shards: readonly ShardConnection[],
): Promise<ShardConnection[]> {
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
