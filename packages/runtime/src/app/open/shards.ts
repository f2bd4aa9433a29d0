/** The shards of an app, for tools beside it: who owns what, how much, and how busy. Nothing is started, migrated or written. */
import { setTimeout as sleep } from "node:timers/promises";
import { openPostgres } from "../../database/drivers/postgres.ts";
import {
  type Ownership,
  type Placement,
  readPlacement,
  readRecord,
  type ShardConnection,
} from "../../database/index.ts";
import {
  type HeavyKey,
  heavyKeys,
  type LoadCounters,
  loadCounters,
  type TableFigures,
  tableFigures,
} from "../../database/sharding/shard-figures.ts";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { Environment, Topology } from "../../topology/index.ts";
import { leaderAddresses } from "../leaders/leader-addresses.ts";

export type { HeavyKey, TableFigures };

/** What a shard does, a second, over the time of the look. */
export interface ShardLoad {
  readonly commits: number;
  readonly rollbacks: number;
  readonly rowsWritten: number;
  readonly rowsRead: number;
  /** Blocks found in the server's memory, of those asked for; null when none was. */
  readonly hitRatio: number | null;
  /** Connections open now. */
  readonly connections: number;
}

/** One shard. */
export interface ShardReport {
  readonly shard: number;
  /** "foreign": its record is that of another shard or system. */
  readonly state: "up" | "down" | "foreign";
  /** Why it is not up; null when it is. */
  readonly problem: string | null;
  /** Epoch by which its ownership last changed; null before it has one. */
  readonly epoch: number | null;
  /** What it says it owns. */
  readonly ownership: Ownership | null;
  /** Buckets owned, by hash; null by range. */
  readonly buckets: number | null;
  readonly rows: number;
  readonly bytes: number;
  readonly tables: readonly TableFigures[];
  readonly load: ShardLoad | null;
}

/** All shards of an app at one moment. */
export interface ShardsReport {
  readonly placement: { readonly strategy: "hash" | "range"; readonly epoch: number; readonly shards: number };
  /** Epoch of a change of placement that has begun and not ended; null when there is none. */
  readonly changingTo: number | null;
  readonly shards: readonly ShardReport[];
  /** The keys with most rows, over all shards and tables. */
  readonly heavyKeys: readonly (HeavyKey & { readonly shard: number })[];
  /** The largest shard's part, as a multiple of the mean: 1 is even. Null when there is nothing to compare. */
  readonly skew: { readonly rows: number | null; readonly bytes: number | null; readonly commits: number | null };
}

/** Bounds of one look. */
export interface LookOptions {
  /** Time over which the load is counted; default 1,000 ms. 0: without load. */
  readonly intervalMs?: number;
  /** Heavy keys given; default 10. */
  readonly keysMax?: number;
  readonly signal?: AbortSignal;
}

/** The shards of an app, open. */
export interface OpenShards {
  /** Raises `DATABASE_UNREACHABLE` when the home database is down; other shards that are down are told as such. */
  look(options?: LookOptions): Promise<ShardsReport>;
  /** Closes the connections. Safe to call twice. */
  close(): Promise<void>;
}

const pool = { connectionsMax: 2, acquireTimeoutMs: 5_000, statementTimeoutMs: 30_000 };

/**
 * Opens the shards of the app that this topology describes: on its servers, or on the embedded databases that a running app holds.
 * `group`: those of the database that its services own. Raises `DATABASE_UNREACHABLE` when an embedded database does not run, `SECRET_MISSING`, and `CONFIG_INVALID` when no app was
 * started there.
 */
export async function openShards(
  topology: Topology,
  options: { readonly environment?: Environment; readonly group?: string | undefined } = {},
): Promise<OpenShards> {
  const { environment = process.env, group } = options;
  const addresses = await leaderAddresses(topology, environment, group);
  const { preparedStatements } = topology.database;
  const shards = addresses.map((address, index) =>
    openPostgres({
      name: group === undefined ? `shard ${index}` : `${group} shard ${index}`,
      address,
      pool: { ...pool, preparedStatements },
    }),
  );
  return {
    look: (lookOptions = {}) => look(shards, lookOptions),
    close: async () => void (await Promise.all(shards.map((shard) => shard.close()))),
  };
}

interface Seen {
  readonly report: ShardReport;
  readonly heavy: readonly (HeavyKey & { readonly shard: number })[];
}

async function look(shards: readonly ShardConnection[], options: LookOptions): Promise<ShardsReport> {
  const { keysMax = 10 } = options;
  const [home] = shards;
  if (home === undefined) throw new ConfigError("CONFIG_INVALID", "database.shards names no database.");
  const { placement, cluster, changingTo } = await recordOf(home);
  const seen = await Promise.all(shards.map((shard, index) => lookAt(shard, index, cluster, options)));
  const reports = seen.map(({ report }) => report);
  const up = reports.filter(({ state }) => state === "up");
  return {
    placement: { strategy: placement.strategy, epoch: placement.epoch, shards: placement.shards },
    changingTo,
    shards: reports,
    heavyKeys: seen
      .flatMap(({ heavy }) => heavy)
      .sort((a, b) => b.rows - a.rows)
      .slice(0, keysMax),
    skew: {
      rows: skewOf(up.map(({ rows }) => rows)),
      bytes: skewOf(up.map(({ bytes }) => bytes)),
      commits: skewOf(up.flatMap(({ load }) => (load === null ? [] : [load.commits]))),
    },
  };
}

async function recordOf(home: ShardConnection): Promise<{
  readonly placement: Placement;
  readonly cluster: string;
  readonly changingTo: number | null;
}> {
  const [table] = await home.query<{ isThere: boolean }>(
    undefined,
    `select to_regclass('rungs_placement') is not null as "isThere"`,
    [],
  );
  const record = table?.isThere === true ? await readPlacement(home.kysely) : undefined;
  if (record === undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      "No app of Rungs has been started on this database yet: it has no placement record. Check its address, or start the app first.",
    );
  }
  const [pending] = await home.query<{ epoch: number }>(
    undefined,
    "select (next ->> 'epoch')::float8 as epoch from rungs_placement where next is not null",
    [],
  );
  return { ...record, changingTo: pending?.epoch ?? null };
}

async function lookAt(
  shard: ShardConnection,
  index: number,
  cluster: string,
  { intervalMs = 1_000, signal }: LookOptions,
): Promise<Seen> {
  const absent = { epoch: null, ownership: null, buckets: null, rows: 0, bytes: 0, tables: [], load: null };
  try {
    const record = await readRecord(shard);
    if (record?.cluster !== cluster || record.shard !== index) {
      const problem = record?.cluster === cluster ? `is shard ${record.shard}` : "belongs to another system";
      return { report: { shard: index, state: "foreign", problem, ...absent }, heavy: [] };
    }
    const before = intervalMs === 0 ? undefined : await loadCounters(shard);
    const tables = await tableFigures(shard);
    const heavy: HeavyKey[] = [];
    for (const table of tables) heavy.push(...(await heavyKeys(shard, table)));
    if (before !== undefined) await sleep(intervalMs, undefined, signal === undefined ? {} : { signal });
    const load = before === undefined ? null : loadBetween(before, await loadCounters(shard));
    const ownership = record.ownership ?? null;
    const report: ShardReport = {
      ...{ shard: index, state: "up", problem: null, epoch: record.epoch, ownership, tables, load },
      buckets: ownership?.strategy === "hash" ? sum(ownership.buckets.map(({ from, to }) => to - from)) : null,
      rows: sum(tables.map(({ rows }) => rows)),
      bytes: sum(tables.map(({ bytes }) => bytes)),
    };
    return { report, heavy: heavy.map((each) => ({ ...each, shard: index })) };
  } catch (error) {
    if (index === 0 || !(error instanceof UnavailableError)) throw error;
    return { report: { shard: index, state: "down", problem: error.message, ...absent }, heavy: [] };
  }
}

/** This look's own statements are among the figures: some five commits. */
function loadBetween(before: LoadCounters, after: LoadCounters): ShardLoad {
  const seconds = Math.max(after.atMs - before.atMs, 1) / 1_000;
  const rate = (name: "commits" | "rollbacks" | "rowsWritten" | "rowsRead") =>
    Math.max(0, after[name] - before[name]) / seconds;
  const hit = after.blocksHit - before.blocksHit;
  const asked = hit + after.blocksRead - before.blocksRead;
  return {
    ...{ commits: rate("commits"), rollbacks: rate("rollbacks") },
    ...{ rowsWritten: rate("rowsWritten"), rowsRead: rate("rowsRead") },
    hitRatio: asked > 0 ? hit / asked : null,
    connections: after.connections,
  };
}

function skewOf(parts: readonly number[]): number | null {
  const total = sum(parts);
  return parts.length < 2 || total === 0 ? null : Math.max(...parts) / (total / parts.length);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
