/** The database policy: routes keys to shards, merges scatter-gather answers, applies effects at commit. */

import type { Kysely, KyselyPlugin, Transaction } from "kysely";
import { UnavailableError } from "../kernel/errors.ts";
import type {
  Database,
  MergeOptions,
  Queries,
  Shard,
  ShardConnection,
  ShardTransaction,
  ShardWindow,
  TransactionOptions,
} from "./database.ts";
import { guardShardKey, type QueryScope } from "./shard-key-guard.ts";
import type { Placement } from "./sharding/placement.ts";
import { shardOf } from "./sharding/placement.ts";
import type { Statement, StatementParameters } from "./statement.ts";
import type { TableRegistry } from "./table-registry.ts";

/** What a sharded database is made of. */
export interface ShardedDatabaseOptions {
  /** One a shard, in placement order. */
  readonly shards: readonly [ShardConnection, ...ShardConnection[]];
  /** The home database; default: the first shard's. */
  readonly home?: ShardConnection;
  readonly placement: Placement;
  readonly tables: TableRegistry;
  /** Check each query against the shard-key rule; default true unless NODE_ENV is "production". */
  readonly guard?: boolean;
  /** Called with the tags of a committed transaction, before its caller goes on. */
  readonly onInvalidate?: (tags: readonly string[]) => void | Promise<void>;
}

/** Joins connections, placement and tables to a {@link Database}. */
export function shardedDatabase<T>(options: ShardedDatabaseOptions): Database<T> {
  const { shards, placement, tables, guard = process.env["NODE_ENV"] !== "production" } = options;
  const home = options.home ?? shards[0];
  const open = (connection: ShardConnection, scope: QueryScope) =>
    new ConnectedShard<T>(connection, {
      check: guard ? (query) => guardShardKey(query, scope, tables) : undefined,
      onInvalidate: options.onInvalidate,
    });
  const keyed = shards.map((shard) => open(shard, "key"));
  const everyShard = shards.map((shard) => open(shard, "everywhere"));
  const homeShard = open(home, "home");

  return {
    shardCount: shards.length,
    home: homeShard,
    for: (key) => keyed[shardOf(placement, key)] as ConnectedShard<T>,

    async everywhere<R extends object>(
      query: (shard: Queries<T>, window: ShardWindow) => Promise<readonly R[]>,
      merge: MergeOptions<R> = {},
    ) {
      const { limit = Number.MAX_SAFE_INTEGER, offset = 0 } = merge;
      const [only] = everyShard;
      if (everyShard.length === 1 && only !== undefined) return [...(await query(only, { limit, offset }))];
      const window = { limit: Math.min(offset + limit, Number.MAX_SAFE_INTEGER), offset: 0 };
      return mergeRows(await Promise.all(everyShard.map((shard) => query(shard, window))), merge);
    },

    async byKey<R>(
      keys: readonly string[],
      query: (shard: Queries<T>, keys: readonly string[]) => Promise<readonly R[]>,
    ) {
      const groups = new Map<number, string[]>();
      for (const key of new Set(keys)) {
        const shard = shardOf(placement, key);
        const group = groups.get(shard);
        if (group === undefined) groups.set(shard, [key]);
        else group.push(key);
      }
      const parts = await Promise.all(
        [...groups].map(([shard, group]) => query(keyed[shard] as ConnectedShard<T>, group)),
      );
      return parts.flat();
    },

    poolStats: () => [...new Set([...shards, home])].map((connection) => connection.stats()),

    async close() {
      await Promise.all([...new Set([...shards, home])].map((connection) => connection.close()));
    },
  };
}

/** Merges ordered parts; stable, so equal rows keep shard order and paging stays the same between requests. */
export function mergeRows<R extends object>(parts: readonly (readonly R[])[], merge: MergeOptions<R>): R[] {
  const { orderBy, offset = 0, limit } = merge;
  const rows = parts.flat();
  if (orderBy !== undefined && parts.length > 1) {
    rows.sort((left, right) => {
      for (const [column, direction] of orderBy) {
        const order = compareValues(left[column], right[column]);
        if (order !== 0) return direction === "asc" ? order : -order;
      }
      return 0;
    });
  }
  return offset === 0 && limit === undefined
    ? rows
    : rows.slice(offset, limit === undefined ? undefined : offset + limit);
}

function compareValues(left: unknown, right: unknown): number {
  const a = left instanceof Date ? left.getTime() : (left as string | number);
  const b = right instanceof Date ? right.getTime() : (right as string | number);
  return a < b ? -1 : a > b ? 1 : 0;
}

interface ShardHooks {
  readonly check: ((query: Parameters<typeof guardShardKey>[0]) => void) | undefined;
  readonly onInvalidate: ((tags: readonly string[]) => void | Promise<void>) | undefined;
}

/** Kysely's starters over one executor, delegated one by one because Kysely keeps private state. */
abstract class KyselyQueries<T> {
  protected readonly db: Kysely<T>;

  constructor(db: Kysely<T>) {
    this.db = db;
    this.selectFrom = db.selectFrom.bind(db);
    this.insertInto = db.insertInto.bind(db);
    this.updateTable = db.updateTable.bind(db);
    this.deleteFrom = db.deleteFrom.bind(db);
    this.mergeInto = db.mergeInto.bind(db);
    this.with = db.with.bind(db);
    this.withRecursive = db.withRecursive.bind(db);
    this.getExecutor = db.getExecutor.bind(db);
  }

  readonly selectFrom: Kysely<T>["selectFrom"];
  readonly insertInto: Kysely<T>["insertInto"];
  readonly updateTable: Kysely<T>["updateTable"];
  readonly deleteFrom: Kysely<T>["deleteFrom"];
  readonly mergeInto: Kysely<T>["mergeInto"];
  readonly with: Kysely<T>["with"];
  readonly withRecursive: Kysely<T>["withRecursive"];
  readonly getExecutor: Kysely<T>["getExecutor"];

  get fn(): Kysely<T>["fn"] {
    return this.db.fn;
  }
}

class ConnectedShard<T> extends KyselyQueries<T> implements Shard<T> {
  private readonly connection: ShardConnection;
  private readonly hooks: ShardHooks;
  private readonly checked = new WeakSet<object>();

  constructor(connection: ShardConnection, hooks: ShardHooks) {
    const db = connection.kysely as Kysely<T>;
    super(hooks.check === undefined ? db : db.withPlugin(guardPlugin(hooks.check)));
    this.connection = connection;
    this.hooks = hooks;
  }

  async run<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    parameters: P,
    effects?: { readonly invalidate?: readonly string[] },
  ): Promise<R[]> {
    this.checkOnce(statement);
    const { sql } = statement.compiled;
    const query = () => this.connection.query<R>(statement.name, sql, statement.bind(parameters));
    return effects?.invalidate === undefined ? query() : this.withEffects(query, effects.invalidate);
  }

  transaction<R>(work: (tx: ShardTransaction<T>) => Promise<R>, options: TransactionOptions = {}): Promise<R> {
    const tags: string[] = [];
    const begin = this.db.transaction();
    const run = (kysely: Transaction<T>) =>
      work(new ConnectedTransaction<T>(kysely, this.connection, tags, (statement) => this.checkOnce(statement)));
    return this.withEffects(
      () => (options.isolation === undefined ? begin : begin.setIsolationLevel(options.isolation)).execute(run),
      tags,
    );
  }

  /** Invalidates after the commit, and also when the connection broke: then the commit may have happened. */
  private async withEffects<R>(write: () => Promise<R>, tags: readonly string[]): Promise<R> {
    let result: R;
    try {
      result = await write();
    } catch (error) {
      if (error instanceof UnavailableError && !error.canRetry && tags.length > 0)
        await this.hooks.onInvalidate?.(tags);
      throw error;
    }
    if (tags.length > 0) await this.hooks.onInvalidate?.(tags);
    return result;
  }

  private checkOnce(statement: Statement<never, unknown>): void {
    if (this.hooks.check === undefined || this.checked.has(statement)) return;
    this.hooks.check(statement.compiled.query);
    this.checked.add(statement);
  }
}

class ConnectedTransaction<T> extends KyselyQueries<T> implements ShardTransaction<T> {
  readonly kysely: Transaction<T>;
  private readonly connection: ShardConnection;
  private readonly tags: string[];
  private readonly check: (statement: Statement<never, unknown>) => void;

  constructor(
    kysely: Transaction<T>,
    connection: ShardConnection,
    tags: string[],
    check: (statement: Statement<never, unknown>) => void,
  ) {
    super(kysely);
    this.kysely = kysely;
    this.connection = connection;
    this.tags = tags;
    this.check = check;
  }

  async run<P extends StatementParameters, R>(statement: Statement<P, R>, parameters: P): Promise<R[]> {
    this.check(statement);
    const query = this.connection.named(statement.compiled, statement.name, statement.bind(parameters));
    return (await this.kysely.withoutPlugins().executeQuery(query)).rows;
  }

  invalidate(...tags: readonly string[]): void {
    this.tags.push(...tags);
  }
}

function guardPlugin(check: NonNullable<ShardHooks["check"]>): KyselyPlugin {
  return {
    transformQuery({ node }) {
      check(node);
      return node;
    },
    transformResult: async ({ result }) => result,
  };
}
