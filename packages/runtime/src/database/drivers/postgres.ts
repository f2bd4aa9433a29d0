/**
 * Driver for any PostgreSQL server from version 15 on, by URL or by socket: a bounded pool, clear errors, own type parsers.
 *
 * Kysely's own PostgreSQL driver is not used because it cannot name prepared statements, and because the pool's errors
 * have to be told apart: a full pool, a dead server and a statement that took too long call for different answers.
 */
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Driver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type QueryResult,
} from "kysely";
import pg from "pg";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { ShardConnection } from "../database.ts";
import { mustDiscard } from "./postgres-errors.ts";
import { BoundedPool, type PostgresAddress, type PostgresPoolOptions } from "./postgres-pool.ts";

export type { PostgresAddress, PostgresPoolOptions };

/**
 * Opens a pool to one server. No connection is made until the first query. Raises `CONFIG_INVALID` on an address that
 * cannot be read.
 */
export function openPostgres(options: {
  readonly name: string;
  readonly address: PostgresAddress;
  readonly pool?: PostgresPoolOptions;
  readonly log?: Logger;
}): ShardConnection {
  const pool = new BoundedPool({ ...options, log: options.log ?? silentLogger, pool: options.pool ?? {} });
  const kysely = new Kysely<unknown>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new PooledDriver(pool),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  });
  return {
    name: options.name,
    kysely,
    query: (name, sql, values) => pool.query(name, sql, values),
    named: (compiled, name, values) => ({ ...compiled, parameters: values, ...(pool.isPreparing ? { name } : {}) }),
    stats: () => pool.stats(),
    async close() {
      await kysely.destroy();
      // Kysely destroys only a driver that it used.
      await pool.end();
    },
  };
}

/** Kysely's driver interface over the bounded pool. */
class PooledDriver implements Driver {
  private readonly pool: BoundedPool;
  private readonly connections = new WeakMap<pg.PoolClient, PooledConnection>();

  constructor(pool: BoundedPool) {
    this.pool = pool;
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<PooledConnection> {
    const client = await this.pool.acquire();
    let connection = this.connections.get(client);
    if (connection === undefined) {
      connection = new PooledConnection(client, this.pool);
      this.connections.set(client, connection);
    }
    return connection;
  }

  async beginTransaction(
    connection: PooledConnection,
    settings: { readonly isolationLevel?: string; readonly accessMode?: string },
  ): Promise<void> {
    const isolation = settings.isolationLevel === undefined ? "" : ` isolation level ${settings.isolationLevel}`;
    const access = settings.accessMode === undefined ? "" : ` ${settings.accessMode}`;
    await connection.command(`begin${isolation}${access}`);
  }

  async commitTransaction(connection: PooledConnection): Promise<void> {
    const command = await connection.command("commit");
    // PostgreSQL answers COMMIT with ROLLBACK when an earlier statement's error was swallowed: that is no success.
    if (command === "ROLLBACK") {
      throw new Error(
        "The transaction was rolled back at COMMIT, because an earlier statement in it failed and its error was caught.",
      );
    }
  }

  async rollbackTransaction(connection: PooledConnection): Promise<void> {
    // On a lost connection the server rolls back by itself. The caller gets the error that led here, not this one's.
    await connection.command("rollback").catch(() => connection.discard());
  }

  async savepoint(connection: PooledConnection, name: string): Promise<void> {
    await connection.command(`savepoint ${pg.escapeIdentifier(name)}`);
  }

  async rollbackToSavepoint(connection: PooledConnection, name: string): Promise<void> {
    await connection.command(`rollback to savepoint ${pg.escapeIdentifier(name)}`);
  }

  async releaseSavepoint(connection: PooledConnection, name: string): Promise<void> {
    await connection.command(`release savepoint ${pg.escapeIdentifier(name)}`);
  }

  async releaseConnection(connection: PooledConnection): Promise<void> {
    connection.release();
  }

  async destroy(): Promise<void> {
    await this.pool.end();
  }
}

/** One pooled connection; after a fatal error it is closed instead of going back to the pool. */
class PooledConnection implements DatabaseConnection {
  private readonly client: pg.PoolClient;
  private readonly pool: BoundedPool;
  private isBroken = false;

  constructor(client: pg.PoolClient, pool: BoundedPool) {
    this.client = client;
    this.pool = pool;
  }

  async executeQuery<R>(compiled: CompiledQuery): Promise<QueryResult<R>> {
    const result = await this.send({
      text: compiled.sql,
      values: [...compiled.parameters],
      ...("name" in compiled ? { name: compiled.name as string } : {}),
    });
    const isWrite = ["INSERT", "UPDATE", "DELETE", "MERGE"].includes(result.command);
    return { rows: result.rows as R[], ...(isWrite ? { numAffectedRows: BigInt(result.rowCount ?? 0) } : {}) };
  }

  // biome-ignore lint/correctness/useYield: streaming is refused, but Kysely's interface asks for a generator.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("Streaming of query results is not offered; page by key instead.");
  }

  async command(sql: string): Promise<string> {
    return (await this.send({ text: sql })).command;
  }

  discard(): void {
    this.isBroken = true;
  }

  release(): void {
    this.client.release(this.isBroken);
  }

  private async send(query: pg.QueryConfig): Promise<pg.QueryResult> {
    try {
      return await this.client.query(query);
    } catch (error) {
      if (mustDiscard(error)) this.isBroken = true;
      throw this.pool.translate(error);
    }
  }
}
