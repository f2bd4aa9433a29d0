/**
 * The database as handlers see it: rows live on the shard that owns their key, small global tables in the home database.
 *
 * A transaction never spans shards. The same calls run on one embedded server and on many servers.
 */
import type { CompiledQuery, Driver, Kysely, Transaction } from "kysely";
import type { UnavailableError } from "../kernel/errors.ts";
import type { EventType, Publication, PublishOptions } from "../kernel/event.ts";
import type { Statement, StatementParameters } from "./statement.ts";

/** Kysely's query starters, typed by the tables `T`. */
export type Queries<T> = Pick<
  Kysely<T>,
  | "selectFrom"
  | "insertInto"
  | "updateTable"
  | "deleteFrom"
  | "mergeInto"
  | "with"
  | "withRecursive"
  | "fn"
  | "getExecutor"
> & {
  /** Runs a compiled query and gives its rows. */
  run<P extends StatementParameters, R>(statement: Statement<P, R>, parameters: P): Promise<R[]>;
};

/** Inside a transaction: queries on its connection, and effects that happen only if it commits. */
export type ShardTransaction<T> = Queries<T> & {
  /** Drops cached entries that carry the tag, right after the commit and before the caller goes on. */
  invalidate(...tags: readonly string[]): void;
  /**
   * Tells those who handle the event, if this transaction commits: the message is written with its last statement, after
   * all its row locks. Raises `EVENT_INVALID` at once, and `CAPABILITY_MISSING` on a database that no queue joined.
   */
  publish<P>(event: EventType<P>, payload: P, options?: PublishOptions): void;
  /** The Kysely transaction itself, for libraries that take one. */
  readonly kysely: Transaction<T>;
};

/** Settings of one transaction. */
export interface TransactionOptions {
  /** Default: PostgreSQL's own, read committed. */
  readonly isolation?: "read committed" | "repeatable read" | "serializable";
  /**
   * "read only": a write in it fails, and where a shard has followers one of them may run it, under the same guarantees as
   * other reads; a serializable one runs on the leader. Default: "read write", always on the leader.
   */
  readonly access?: "read only" | "read write";
}

/** What a one-statement write brings about beside its rows, if it commits. */
export interface Effects<R = unknown> {
  /** Cache tags to drop. */
  readonly invalidate?: readonly string[];
  /**
   * Messages for those who handle their events, made by `publication`: either written if the statement gives at least one
   * row, in the same round trip, or chosen by the rows it gave, in a transaction around the statement.
   */
  readonly publish?: readonly Publication[] | ((rows: readonly R[]) => readonly Publication[]);
  /** With a list in `publish`: a column that must have a value in the statement's first row for them to be written. */
  readonly publishIf?: keyof R & string;
}

/** Writes messages for the queue tier; what a database needs so that its transactions can publish. */
export interface MessageWriter {
  /** The values of the messages for {@link MessageWriter.insertSql}; undefined when nobody handles them. */
  values(publications: readonly Publication[]): readonly unknown[] | undefined;
  /**
   * The statement that stores them where a condition holds, `true` for always. It has each of its parameters `$1`, `$2`, ...
   * once, in this order.
   */
  insertSql(condition: string): string;
  /** Messages may have been committed on the shard of that name. */
  committed(shardName: string): void;
}

/** One shard (or the home database), for queries outside and inside transactions. */
export type Shard<T> = Omit<Queries<T>, "run"> & {
  /**
   * Runs a statement in a transaction of its own, by the shortest way. Tags in `effects.invalidate` take effect once it
   * has committed and before the caller goes on: a one-statement write needs no {@link Shard.transaction}. Messages in
   * `effects.publish` are written with it.
   */
  run<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    parameters: P,
    effects?: Effects<NoInfer<R>>,
  ): Promise<R[]>;
  /** Runs `work` in a transaction on the leader: commits when it returns, rolls back when it throws. */
  transaction<R>(work: (tx: ShardTransaction<T>) => Promise<R>, options?: TransactionOptions): Promise<R>;
};

/** Which rows each shard has to give so that `offset` and `limit` of the merged whole can be cut from them. */
export interface ShardWindow {
  readonly limit: number;
  readonly offset: number;
}

/** How rows from several shards become one list. */
export interface MergeOptions<R> {
  /** Order of the whole; the query must order each shard's rows the same way. Absent: shard after shard. */
  readonly orderBy?: readonly (readonly [column: keyof R & string, direction: "asc" | "desc"])[];
  /** Rows kept of the whole after `offset`. Each shard is asked for its {@link ShardWindow}. Default: all. */
  readonly limit?: number;
  readonly offset?: number;
  /** Rows that one shard may give, all held in memory at once; default 100,000. */
  readonly rowsMax?: number;
  /** How long each shard has to answer, in ms; default `database.statementTimeoutMs`, 10,000. 0: as long as it takes. */
  readonly deadlineMs?: number;
  /** One shard that fails fails the whole. */
  readonly onFailure?: "fail";
}

/** How rows of several keys are asked for. */
export type KeysOptions = Pick<MergeOptions<object>, "deadlineMs" | "onFailure">;

/** As the options it is made from, but what cannot be had of some shards is left out and told. */
export type PartialOptions<O> = Omit<O, "onFailure"> & {
  /** Shards that do not answer are left out. A question to every shard raises their error when none answers. */
  readonly onFailure: "partial";
};

/** A shard that did not answer. */
export interface MissingShard {
  /** Its name, e.g. "shard 1". */
  readonly shard: string;
  readonly error: UnavailableError;
}

/** The rows there are, and which shards' are not among them. */
export interface PartialRows<R> {
  readonly rows: R[];
  /** Empty when the rows are complete. */
  readonly missing: readonly MissingShard[];
}

/** Figures of a connection pool at one moment. */
export interface PoolStats {
  readonly shard: string;
  readonly total: number;
  readonly idle: number;
  readonly waiting: number;
}

/** The database tier's port. `T`: the tables, as Kysely types them. */
export interface Database<T> {
  /** How many shards there are now. */
  readonly shardCount: number;
  /** The shard that owns the key, a UUID or text. */
  for(key: string): Shard<T>;
  /**
   * Number of that shard, from 0; a promise where the placement has to be asked first. Raises `SHARD_LEASE_EXPIRED` when it does not
   * answer in time.
   */
  shardOf(key: string): number | Promise<number>;
  /** Small global tables and look-up directories. */
  readonly home: Shard<T>;
  /**
   * Asks every shard and merges. One failing shard fails the whole, unless `onFailure` is "partial". Raises `SHARD_TIMEOUT` for a
   * shard that does not answer in time, and `MERGE_INVALID` for rows that cannot be merged or are too many.
   */
  everywhere<R extends object>(
    query: (shard: Queries<T>, window: ShardWindow) => Promise<readonly R[]>,
    merge: PartialOptions<MergeOptions<NoInfer<R>>>,
  ): Promise<PartialRows<R>>;
  everywhere<R extends object>(
    query: (shard: Queries<T>, window: ShardWindow) => Promise<readonly R[]>,
    merge?: MergeOptions<NoInfer<R>>,
  ): Promise<R[]>;
  /**
   * Groups the keys by owning shard, asks each such shard once, and concatenates. Duplicate keys are asked once. Failures as with
   * {@link Database.everywhere}.
   */
  byKey<R>(
    keys: readonly string[],
    query: (shard: Queries<T>, keys: readonly string[]) => Promise<readonly R[]>,
    options: PartialOptions<KeysOptions>,
  ): Promise<PartialRows<R>>;
  byKey<R>(
    keys: readonly string[],
    query: (shard: Queries<T>, keys: readonly string[]) => Promise<readonly R[]>,
    options?: KeysOptions,
  ): Promise<R[]>;
  poolStats(): PoolStats[];
  close(): Promise<void>;
}

/** The part of a database driver that the policy builds on: one server, or one leader, with its pool. */
export interface ShardConnection {
  /** Name for messages and metrics, e.g. "shard 0". */
  readonly name: string;
  readonly kysely: Kysely<unknown>;
  /** What the Kysely is built on: gives connections and transactions on them. */
  readonly driver: Driver;
  /**
   * Runs a named or unnamed statement outside a transaction by the shortest way. `canRepeat`, default false: it only reads, so it
   * may run again when a connection breaks and there is another leader to wait for.
   */
  query<R>(name: string | undefined, sql: string, values: unknown[], canRepeat?: boolean): Promise<R[]>;
  /**
   * Asks the server about itself, on a connection kept for that: the answer does not wait until one of the pool comes free. Only for
   * small statements that read.
   */
  ask<R>(name: string, sql: string, values: unknown[]): Promise<R[]>;
  /** Has each new connection of the pool wait for this before it is used; one for which it raises is closed. */
  beforeUse(check: () => Promise<void>): void;
  /** Runs a compiled query under a statement name on a transaction's own connection. */
  named<R>(compiled: CompiledQuery<R>, name: string, values: unknown[]): CompiledQuery<R>;
  stats(): PoolStats;
  close(): Promise<void>;
}
