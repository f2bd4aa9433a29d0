/**
 * `db.for(key)` where there are several shards: finds the owner at each use, under its lease, and goes elsewhere when the key has
 * moved. Everything that can be is made when it is first needed: most uses are one `run`.
 */
import {
  type CompiledQuery,
  type Kysely,
  type KyselyPlugin,
  QueryCreator,
  type QueryExecutor,
  type QueryResult,
  type RootOperationNode,
} from "kysely";
import type { Effects, Shard, ShardTransaction, TransactionOptions } from "./database.ts";
import { isRefusal, onOwner } from "./sharding/owner-routing.ts";
import type { PlacementSource } from "./sharding/placement-watch.ts";
import type { Statement, StatementParameters } from "./statement.ts";

/** How far a transaction has come. */
export interface TransactionProgress {
  /** Statements that succeeded. */
  statements: number;
}

/** A shard whose transactions tell how far they came. */
export interface RoutedShard<T> extends Shard<T> {
  transactNoting<R>(
    work: (tx: ShardTransaction<T>) => Promise<R>,
    options: TransactionOptions,
    progress: TransactionProgress,
  ): Promise<R>;
}

/** What a {@link KeyedShard} is made of; shared by all of one database. */
export interface KeyedShardOptions<T> {
  readonly source: PlacementSource;
  /** The shard of that number, for queries about that key. */
  readonly open: (shard: number, key: string) => RoutedShard<T>;
}

/** The shard that owns a key, whichever that is when a query runs. */
export class KeyedShard<T> implements Shard<T> {
  private readonly key: string;
  private readonly options: KeyedShardOptions<T>;
  private queries: QueryCreator<T> | undefined;

  constructor(key: string, options: KeyedShardOptions<T>) {
    this.key = key;
    this.options = options;
  }

  run<P extends StatementParameters, R>(
    statement: Statement<P, R>,
    parameters: P,
    effects?: Effects<NoInfer<R>>,
  ): Promise<R[]> {
    const { source, open } = this.options;
    const lease = source.leaseOf(this.key);
    const run = (shard: RoutedShard<T>) => shard.run(statement, parameters, effects);
    if (lease === undefined) return this.onOwner(run);
    // The way of nearly all queries: one promise more than without routing, and no more.
    return run(open(lease.shard, this.key)).catch(async (error: unknown) => {
      if (!isRefusal(error)) throw error;
      source.noteRefusal(lease.shard);
      await source.refresh();
      return this.onOwner(run);
    });
  }

  /** Runs `work` again on another shard only if its first statement was refused, so that it had done nothing yet. */
  transaction<R>(work: (tx: ShardTransaction<T>) => Promise<R>, options: TransactionOptions = {}): Promise<R> {
    const { source, open } = this.options;
    let progress: TransactionProgress = { statements: 0 };
    const attempt = (shard: number) => {
      progress = { statements: 0 };
      return open(shard, this.key).transactNoting(work, options, progress);
    };
    return onOwner(source, this.key, attempt, () => progress.statements === 0);
  }

  get selectFrom(): Kysely<T>["selectFrom"] {
    return this.creator.selectFrom.bind(this.creator);
  }
  get insertInto(): Kysely<T>["insertInto"] {
    return this.creator.insertInto.bind(this.creator);
  }
  get updateTable(): Kysely<T>["updateTable"] {
    return this.creator.updateTable.bind(this.creator);
  }
  get deleteFrom(): Kysely<T>["deleteFrom"] {
    return this.creator.deleteFrom.bind(this.creator);
  }
  get mergeInto(): Kysely<T>["mergeInto"] {
    return this.creator.mergeInto.bind(this.creator);
  }
  get with(): Kysely<T>["with"] {
    return this.creator.with.bind(this.creator);
  }
  get withRecursive(): Kysely<T>["withRecursive"] {
    return this.creator.withRecursive.bind(this.creator);
  }
  get fn(): Kysely<T>["fn"] {
    return this.options.open(0, this.key).fn;
  }
  get getExecutor(): Kysely<T>["getExecutor"] {
    return () => this.executor();
  }

  private get creator(): QueryCreator<T> {
    this.queries ??= new QueryCreator<T>({ executor: this.executor() });
    return this.queries;
  }

  private executor(): QueryExecutor {
    return new OwnerExecutor(
      (work) => this.onOwner((shard) => work(shard.getExecutor())),
      this.options.open(0, this.key).getExecutor(),
      (executor) => executor,
    );
  }

  private onOwner<R>(work: (shard: RoutedShard<T>) => Promise<R>): Promise<R> {
    const { source, open } = this.options;
    return onOwner(source, this.key, (shard) => work(open(shard, this.key)));
  }
}

type OnOwner = <R>(work: (executor: QueryExecutor) => Promise<R>) => Promise<R>;
type Derive = (executor: QueryExecutor) => QueryExecutor;

/** Runs Kysely's queries on the owner of a key. Compiling is the same on every shard. */
class OwnerExecutor implements QueryExecutor {
  private readonly onOwner: OnOwner;
  private readonly underived: QueryExecutor;
  private readonly any: QueryExecutor;
  private readonly derive: Derive;

  constructor(onOwner: OnOwner, underived: QueryExecutor, derive: Derive) {
    this.onOwner = onOwner;
    this.underived = underived;
    this.any = derive(underived);
    this.derive = derive;
  }

  get adapter(): QueryExecutor["adapter"] {
    return this.any.adapter;
  }
  get plugins(): QueryExecutor["plugins"] {
    return this.any.plugins;
  }
  transformQuery<N extends RootOperationNode>(node: N, queryId: Parameters<QueryExecutor["transformQuery"]>[1]): N {
    return this.any.transformQuery(node, queryId);
  }
  compileQuery<R = unknown>(
    node: RootOperationNode,
    queryId: Parameters<QueryExecutor["compileQuery"]>[1],
  ): CompiledQuery<R> {
    return this.any.compileQuery<R>(node, queryId);
  }
  executeQuery<R>(
    query: CompiledQuery<R>,
    options?: Parameters<QueryExecutor["executeQuery"]>[1],
  ): Promise<QueryResult<R>> {
    return this.onOwner((executor) => this.derive(executor).executeQuery(query, options));
  }
  provideConnection: QueryExecutor["provideConnection"] = (consumer, options) =>
    this.onOwner((executor) => executor.provideConnection(consumer, options));

  stream<R>(
    query: CompiledQuery<R>,
    chunkSize: number,
    options?: Parameters<QueryExecutor["stream"]>[2],
  ): AsyncIterableIterator<QueryResult<R>> {
    return this.any.stream<R>(query, chunkSize, options);
  }
  withPlugin(plugin: KyselyPlugin): QueryExecutor {
    return this.derived((executor) => executor.withPlugin(plugin));
  }
  withPlugins(plugins: readonly KyselyPlugin[]): QueryExecutor {
    return this.derived((executor) => executor.withPlugins(plugins));
  }
  withPluginAtFront(plugin: KyselyPlugin): QueryExecutor {
    return this.derived((executor) => executor.withPluginAtFront(plugin));
  }
  withoutPlugins(): QueryExecutor {
    return this.derived((executor) => executor.withoutPlugins());
  }
  withConnectionProvider(provider: Parameters<QueryExecutor["withConnectionProvider"]>[0]): QueryExecutor {
    return this.any.withConnectionProvider(provider);
  }

  private derived(further: Derive): QueryExecutor {
    return new OwnerExecutor(this.onOwner, this.underived, (executor) => further(this.derive(executor)));
  }
}
