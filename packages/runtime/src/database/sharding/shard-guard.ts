/**
 * The guard in each shard: the server itself refuses rows whose key the shard does not own, whoever writes them.
 *
 * Each sharded table has two triggers with all keys but the owned as constants in their WHEN clause: one for the new key, at
 * inserts and when the key is set, one for the old key, at updates and deletes. The executor evaluates it for each row; the
 * function is called for a foreign key only, and raises SQLSTATE RG001 with the epoch in DETAIL.
 *
 * - They fire after the row: before-triggers would lock each updated row once more. What they refuse is undone by the server.
 * - Each statement copies a table's triggers and reads their conditions: so they are few, and their text is short.
 * - The apply workers of logical replication fire no ordinary triggers: rows can be moved in before the shard owns them.
 *
 * A transaction that began before the guard changed meets the new one at its next write: triggers are read from the catalog,
 * not from its snapshot. Changing it waits for the transactions that wrote to the table.
 *
 * What the guard should be follows from the shard's own record (`shard-record.ts`), under the lock of which it is changed.
 * Each trigger carries as arguments the epoch and a hash of its definition, so that a start sees by one read that all is well.
 */
import { createHash } from "node:crypto";
import { sql, type Transaction } from "kysely";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import type { TableRegistry } from "../table-registry.ts";
import { type Ownership, restOf } from "./ownership.ts";
import { type KeyType, keyTypeOf, ownershipSql } from "./ownership-sql.ts";
import { lockRecord, readRecord, type ShardRecord } from "./shard-record.ts";

/** SQLSTATEs of a row whose key the shard does not own, and of a write to the copy of a reference table. */
const [foreignKeyState, referenceCopyState] = ["RG001", "RG002"];

/** How often a lock that others hold is asked for, and how long each time: writers queue behind the asker meanwhile. */
const lockTriesMax = 20;
const lockTimeoutMs = 1_000;

interface TableState {
  readonly table: string;
  readonly isThere: boolean;
  readonly keyType: string | null;
  readonly isNullable: boolean;
  /** Arguments of the guard's triggers that are enabled. */
  readonly marks: readonly string[];
}

interface GuardedTable {
  readonly table: string;
  readonly kind: "sharded" | "referenceSource" | "referenceCopy";
  /** Of a sharded table. */
  readonly key: string | undefined;
  readonly marks: readonly string[];
  readonly keyType: string | null;
  readonly isNullable: boolean;
}

/**
 * Brings the guard of one shard to what its record says, for all declared tables that are there. Gives how many tables had to
 * be changed; an ordinary start changes none and costs two reads.
 *
 * Raises `CONFIG_INVALID` for a key column that cannot be guarded, and `LOCK_TIMEOUT` when others hold a table for too long.
 */
export async function bringGuard(
  shard: ShardConnection,
  options: { readonly tables: TableRegistry; readonly isHome: boolean },
): Promise<number> {
  for (let round = 0; round < lockTriesMax; round++) {
    const record = await readRecord(shard);
    if (record?.ownership === undefined) return 0;
    const tables = await guardedTables(shard, options);
    const outdated = tables.filter((each) => !isCurrent(each, record));
    let isOvertaken = false;
    for (const each of outdated) isOvertaken ||= !(await guardTable(shard, each, record));
    if (!isOvertaken) return outdated.length;
  }
  throw new UnavailableError(
    "LOCK_TIMEOUT",
    `The guard of ${shard.name} could not be brought up to date: its ownership changed ${lockTriesMax} times meanwhile. Try again.`,
    { canRetry: true },
  );
}

const triggerNames = ["rungs_guard_new", "rungs_guard_old"] as const;
const referenceTrigger = "rungs_guard_reference";
/** The copier of reference tables says by this setting that it is the one who writes. */
export const copyingSetting = "rungs.copies_reference";

async function guardedTables(
  shard: ShardConnection,
  { tables, isHome }: { readonly tables: TableRegistry; readonly isHome: boolean },
): Promise<GuardedTable[]> {
  const declared = [...tables].flatMap(([table, declaration]): Pick<GuardedTable, "table" | "kind" | "key">[] => {
    if ("shardBy" in declaration) return [{ table, kind: "sharded", key: declaration.shardBy }];
    const kind = isHome ? "referenceSource" : "referenceCopy";
    return "reference" in declaration ? [{ table, kind, key: undefined }] : [];
  });
  if (declared.length === 0) return [];
  const states = await shard.query<TableState>(
    undefined,
    `select t.name as "table", c.oid is not null as "isThere", y.typname::text as "keyType",
       not coalesce(a.attnotnull, true) as "isNullable", coalesce(g.marks, '{}') as marks
     from unnest($1::text[], $2::text[]) as t(name, key)
     left join pg_class c on c.oid = to_regclass(quote_ident(t.name))
     left join pg_attribute a on a.attrelid = c.oid and a.attname = t.key and not a.attisdropped
     left join pg_type y on y.oid = a.atttypid
     left join lateral (select array_agg(encode(tgargs, 'escape') order by tgname) as marks from pg_trigger
       where tgrelid = c.oid and tgname like 'rungs\\_guard\\_%' and tgenabled in ('O', 'A')) g on true`,
    [declared.map(({ table }) => table), declared.map(({ key }) => key ?? null)],
  );
  const byName = new Map(states.map((state) => [state.table, state]));
  return declared.flatMap((each) => {
    const state = byName.get(each.table);
    if (state === undefined || !state.isThere) return [];
    return [{ ...each, marks: state.marks, keyType: state.keyType, isNullable: state.isNullable }];
  });
}

interface RecordOfOwner extends ShardRecord {
  readonly ownership: Ownership;
}

function isCurrent(each: GuardedTable, record: ShardRecord): boolean {
  const { statements, mark } = definitionOf(each, record as RecordOfOwner);
  const wanted = `${record.epoch}\\000${mark}\\000`;
  return each.marks.length === statements.length && each.marks.every((found) => found.startsWith(wanted));
}

/** Gives false when the record changed since it was read, so that the definition would be of yesterday. */
async function guardTable(shard: ShardConnection, each: GuardedTable, record: ShardRecord): Promise<boolean> {
  const { statements, mark } = definitionOf(each, record as RecordOfOwner);
  const work = async (tx: Transaction<unknown>): Promise<boolean> => {
    await sql.raw(`set local lock_timeout = ${lockTimeoutMs}`).execute(tx);
    if ((await lockRecord(tx)) !== record.epoch) return false;
    await sql.raw(guardFunctions).execute(tx);
    for (const statement of statements) await sql.raw(statement(`'${record.epoch}', '${mark}'`)).execute(tx);
    return true;
  };
  for (let tries = 1; ; tries++) {
    try {
      return await shard.kysely.transaction().execute(work);
    } catch (error) {
      if ((error as { code?: unknown }).code !== "55P03") throw error;
      if (tries < lockTriesMax) continue;
      throw new UnavailableError(
        "LOCK_TIMEOUT",
        `The guard of table "${each.table}" on ${shard.name} could not be changed: the table was locked at each of ` +
          `${lockTriesMax} tries of ${lockTimeoutMs} ms. Look for a long transaction that wrote to it.`,
        { canRetry: true, cause: error },
      );
    }
  }
}

interface Definition {
  /** Each makes one trigger, given the first arguments of its function. */
  readonly statements: readonly ((marks: string) => string)[];
  readonly mark: string;
}

function definitionOf(each: GuardedTable, { ownership, shard }: RecordOfOwner): Definition {
  const { table, kind, key, keyType } = each;
  if (key === undefined) return referenceDefinition(table, kind === "referenceSource");
  if (keyType === null) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `Table "${table}" is sharded by "${key}", which is not one of its columns. Mend "tables" or its migrations.`,
    );
  }
  const type: KeyType = keyTypeOf(keyType, table, key);
  const foreign = (row: "new" | "old") => {
    const column = `${row}.${quoted(key)}`;
    const condition = ownershipSql(restOf(ownership), column, type);
    return each.isNullable ? `${condition} or ${column} is null` : condition;
  };
  const trigger = (name: string, when: string, condition: string) => (marks: string) =>
    `create or replace trigger ${name} ${when} on ${quoted(table)} for each row when (${condition}) ` +
    `execute function rungs_refuse_foreign_key(${marks}, '${shard}', '${key.replaceAll("'", "''")}')`;
  const [ofNew, ofOld] = triggerNames;
  return withMark([
    trigger(ofNew, `after insert or update of ${quoted(key)}`, foreign("new")),
    trigger(ofOld, "after update or delete", foreign("old")),
  ]);
}

function referenceDefinition(table: string, isSource: boolean): Definition {
  const trigger = (when: string, what: string) => (marks: string) =>
    `create or replace trigger ${referenceTrigger} ${when} insert or update or delete or truncate on ${quoted(table)} ` +
    `for each statement ${what}(${marks})`;
  const isForeign = `current_setting('${copyingSetting}', true) is distinct from 'on'`;
  return withMark([
    isSource
      ? trigger("after", "execute function rungs_reference_changed")
      : trigger("before", `when (${isForeign}) execute function rungs_refuse_reference_copy`),
  ]);
}

function withMark(statements: Definition["statements"]): Definition {
  const hash = createHash("sha256").update(guardFunctions);
  for (const statement of statements) hash.update(statement(""));
  return { statements, mark: hash.digest("hex").slice(0, 16) };
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** The key itself is not told: it may be a person's address. */
const guardFunctions = `
  create or replace function rungs_refuse_foreign_key() returns trigger language plpgsql as $$
  begin
    raise exception using errcode = '${foreignKeyState}',
      message = format('Shard %s does not own the key of this row of table "%s".', tg_argv[2], tg_table_name),
      detail = format('epoch %s', tg_argv[0]),
      hint = 'Ask rungs_placement in the home database which shard does.';
  end $$;
  create or replace function rungs_refuse_reference_copy() returns trigger language plpgsql as $$
  begin
    raise exception using errcode = '${referenceCopyState}',
      message = format('Table "%s" is a copy of the home database''s here.', tg_table_name),
      hint = 'Write to it in the home database: db.home.';
  end $$;
  create or replace function rungs_reference_changed() returns trigger language plpgsql as $$
  begin
    insert into rungs_reference_versions as v (table_name, version) values (tg_table_name, 1)
      on conflict (table_name) do update set version = v.version + 1;
    return null;
  end $$;`;
