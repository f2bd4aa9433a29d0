/** The database policy: routes keys to shards, merges scatter-gather answers, applies effects at commit. */

import { CompiledQuery, type Kysely, type KyselyPlugin, type Transaction } from "kysely";
import { UnavailableError, UnsupportedError } from "../kernel/errors.ts";
import { type EventType, type Publication, type PublishOptions, publication } from "../kernel/event.ts";
import type {
  Database,
  Effects,
  KeysOptions,
  MergeOptions,
  MessageWriter,
  PartialOptions,
  PartialRows,
  Queries,
  ShardConnection,
  ShardTransaction,
  ShardWindow,
  TransactionOptions,
} from "./database.ts";
import { KeyedShard, type RoutedShard, type TransactionProgress } from "./keyed-shard.ts";
import { type PublishingStatement, publishingStatement } from "./publishing-statement.ts";
import { askByKey, askEverywhere } from "./scatter.ts";
import { ElsewhereCheck } from "./shard-key/elsewhere-check.ts";
import type { QueryScope } from "./shard-key/guard.ts";
import { QueryCheck } from "./shard-key/query-check.ts";
import { type Placement, shardOf } from "./sharding/placement.ts";
import type { PlacementSource } from "./sharding/placement-watch.ts";
import type { Statement, StatementParameters } from "./statement.ts";
import type { TableRegistry } from "./table-registry.ts";

/** What a sharded database is made of. */
export interface ShardedDatabaseOptions {
  /** One a shard, in placement order. */
  readonly shards: readonly [ShardConnection, ...ShardConnection[]];
  /** The home database; default: the first shard's. */
  readonly home?: ShardConnection;
  readonly placement: Placement;
  /** Says which shard owns a key now, where that can change. Default: what `placement` says, for ever. */
  readonly source?: PlacementSource;
  readonly tables: TableRegistry;
  /**
   * Check each query against the shard-key rule; default true unless NODE_ENV is "production". Tables that are elsewhere are refused
   * always.
   */
  readonly guard?: boolean;
  /**
   * With the guard on, check too that a query names no other key than `db.for(key)` or `db.byKey(keys)` was asked for.
   * Default false. When on, or with {@link ShardedDatabaseOptions.source}, each `db.for(...)` gives an object of its own; else one
   * a shard.
   */
  readonly checkKeys?: boolean;
  /** Called with the tags of a committed transaction and the shard it was on, before its caller goes on. */
  readonly onInvalidate?: OnInvalidate;
  /** Lets transactions publish. Default: `publish` is refused. */
  readonly messages?: MessageWriter;
  /** How long each shard has to answer a question to several, in ms; default 10,000. 0: as long as it takes. */
  readonly deadlineMs?: number;
}

type OnInvalidate = (tags: readonly string[], shard: ShardConnection) => void | Promise<void>;

/** Joins connections, placement and tables to a {@link Database}. */
export function shardedDatabase<T>(options: ShardedDatabaseOptions): Database<T> {
  const {
    shards,
    placement,
    tables,
    onInvalidate,
    messages,
    guard = process.env["NODE_ENV"] !== "production",
  } = options;
  const checksKeys = guard && (options.checkKeys ?? false);
  const home = options.home ?? shards[0];
  const judged = { key: new WeakMap(), everywhere: new WeakMap(), home: new WeakMap() };
  const elsewhere = ElsewhereCheck.of(tables);
  const open = (connection: ShardConnection, scope: QueryScope, keys?: readonly string[]) => {
    const check = guard
      ? new QueryCheck({ scope, tables, judged: judged[scope], ...(keys === undefined ? {} : { keys }) })
      : elsewhere;
    return new ConnectedShard<T>(connection, { check, onInvalidate, messages });
  };
  const keyed = shards.map((shard) => open(shard, "key"));
  const everyShard = shards.map((shard) => open(shard, "everywhere"));
  const openKeyed = (shard: number, keys: readonly string[]) =>
    checksKeys ? open(shards[shard] as ShardConnection, "key", keys) : (keyed[shard] as ConnectedShard<T>);
  const source = shards.length === 1 ? undefined : options.source;
  const routed =
    source === undefined ? undefined : { source, open: (shard: number, key: string) => openKeyed(shard, [key]) };
  const scattered = {
    ...{ shards: everyShard, names: shards.map(({ name }) => name), source, isChecked: guard },
    deadlineMs: options.deadlineMs ?? 10_000,
  };
  const ownerOf = (key: string): number | Promise<number> => {
    if (source === undefined) return shardOf(placement, key);
    return source.ownerOf(key) ?? source.obtain(key).then(({ shard }) => shard);
  };

  const database: Omit<Database<T>, "everywhere" | "byKey"> = {
    shardCount: shards.length,
    home: open(home, "home"),
    for:
      routed === undefined
        ? (key) => openKeyed(shardOf(placement, key), [key])
        : (key) => new KeyedShard<T>(key, routed),
    shardOf: ownerOf,

    poolStats: () => [...new Set([...shards, home])].map((connection) => connection.stats()),

    async close() {
      await Promise.all([...new Set([...shards, home])].map((connection) => connection.close()));
    },
  };
  return {
    ...database,
    async everywhere<R extends object>(
      query: (shard: Queries<T>, window: ShardWindow) => Promise<readonly R[]>,
      merge: MergeOptions<R> | PartialOptions<MergeOptions<R>> = {},
    ) {
      const answer = await askEverywhere(scattered, query, merge);
      return (merge.onFailure === "partial" ? answer : answer.rows) as PartialRows<R> & R[];
    },
    async byKey<R>(
      keys: readonly string[],
      query: (shard: Queries<T>, keys: readonly string[]) => Promise<readonly R[]>,
      settings: KeysOptions | PartialOptions<KeysOptions> = {},
    ) {
      const answer = await askByKey({ ...scattered, ownerOf, open: openKeyed }, keys, query, settings);
      return (settings.onFailure === "partial" ? answer : answer.rows) as PartialRows<R> & R[];
    },
  };
}

/** What judges queries before they run. */
type Check = Pick<QueryCheck, "query" | "statement">;

interface ShardHooks {
  readonly check: Check | undefined;
  readonly onInvalidate: OnInvalidate | undefined;
  readonly messages: MessageWriter | undefined;
}

/** What a transaction has asked for, to happen if it commits. */
interface PendingEffects {
  readonly tags: string[];
  readonly publications: Publication[];
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

class ConnectedShard<T> extends KyselyQueries<T> implements RoutedShard<T> {
  private readonly connection: ShardConnection;
  private readonly hooks: ShardHooks;
  private readonly publishing = new WeakMap<object, Map<string, PublishingStatement<never> | undefined>>();

  constructor(connection: ShardConnection, hooks: ShardHooks) {
    const db = connection.kysely as Kysely<T>;
    super(hooks.check === undefined ? db : db.withPlugin(guardPlugin(hooks.check)));
    this.connection = connection;
    this.hooks = hooks;
  }

  run<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    parameters: P,
    effects: Effects<R> = {},
  ): Promise<R[]> {
    const { check } = this.hooks;
    const { invalidate = [], publish } = effects;
    // The way of nearly all queries in production: nothing between the handler and the pool.
    if (check === undefined && effects.invalidate === undefined && publish === undefined) {
      return this.send(statement, parameters);
    }
    const run = async (rowsOf: () => Promise<R[]>, publications: readonly Publication[] = []) =>
      this.withEffects(
        async () => {
          check?.statement(statement, parameters);
          return rowsOf();
        },
        { tags: [...invalidate], publications: [...publications] },
      );
    if (publish === undefined) return run(() => this.send(statement, parameters));
    const messages = this.messages();
    if (typeof publish === "function") return this.runAndPublish(statement, parameters, effects);
    const values = messages.values(publish);
    if (values === undefined) return run(() => this.send(statement, parameters));
    const joined = this.joined(statement, messages, effects.publishIf);
    if (joined === undefined) return this.runAndPublish(statement, parameters, effects);
    return run(() => this.connection.query<R>(joined.name, joined.sql, joined.bind(parameters, values)), publish);
  }

  /** The statement that also writes messages, made once. */
  private joined<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    messages: MessageWriter,
    column = "",
  ): PublishingStatement<P> | undefined {
    const known = this.publishing.get(statement) ?? new Map<string, PublishingStatement<never> | undefined>();
    this.publishing.set(statement, known);
    if (!known.has(column)) {
      known.set(column, publishingStatement(statement, messages, column === "" ? undefined : column));
    }
    return known.get(column);
  }

  private messages(): MessageWriter {
    return this.hooks.messages ?? refusePublishing("A message", this.connection.name);
  }

  private runAndPublish<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    parameters: P,
    { invalidate = [], publish = [], publishIf }: Effects<R>,
  ): Promise<R[]> {
    return this.transact(async (tx, pending) => {
      const rows = await tx.run(statement, parameters);
      pending.tags.push(...invalidate);
      const [first] = rows;
      if (typeof publish === "function") pending.publications.push(...publish(rows));
      else if (first != null && (publishIf === undefined || first[publishIf] != null)) {
        pending.publications.push(...publish);
      }
      return rows;
    });
  }

  private send<P extends StatementParameters, R>(statement: Statement<P, R>, parameters: P): Promise<R[]> {
    return this.connection.query<R>(statement.name, statement.compiled.sql, statement.bind(parameters));
  }

  transaction<R>(work: (tx: ShardTransaction<T>) => Promise<R>, options: TransactionOptions = {}): Promise<R> {
    return this.transact(work, options);
  }

  transactNoting<R>(
    work: (tx: ShardTransaction<T>) => Promise<R>,
    options: TransactionOptions,
    progress: TransactionProgress,
  ): Promise<R> {
    return this.transact(work, options, progress);
  }

  private transact<R>(
    work: (tx: ShardTransaction<T>, pending: PendingEffects) => Promise<R>,
    options: TransactionOptions = {},
    progress?: TransactionProgress,
  ): Promise<R> {
    const pending: PendingEffects = { tags: [], publications: [] };
    const { isolation, access } = options;
    const plain = this.db.transaction();
    const begin = access === undefined ? plain : plain.setAccessMode(access);
    const run = async (plain: Transaction<T>) => {
      const kysely = progress === undefined ? plain : (plain.withPlugin(countingPlugin(progress)) as Transaction<T>);
      const tx = new ConnectedTransaction<T>(kysely, this.connection, pending, { ...this.hooks, progress });
      const result = await work(tx, pending);
      await this.writeMessages(kysely, pending.publications);
      return result;
    };
    return this.withEffects(
      () => (isolation === undefined ? begin : begin.setIsolationLevel(isolation)).execute(run),
      pending,
    );
  }

  /** Last in the transaction, so that messages are numbered after all its row locks, and with one statement for all. */
  private async writeMessages(kysely: Transaction<T>, publications: readonly Publication[]): Promise<void> {
    if (publications.length === 0) return;
    const messages = this.messages();
    const values = messages.values(publications);
    if (values === undefined) return;
    const query = this.connection.named(CompiledQuery.raw(messages.insertSql("true")), "rungs_publish", [...values]);
    await kysely.withoutPlugins().executeQuery(query);
  }

  /** Acts after the commit, and also when the connection broke: then the commit may have happened. */
  private async withEffects<R>(write: () => Promise<R>, pending: PendingEffects): Promise<R> {
    let result: R;
    try {
      result = await write();
    } catch (error) {
      if (error instanceof UnavailableError && !error.canRetry) {
        try {
          await this.actOn(pending);
        } catch {
          // The write's own error is the one that matters to the caller.
        }
      }
      throw error;
    }
    await this.actOn(pending);
    return result;
  }

  private async actOn({ tags, publications }: PendingEffects): Promise<void> {
    if (publications.length > 0) this.hooks.messages?.committed(this.connection.name);
    if (tags.length > 0) await this.hooks.onInvalidate?.(tags, this.connection);
  }
}

class ConnectedTransaction<T> extends KyselyQueries<T> implements ShardTransaction<T> {
  readonly kysely: Transaction<T>;
  private readonly connection: ShardConnection;
  private readonly pending: PendingEffects;
  private readonly check: Check | undefined;
  private readonly progress: TransactionProgress | undefined;
  private readonly canPublish: boolean;

  constructor(
    kysely: Transaction<T>,
    connection: ShardConnection,
    pending: PendingEffects,
    hooks: ShardHooks & { readonly progress: TransactionProgress | undefined },
  ) {
    super(kysely);
    this.kysely = kysely;
    this.connection = connection;
    this.pending = pending;
    this.check = hooks.check;
    this.progress = hooks.progress;
    this.canPublish = hooks.messages !== undefined;
  }

  async run<P extends StatementParameters, R>(statement: Statement<P, R>, parameters: P): Promise<R[]> {
    this.check?.statement(statement, parameters);
    const query = this.connection.named(statement.compiled, statement.name, statement.bind(parameters));
    const { rows } = await this.kysely.withoutPlugins().executeQuery(query);
    if (this.progress !== undefined) this.progress.statements++;
    return rows;
  }

  invalidate(...tags: readonly string[]): void {
    this.pending.tags.push(...tags);
  }

  publish<P>(event: EventType<P>, payload: P, options: PublishOptions = {}): void {
    if (!this.canPublish) refusePublishing(`"${event.name}"`, this.connection.name);
    this.pending.publications.push(publication(event, payload, options));
  }
}

function guardPlugin(check: Check): KyselyPlugin {
  return {
    transformQuery({ node }) {
      check.query(node);
      return node;
    },
    transformResult: async ({ result }) => result,
  };
}

/** Counts the statements that succeeded. */
function countingPlugin(progress: TransactionProgress): KyselyPlugin {
  return {
    transformQuery: ({ node }) => node,
    async transformResult({ result }) {
      progress.statements++;
      return result;
    },
  };
}

function refusePublishing(what: string, shard: string): never {
  throw new UnsupportedError(
    "CAPABILITY_MISSING",
    `${what} cannot be published: no queue is joined to ${shard}. Give shardedDatabase() its messages option, or start the app by startApp().`,
  );
}
