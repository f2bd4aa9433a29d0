/**
 * Kysely's driver over a replicated shard. A connection is lazy: what it is asked for decides on the server.
 *
 * A statement that only reads is routed by itself. The first other one, or `begin`, binds the connection to a server, and
 * it stays bound until it is given back: what a session of the database holds, such as an advisory lock, lives there.
 */
import type {
  CompiledQuery,
  DatabaseConnection,
  Driver,
  QueryCompiler,
  QueryResult,
  TransactionSettings,
} from "kysely";
import type { ShardConnection } from "../database.ts";
import { mayRunOnFollower } from "./judge.ts";

/** Where a transaction runs; `end` when it is over. */
export interface TransactionServer {
  readonly server: ShardConnection;
  readonly isLeader: boolean;
  /** Whether it is still what it was chosen for. */
  isStill(): boolean;
  end(): void;
}

/** The part of a shard that the driver needs. */
export interface Routes {
  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]>;
  /** Where to run a transaction, or statements that may write. */
  transactionServer(isReadOnly: boolean): Promise<TransactionServer>;
  /** The leader, when the server chosen for a read-only transaction failed before it began. */
  leaderInstead(): TransactionServer;
}

export class RoutedDriver implements Driver {
  private readonly routes: Routes;

  constructor(routes: Routes) {
    this.routes = routes;
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<RoutedConnection> {
    return new RoutedConnection(this.routes);
  }

  async beginTransaction(connection: RoutedConnection, settings: TransactionSettings): Promise<void> {
    // A serializable transaction cannot run on a follower.
    const isReadOnly = settings.accessMode === "read only" && settings.isolationLevel !== "serializable";
    const place = connection.isBound ? undefined : await this.routes.transactionServer(isReadOnly);
    if (place === undefined || place.isLeader) return connection.begin(place, settings);
    try {
      await connection.begin(place, settings);
      if (place.isStill()) return;
      await this.rollbackTransaction(connection);
    } catch {
      // The leader takes its place.
    }
    await connection.release();
    await connection.begin(this.routes.leaderInstead(), settings);
  }

  commitTransaction(connection: RoutedConnection): Promise<void> {
    const { driver, connection: bound } = connection.place();
    return driver.commitTransaction(bound);
  }

  rollbackTransaction(connection: RoutedConnection): Promise<void> {
    const { driver, connection: bound } = connection.place();
    return driver.rollbackTransaction(bound);
  }

  async savepoint(connection: RoutedConnection, name: string, compile: QueryCompiler["compileQuery"]): Promise<void> {
    const { driver, connection: bound } = connection.place();
    await driver.savepoint?.(bound, name, compile);
  }

  async rollbackToSavepoint(
    connection: RoutedConnection,
    name: string,
    compile: QueryCompiler["compileQuery"],
  ): Promise<void> {
    const { driver, connection: bound } = connection.place();
    await driver.rollbackToSavepoint?.(bound, name, compile);
  }

  async releaseSavepoint(
    connection: RoutedConnection,
    name: string,
    compile: QueryCompiler["compileQuery"],
  ): Promise<void> {
    const { driver, connection: bound } = connection.place();
    await driver.releaseSavepoint?.(bound, name, compile);
  }

  releaseConnection(connection: RoutedConnection): Promise<void> {
    return connection.release();
  }

  /** The servers are closed by the shard. */
  async destroy(): Promise<void> {}
}

interface Bound {
  readonly driver: Driver;
  readonly connection: DatabaseConnection;
  readonly end: () => void;
}

class RoutedConnection implements DatabaseConnection {
  private readonly routes: Routes;
  private bound: Bound | undefined;

  constructor(routes: Routes) {
    this.routes = routes;
  }

  get isBound(): boolean {
    return this.bound !== undefined;
  }

  async executeQuery<R>(compiled: CompiledQuery): Promise<QueryResult<R>> {
    if (this.bound !== undefined) return this.bound.connection.executeQuery<R>(compiled);
    if (mayRunOnFollower(compiled.sql)) {
      const name = "name" in compiled ? (compiled.name as string) : undefined;
      return { rows: await this.routes.query<R>(name, compiled.sql, [...compiled.parameters]) };
    }
    const { connection } = await this.bind(await this.routes.transactionServer(false));
    return connection.executeQuery<R>(compiled);
  }

  // biome-ignore lint/correctness/useYield: streaming is refused, but Kysely's interface asks for a generator.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("Streaming of query results is not offered; page by key instead.");
  }

  async begin(place: TransactionServer | undefined, settings: TransactionSettings): Promise<void> {
    const { driver, connection } = place === undefined ? this.place() : await this.bind(place);
    await driver.beginTransaction(connection, settings);
  }

  /** The connection it is bound to. */
  place(): Bound {
    if (this.bound === undefined) throw new Error("The connection is not in a transaction.");
    return this.bound;
  }

  async release(): Promise<void> {
    const { bound } = this;
    this.bound = undefined;
    if (bound === undefined) return;
    bound.end();
    await bound.driver.releaseConnection(bound.connection);
  }

  private async bind({ server, end }: TransactionServer): Promise<Bound> {
    try {
      this.bound = { driver: server.driver, connection: await server.driver.acquireConnection(), end };
    } catch (error) {
      end();
      throw error;
    }
    return this.bound;
  }
}
