/**
 * Reference tables: small, written in the home database, and copied whole to every other shard, so that queries there can join
 * them.
 *
 * - *versions*: a trigger in the home database raises the table's version in each transaction that writes to it. The row lock
 *   makes the order of the versions that of the commits.
 * - *copies*: each shard notes the version its copy is of. Every process looks at the versions each second; whoever first locks
 *   the note of a copy that is behind reads version and rows of one snapshot and makes the copy equal, in one transaction.
 * - The guard refuses all other writes to a copy.
 *
 * A copy is as of one moment, goes forward only, and is about a second behind. A shard that was down catches up when it is back,
 * and keeps nothing waiting in the home database meanwhile: no slot, no log that grows.
 */
import { sql, type Transaction } from "kysely";
import { ConfigError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { ShardConnection } from "../database.ts";
import type { TableRegistry } from "../table-registry.ts";
import { copyingSetting } from "./shard-guard.ts";

/** Rows of one reference table; all are in memory while it is copied. */
export const referenceRowsMax = 100_000;

export interface ReferenceCopierOptions {
  readonly home: ShardConnection;
  /** All shards; the home database's own needs no copy. */
  readonly shards: readonly ShardConnection[];
  readonly tables: TableRegistry;
  readonly log: Logger;
  /** How often versions are looked at; default 1,000 ms. */
  readonly everyMs?: number;
}

/** Keeps the copies up to date. */
export class ReferenceCopier {
  private readonly options: ReferenceCopierOptions;
  private readonly tables: readonly string[];
  /** The version a shard's copy is known to have at least. */
  private readonly copied = new Map<ShardConnection, Map<string, number>>();
  private readonly troubled = new Set<ShardConnection>();
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;

  constructor(options: ReferenceCopierOptions) {
    this.options = options;
    this.tables = [...options.tables].flatMap(([table, declared]) => ("reference" in declared ? [table] : []));
    for (const shard of options.shards) if (shard !== options.home) this.copied.set(shard, new Map());
  }

  /** Copies what is behind, then again and again until {@link ReferenceCopier.stop}. Does nothing where there are no copies. */
  async start(): Promise<void> {
    if (this.tables.length === 0 || this.copied.size === 0) return;
    this.timer ??= setInterval(() => void this.copyAll(), this.options.everyMs ?? 1_000).unref();
    await this.copyAll();
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.running;
  }

  /** Brings every copy that can be reached to the version of now. Raises nothing; what failed is tried again later. */
  copyAll(): Promise<void> {
    this.running ??= this.copyBehind().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  private async copyBehind(): Promise<void> {
    const { home, log } = this.options;
    let versions: ReadonlyMap<string, number>;
    try {
      versions = await versionsOf(home, "rungs_reference_versions");
    } catch (error) {
      log.debug({ error }, "the versions of reference tables could not be read");
      return;
    }
    await Promise.all(
      [...this.copied].map(async ([shard, known]) => {
        try {
          await this.copyTo(shard, known, versions);
          this.troubled.delete(shard);
        } catch (error) {
          if (!this.troubled.has(shard)) log.warn({ shard: shard.name, error }, "reference tables could not be copied");
          this.troubled.add(shard);
        }
      }),
    );
  }

  private async copyTo(shard: ShardConnection, known: Map<string, number>, versions: ReadonlyMap<string, number>) {
    const isBehind = (table: string) => (known.get(table) ?? -1) < (versions.get(table) ?? 0);
    if (!this.tables.some(isBehind)) return;
    for (const [table, version] of await versionsOf(shard, "rungs_reference_copies")) known.set(table, version);
    for (const table of this.tables.filter(isBehind)) {
      const version = await copyTable(this.options.home, shard, table);
      if (version !== undefined) known.set(table, version);
    }
  }
}

async function versionsOf(shard: ShardConnection, place: string): Promise<Map<string, number>> {
  const rows = await shard.query<{ table_name: string; version: number }>(
    undefined,
    `select table_name, version::float8 as version from ${place}`,
    [],
  );
  return new Map(rows.map(({ table_name, version }) => [table_name, version]));
}

/**
 * Makes the shard's copy equal to the home database's table. Gives the version copied; undefined when another process is at it.
 * Raises `CONFIG_INVALID` for a table that is too large.
 */
async function copyTable(home: ShardConnection, shard: ShardConnection, table: string): Promise<number | undefined> {
  return shard.kysely.transaction().execute(async (tx) => {
    await sql`
      insert into rungs_reference_copies (table_name, version) values (${table}, -1) on conflict do nothing`.execute(
      tx,
    );
    const { rows } = await sql<{ version: number }>`
      select version::float8 as version from rungs_reference_copies where table_name = ${table} for update skip locked`.execute(
      tx,
    );
    if (rows[0] === undefined) return undefined;
    const found = await snapshotOf(home, table);
    if (rows[0].version < found.version) await makeEqual(tx, table, found);
    return Math.max(rows[0].version, found.version);
  });
}

interface Snapshot {
  readonly version: number;
  /** Each row as PostgreSQL writes it. */
  readonly rows: readonly string[];
}

function snapshotOf(home: ShardConnection, table: string): Promise<Snapshot> {
  return home.kysely
    .transaction()
    .setIsolationLevel("repeatable read")
    .execute(async (tx) => {
      const { rows: versions } = await sql<{ version: number }>`
        select version::float8 as version from rungs_reference_versions where table_name = ${table}`.execute(tx);
      const { rows } = await sql<{ row: string }>`
        select rungs_row::text as row from ${sql.table(table)} as rungs_row limit ${referenceRowsMax + 1}`.execute(tx);
      if (rows.length > referenceRowsMax) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `Reference table "${table}" has more than ${referenceRowsMax} rows, too many to copy whole. Shard it, or keep it in the home database.`,
        );
      }
      return { version: versions[0]?.version ?? 0, rows: rows.map(({ row }) => row) };
    });
}

/** What differs is deleted before anything is inserted, so that two rows can exchange a unique value. */
async function makeEqual(tx: Transaction<unknown>, table: string, { version, rows }: Snapshot): Promise<void> {
  await sql`select set_config(${copyingSetting}, 'on', true)`.execute(tx);
  const name = sql.table(table);
  const { rows: columns } = await sql<{ name: string }>`
    select attname as name from pg_attribute where attrelid = ${`"${table.replaceAll('"', '""')}"`}::regclass
    and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`.execute(tx);
  const list = sql.join(columns.map((column) => sql.ref(column.name)));
  await sql`
    delete from ${name} as rungs_row where rungs_row::text not in (select unnest(${rows}::text[]))`.execute(tx);
  await sql`
    insert into ${name} (${list}) overriding system value
    select ${list} from unnest(${rows}::text[]::${name}[]) as rungs_row
    where rungs_row::text not in (select old_row::text from ${name} as old_row)`.execute(tx);
  await sql`update rungs_reference_copies set version = ${version} where table_name = ${table}`.execute(tx);
}
