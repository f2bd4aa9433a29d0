/**
 * What a shard knows of itself: which system it belongs to, its number, and the keys it owns since which epoch.
 *
 * The row speaks for the shard: routing believes it, and the guard is made from it. Whoever changes it or the guard holds its
 * row lock, so that a slow starter cannot put an old guard over a new one.
 */
import { type Kysely, sql } from "kysely";
import type { ShardConnection } from "../database.ts";
import { type Ownership, readOwnership } from "./ownership.ts";

/** One shard's record. */
export interface ShardRecord {
  readonly cluster: string;
  readonly shard: number;
  /** Epoch of the placement by which its ownership last changed; 0 before it has one. */
  readonly epoch: number;
  /** Undefined before an app that knows of ownership has started on it. */
  readonly ownership: Ownership | undefined;
}

interface RecordRow {
  readonly cluster: string;
  readonly shard: number;
  readonly epoch: string;
  readonly owned: unknown;
}

/** Reads the record; undefined where there is none yet. */
export async function readRecord(shard: ShardConnection): Promise<ShardRecord | undefined> {
  const [row] = await shard.query<RecordRow>(
    "rungs_shard_record",
    "select cluster::text, shard, epoch::text, owned from rungs_shard",
    [],
  );
  if (row === undefined) return undefined;
  return { ...row, epoch: Number(row.epoch), ownership: readOwnership(row.owned) };
}

/** Locks the record to the end of the transaction and gives its epoch. A statement of its own, so that it sees the newest. */
export async function lockRecord(tx: Kysely<unknown>): Promise<number | undefined> {
  const { rows } = await sql<{ epoch: string }>`select epoch::text from rungs_shard for update`.execute(tx);
  return rows[0] === undefined ? undefined : Number(rows[0].epoch);
}

/** Gives the shard its first ownership, unless it has one. */
export async function giveOwnership(shard: ShardConnection, ownership: Ownership, epoch: number): Promise<void> {
  await sql`
    update rungs_shard set owned = ${JSON.stringify(ownership)}::jsonb, epoch = ${epoch}
    where owned is null`.execute(shard.kysely);
}

/** Shuts out changes of earlier terms. Gives false when a later term is in force. */
export async function beginTerm(shard: ShardConnection, term: number): Promise<boolean> {
  const { rows } = await sql`update rungs_shard set term = ${term} where term <= ${term} returning term`.execute(
    shard.kysely,
  );
  return rows.length > 0;
}

/** Sets what the shard owns from the epoch on, if the term is in force. Gives whether it is. */
export async function changeOwnership(
  shard: ShardConnection,
  { ownership, epoch, term }: { readonly ownership: Ownership; readonly epoch: number; readonly term: number },
): Promise<boolean> {
  const { rows } = await sql`
    update rungs_shard set owned = ${JSON.stringify(ownership)}::jsonb, epoch = ${epoch}
    where term = ${term} returning term`.execute(shard.kysely);
  return rows.length > 0;
}
