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
import { isReadOnlyRefusal, mustDiscard } from "./postgres-errors.ts";
import type { LeaderOptions } from "./postgres-failover.ts";
import { BoundedPool, type PostgresAddress, type PostgresPoolOptions, pgQuery } from "./postgres-pool.ts";

export type { LeaderOptions, PostgresAddress, PostgresPoolOptions };

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
  const { log = silentLogger } = options;
  const pool = new BoundedPool({ ...options, log, pool: options.pool ?? {} });
  let aside: BoundedPool | undefined;
  const driver = new PooledDriver(pool);
  const kysely = new Kysely<unknown>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => driver,
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  });
  return {
    name: options.name,
    kysely,
    driver,
    query: (name, sql, values, canRepeat) => pool.query(name, sql, values, canRepeat),
    ask(name, sql, values) {
      aside ??= new BoundedPool({ ...options, log, pool: { ...options.pool, connectionsMax: 1 }, beside: pool });
      return aside.query(name, sql, values, true);
    },
    beforeUse(check) {
      pool.beforeUse = check;
    },
    named: (compiled, name, values) => ({ ...compiled, parameters: values, ...(pool.isPreparing ? { name } : {}) }),
    stats: () => pool.stats(),
    async close() {
      await kysely.destroy();
      // Kysely destroys only a driver that it used.
      await Promise.all([pool.end(), aside?.end()]);
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
    const deadlineAt = this.pool.deadline();
    const client = await this.pool.acquire(deadlineAt);
    let connection = this.connections.get(client);
    if (connection === undefined) {
      connection = new PooledConnection(client, this.pool);
      this.connections.set(client, connection);
    }
    connection.deadlineAt = deadlineAt;
    return connection;
  }

  async beginTransaction(
    connection: PooledConnection,
    settings: { readonly isolationLevel?: string; readonly accessMode?: string },
  ): Promise<void> {
    const isolation = settings.isolationLevel === undefined ? "" : ` isolation level ${settings.isolationLevel}`;
    const access = settings.accessMode === undefined ? "" : ` ${settings.accessMode}`;
    await connection.begin(`begin${isolation}${access}`, settings.accessMode === "read only");
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
  /** Until when its first statement may wait for a leader; undefined: not at all. */
  deadlineAt: number | undefined;
  /** None after the search for a leader was given up. */
  private client: pg.PoolClient | undefined;
  private readonly pool: BoundedPool;
  private isBroken = false;
  private isReadOnly = false;

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

  /** Begins on a server that leads; nothing is lost by beginning again. */
  async begin(sql: string, isReadOnly: boolean): Promise<void> {
    if (!this.pool.hasFailover) await this.send({ text: sql });
    else await this.send({ text: `${sql}; show in_hot_standby` }, true);
    this.isReadOnly = isReadOnly;
  }

  async command(sql: string): Promise<string> {
    return (await this.send({ text: sql })).command;
  }

  discard(): void {
    this.isBroken = true;
  }

  release(): void {
    this.client?.release(this.isBroken);
    this.isReadOnly = false;
  }

  /** The first statement since the connection was taken may be sent again on another one, if it was not carried out. */
  private async send(query: pg.QueryConfig, canRepeat = false): Promise<pg.QueryResult> {
    const { deadlineAt } = this;
    this.deadlineAt = undefined;
    for (;;) {
      try {
        return await this.ask(query);
      } catch (error) {
        // Where the statement was run says more than the socket's callback.
        if (error instanceof Error) Error.captureStackTrace(error);
        if (mustDiscard(error) && !(this.isReadOnly && isReadOnlyRefusal(error))) this.isBroken = true;
        if (!this.isBroken || !(await this.pool.isRecovered(error, "query", { canRepeat, deadlineAt }))) {
          throw this.isReadOnly && isReadOnlyRefusal(error) ? error : this.pool.translate(error);
        }
        await this.reconnect(deadlineAt);
      }
    }
  }

  private async ask(query: pg.QueryConfig): Promise<pg.QueryResult> {
    if (this.client === undefined) throw new Error("Connection terminated: the connection was given up.");
    const answer = await this.answerOf(this.client, query);
    if (!Array.isArray(answer)) return answer;
    // Two statements were sent: a beginning, and whether the server leads.
    const [begun, standby] = answer as unknown as [pg.QueryResult, pg.QueryResult];
    if ((standby.rows[0] as { in_hot_standby?: string } | undefined)?.in_hot_standby !== "on") return begun;
    throw Object.assign(new Error("the server follows another one now"), { code: "25006" });
  }

  private answerOf(
    client: pg.PoolClient,
    { name, text, values }: pg.QueryConfig,
  ): Promise<pg.QueryResult | pg.QueryResult[]> {
    return new Promise((resolve, reject) => {
      client.query(
        pgQuery(name, text, values, (error, result) =>
          error == null ? resolve(result as pg.QueryResult) : reject(error),
        ),
      );
    });
  }

  /** The old client is given up first, so that the pool has room. */
  private async reconnect(deadlineAt: number | undefined): Promise<void> {
    this.client?.release(true);
    this.client = undefined;
    this.client = await this.pool.acquire(deadlineAt);
    this.isBroken = false;
  }
}
