/**
 * Work that is done once for a key, however often and from however many connections it is asked for.
 *
 * Method: the "atomic phases" of Brandur Leach, "Implementing Stripe-like Idempotency Keys in Postgres" (2017). Between two
 * calls to the world outside lies a phase: a transaction that takes the key's row, does the phase's work and stores its
 * answer. A request that dies anywhere is sent again and goes through its phases from the top: those that committed only
 * give their answer, the first that did not goes on. A request without such calls is one phase.
 *
 * - *First*: the insert takes the key. Its answer is stored by the same transaction, so that no committed row lacks one.
 * - *Concurrent*: the insert waits on the unique index until the first has ended, within the statement timeout. Has it
 *   committed, the insert does nothing, and a new statement, which under READ COMMITTED has a new snapshot, reads the
 *   answer. Has it rolled back, the insert succeeds and the work is done here.
 * - *Under REPEATABLE READ or SERIALIZABLE* that insert raises a serialization failure (40001) instead, because the row is
 *   not in the snapshot; the caller runs the whole transaction again, as for any such failure.
 * - *Raising*: what raises stores nothing; the key is free for another try.
 */
import { CompiledQuery } from "kysely";
import { ConflictError } from "../kernel/errors.ts";
import { IdempotencyError } from "./idempotency-error.ts";

/** A transaction under way: Rungs' own, Kysely's, or a `pg` client after BEGIN. */
export type IdempotencyTransaction = KyselyTransaction | PgTransaction;

/** The part of Kysely's transaction that is used; `kysely` is where Rungs' own keeps it. */
interface KyselyTransaction {
  readonly kysely?: KyselyTransaction;
  withoutPlugins?(): KyselyTransaction;
  executeQuery?(query: CompiledQuery<never>): Promise<{ readonly rows: readonly unknown[] }>;
}

interface PgTransaction {
  query(sql: string, values: unknown[]): Promise<{ readonly rows: readonly unknown[] }>;
}

/** Whose request it is and which. */
export interface KeyedRequest {
  /** Keys of different owners never meet: the user or account that sent it. It is the shard key of the stored row. */
  readonly ownerId: string;
  /** From {@link readIdempotencyKey}, or made by the app. */
  readonly key: string;
  /** From {@link fingerprintOf}: the same key with another fingerprint is refused. */
  readonly fingerprint: string;
  /** Name of the phase when a request has several; default "", its only one. */
  readonly phase?: string;
}

/** An answer, and whether it was given before. */
export interface KeyedAnswer<A> {
  readonly replayed: boolean;
  readonly answer: A;
}

/** The row can go between insert and select only when a sweep takes it; more than one in a row is no sweep. */
const roundsMax = 3;

/**
 * Does `work` in the caller's transaction unless the key's work was done before, and gives its answer either way: as JSON
 * gives it back, so keep it small and plain. `work` must change nothing outside `tx`. Raises `IDEMPOTENCY_KEY_REUSED` when
 * the key belongs to another request.
 *
 * @example
 * const { answer } = await db.for(userId).transaction((tx) =>
 *   once(tx, { ownerId: userId, key, fingerprint: fingerprintOf(["order", order]) }, async () => {
 *     await tx.insertInto("orders").values(...).execute();
 *     return { orderId };
 *   }));
 */
export async function once<A>(
  tx: IdempotencyTransaction,
  request: KeyedRequest,
  work: () => Promise<A>,
): Promise<KeyedAnswer<A>> {
  const { ownerId, key, fingerprint, phase = "" } = request;
  const query = queriesOf(tx);
  for (let round = 0; round < roundsMax; round++) {
    if ((await query(takeSql, [ownerId, key, phase, fingerprint])).length > 0) {
      return { replayed: false, answer: await doAndStore(query, [ownerId, key, phase], work) };
    }
    const [known] = (await query(readSql, [ownerId, key, phase])) as { fingerprint: string; answer: string | null }[];
    if (known === undefined) continue;
    if (known.fingerprint !== fingerprint) {
      throw new IdempotencyError("IDEMPOTENCY_KEY_REUSED", "was used for another request; send a new one with this");
    }
    const answer = known.answer === null ? undefined : JSON.parse(known.answer);
    return { replayed: true, answer: answer as A };
  }
  throw new ConflictError(
    "IDEMPOTENCY_KEY_UNSETTLED",
    `The row of an idempotency key was taken and removed ${roundsMax} times in one request. Send it again.`,
  );
}

type Query = (sql: string, values: unknown[]) => Promise<readonly unknown[]>;

const takeSql = `insert into rungs_idempotency_keys (owner_id, key, phase, fingerprint) values ($1, $2, $3, $4)
  on conflict do nothing returning 1`;
const readSql =
  "select fingerprint, answer from rungs_idempotency_keys where owner_id = $1 and key = $2 and phase = $3";
const storeSql =
  "update rungs_idempotency_keys set answer = $4 where owner_id = $1 and key = $2 and phase = $3 returning 1";
const releaseSql = "delete from rungs_idempotency_keys where owner_id = $1 and key = $2 and phase = $3";

async function doAndStore<A>(query: Query, id: readonly string[], work: () => Promise<A>): Promise<A> {
  let answer: A;
  try {
    answer = await work();
  } catch (error) {
    // For a caller that commits all the same: the key must not stay taken without an answer. After an error of the
    // database nothing more runs in this transaction, and the rollback takes the row away.
    await query(releaseSql, [...id]).catch(() => {});
    throw error;
  }
  const text = JSON.stringify(answer);
  await query(storeSql, [...id, text ?? null]);
  // The first caller sees what a later one will: a Date, say, is text in both.
  return text === undefined ? (undefined as A) : (JSON.parse(text) as A);
}

/** Past the shard-key guard, which would want a declared table in apps that use this tier alone. */
function queriesOf(tx: IdempotencyTransaction): Query {
  if ("query" in tx && typeof tx.query === "function") {
    return async (sql, values) => (await tx.query(sql, values)).rows;
  }
  const kysely = (tx as KyselyTransaction).kysely ?? (tx as KyselyTransaction);
  const plain = kysely.withoutPlugins?.() ?? kysely;
  return async (sql, values) => {
    if (plain.executeQuery === undefined) throw new TypeError("once() needs a shard's transaction, Kysely's or pg's.");
    return (await plain.executeQuery(CompiledQuery.raw(sql, values) as CompiledQuery<never>)).rows;
  };
}
