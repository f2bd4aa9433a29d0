/** What a shard holds and does, in figures that cost it little: sizes, heavy keys, load. For tools; writes nothing. */
import type { ShardConnection } from "../database.ts";

/** One sharded table on one shard. */
export interface TableFigures {
  readonly table: string;
  /** Its shard key; null where it is not known, with one shard. */
  readonly key: string | null;
  /** PostgreSQL's own estimate. */
  readonly rows: number;
  /** With indexes and what is stored out of line. */
  readonly bytes: number;
}

/** A key that has many rows in a table, by the statistics that ANALYZE gathered, or by a sample of pages where it has not run. */
export interface HeavyKey {
  readonly table: string;
  readonly key: string;
  /** Estimated. */
  readonly rows: number;
  /** Of the table's rows on this shard, 0 to 1. */
  readonly share: number;
}

/** Running totals of a shard's database. */
export interface LoadCounters {
  readonly commits: number;
  readonly rollbacks: number;
  readonly rowsWritten: number;
  readonly rowsRead: number;
  readonly blocksHit: number;
  readonly blocksRead: number;
  readonly connections: number;
  /** The server's clock, in ms. */
  readonly atMs: number;
}

/** Heavy keys given of each table. */
const heavyKeysMax = 10;
/** Pages read of a table that was never analysed: 8 MiB. */
const sampledPagesMax = 1_024;

/** Sizes of the sharded tables: of those that are guarded, or with one shard, of all that have a key that could be one. */
export async function tableFigures(shard: ShardConnection): Promise<TableFigures[]> {
  return shard.query<TableFigures>(
    undefined,
    `with guarded as (
       select tgrelid as id, split_part(encode(tgargs, 'escape'), '\\000', 4) as key from pg_trigger where tgname = 'rungs_guard_new'
     ), led as (
       select i.indrelid as id, a.attname as key from pg_index i
       join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
       where i.indisprimary and a.atttypid in ('uuid'::regtype, 'text'::regtype, 'int8'::regtype, 'int4'::regtype)
     )
     select c.relname as "table", coalesce(g.key, l.key) as key,
       greatest(case when c.reltuples < 0 or c.reltuples = 0 then s.n_live_tup else c.reltuples end, 0)::float8 as rows,
       pg_total_relation_size(c.oid)::float8 as bytes
     from pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = current_schema()
     left join pg_stat_user_tables s on s.relid = c.oid
     left join guarded g on g.id = c.oid left join led l on l.id = c.oid
     where c.relkind = 'r' and case when exists (select from guarded) then g.id is not null
       else l.id is not null and c.relname not like 'rungs\\_%' end
     order by c.relname`,
    [],
  );
}

/** The keys with most rows in the table, most first; none where each key has one row or all have about as many. */
export async function heavyKeys(shard: ShardConnection, { table, key, rows }: TableFigures): Promise<HeavyKey[]> {
  if (key === null || rows === 0) return [];
  const [statistics] = await shard.query<{ keys: string[] | null; shares: number[] | null; isUnique: boolean }>(
    undefined,
    `select s.most_common_vals::text::text[] as keys, s.most_common_freqs::float8[] as shares, s.n_distinct = -1 as "isUnique"
     from pg_stats s where s.schemaname = current_schema() and s.tablename = $1 and s.attname = $2`,
    [table, key],
  );
  if (statistics !== undefined) {
    const { keys, shares } = statistics;
    return (keys ?? []).slice(0, heavyKeysMax).map((value, index) => {
      const share = shares?.[index] ?? 0;
      return { table, key: value, rows: Math.round(rows * share), share };
    });
  }
  const [name, column] = [table, key].map((each) => `"${each.replaceAll('"', '""')}"`);
  const found = await shard.query<{ key: string; share: number; rows: number }>(
    undefined,
    `with share as (select least(100, 100 * ${sampledPagesMax}.0 / greatest(pg_relation_size($1::regclass) / 8192, 1))::float4 as percent),
       sample as (select ${column}::text as key from ${name} tablesample system ((select percent from share)))
     select key, count(*)::float8 / sum(count(*)) over () as share, count(*)::float8 as rows from sample
     group by key order by 2 desc limit ${heavyKeysMax}`,
    [name],
  );
  return found
    .filter((each) => each.rows > 1)
    .map(({ key: value, share }) => ({ table, key: value, rows: Math.round(rows * share), share }));
}

/** Totals since the statistics were last reset. */
export async function loadCounters(shard: ShardConnection): Promise<LoadCounters> {
  const [counters] = await shard.query<LoadCounters>(
    undefined,
    `select xact_commit::float8 as commits, xact_rollback::float8 as rollbacks,
       (tup_inserted + tup_updated + tup_deleted)::float8 as "rowsWritten", tup_fetched::float8 as "rowsRead",
       blks_hit::float8 as "blocksHit", blks_read::float8 as "blocksRead", numbackends::float8 as connections,
       extract(epoch from clock_timestamp())::float8 * 1000 as "atMs"
     from pg_stat_database where datname = current_database()`,
    [],
  );
  if (counters === undefined) throw new Error(`${shard.name} has no statistics of its own database.`);
  return counters;
}
