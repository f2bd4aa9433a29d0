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
import { ConfigError, RungsError, UnavailableError } from "../../kernel/errors.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { PoolStats, ShardConnection } from "../database.ts";
import { postgresTypes } from "./postgres-types.ts";

/** Where a PostgreSQL server is. */
export type PostgresAddress =
  | { readonly url: string }
  | {
      readonly host: string;
      readonly port: number;
      readonly user: string;
      readonly database: string;
      readonly password?: string;
    };

/** Bounds of one pool. */
export interface PostgresPoolOptions {
  /** Connections held at most; default 20. */
  readonly connectionsMax?: number;
  /** How long a caller waits for a free connection; default 2,000 ms. */
  readonly acquireTimeoutMs?: number;
  /** Callers that may wait at once; default 1,000. One more is refused at once. */
  readonly waitersMax?: number;
  /** The server cancels a statement after this; default 10,000 ms. 0 turns it off. */
  readonly statementTimeoutMs?: number;
  /** Run statements as named prepared ones; default true. Turn off behind PgBouncer in transaction mode before 1.21. */
  readonly preparedStatements?: boolean;
}

/** Opens a pool to one server. No connection is made until the first query. */
export function openPostgres(options: {
  readonly name: string;
  readonly address: PostgresAddress;
  readonly pool?: PostgresPoolOptions;
  readonly log?: Logger;
}): ShardConnection {
  const pool = new BoundedPool(options);
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
    close: () => kysely.destroy(),
  };
}

/** SQLSTATEs after which a connection must not be used again: server going away, or no longer the leader. */
const discardStates = new Set(["25006", "57P01", "57P02", "57P03", "08000", "08003", "08006"]);

/** A pg pool with a bound on waiters and errors in Rungs' classes. */
class BoundedPool {
  readonly name: string;
  readonly isPreparing: boolean;
  private readonly pool: pg.Pool;
  private readonly acquireTimeoutMs: number;
  private readonly waitersMax: number;
  private readonly statementTimeoutMs: number;

  constructor(options: Parameters<typeof openPostgres>[0]) {
    const { address, name, log = silentLogger } = options;
    const {
      connectionsMax = 20,
      acquireTimeoutMs = 2_000,
      waitersMax = 1_000,
      statementTimeoutMs = 10_000,
      preparedStatements = true,
    } = options.pool ?? {};
    this.name = name;
    this.isPreparing = preparedStatements;
    this.acquireTimeoutMs = acquireTimeoutMs;
    this.waitersMax = waitersMax;
    this.statementTimeoutMs = statementTimeoutMs;
    this.pool = new pg.Pool({
      ...("url" in address ? { connectionString: address.url } : address),
      max: connectionsMax,
      connectionTimeoutMillis: acquireTimeoutMs,
      idleTimeoutMillis: 30_000,
      // Without keep-alive a silently dead peer holds its connection until the kernel gives up, minutes later.
      keepAlive: true,
      statement_timeout: statementTimeoutMs === 0 ? false : statementTimeoutMs,
      application_name: `rungs ${name}`,
      types: postgresTypes,
    });
    // A connection may also break while it is checked out and between two statements; pg then raises the error on the
    // client itself. The next statement on it fails and reports it.
    this.pool.on("connect", (client) => client.on("error", () => {}));
    // An idle connection that breaks is dropped by the pool; without a listener the process would die of it.
    this.pool.on("error", (error) => log.warn({ error, shard: name }, "an idle database connection was lost"));
  }

  async query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]> {
    this.refuseWhenCrowded();
    try {
      const text = { text: sql, values };
      const result = await this.pool.query(name !== undefined && this.isPreparing ? { ...text, name } : text);
      return result.rows as R[];
    } catch (error) {
      throw this.translate(error);
    }
  }

  async acquire(): Promise<pg.PoolClient> {
    this.refuseWhenCrowded();
    try {
      return await this.pool.connect();
    } catch (error) {
      throw this.translate(error);
    }
  }

  stats(): PoolStats {
    return {
      shard: this.name,
      total: this.pool.totalCount,
      idle: this.pool.idleCount,
      waiting: this.pool.waitingCount,
    };
  }

  end(): Promise<void> {
    return this.pool.end();
  }

  private refuseWhenCrowded(): void {
    if (this.pool.waitingCount < this.waitersMax) return;
    throw new UnavailableError(
      "POOL_EXHAUSTED",
      `All ${this.pool.totalCount} connections to ${this.name} are busy and ${this.pool.waitingCount} callers wait already; ` +
        `limit ${this.waitersMax}. Shed load, or raise database.pool.connectionsMax if the server has room.`,
      { canRetry: true },
    );
  }

  /** Turns what pg throws into Rungs' errors; errors that the caller's SQL caused pass as they are. */
  translate(error: unknown): unknown {
    if (error instanceof RungsError || !(error instanceof Error)) return error;
    const code = (error as { code?: unknown }).code;
    if (error.message === "timeout exceeded when trying to connect") {
      return new UnavailableError(
        "POOL_EXHAUSTED",
        `No connection to ${this.name} came free within ${this.acquireTimeoutMs} ms; ${this.pool.totalCount} are open, ` +
          `${this.pool.idleCount} idle, ${this.pool.waitingCount} callers wait. Look for long transactions, or raise database.pool.connectionsMax.`,
        { canRetry: true, cause: error },
      );
    }
    if (code === "57014" && error.message.includes("statement timeout")) {
      return new UnavailableError(
        "STATEMENT_TIMEOUT",
        `A statement on ${this.name} ran longer than database.statementTimeoutMs, ${this.statementTimeoutMs} ms, and was cancelled.`,
        { canRetry: true, cause: error },
      );
    }
    if (code === "28P01" || code === "28000" || code === "3D000") {
      return new ConfigError("CONFIG_INVALID", `${this.name} refused the login or database name: ${error.message}.`, {
        cause: error,
      });
    }
    if (isConnectionLoss(error, code)) {
      return new UnavailableError(
        "DATABASE_UNREACHABLE",
        `${this.name} did not answer: ${error.message}. A write under way may or may not have been committed.`,
        { canRetry: code === "ECONNREFUSED" || code === "ENOENT" || code === "57P03", cause: error },
      );
    }
    return error;
  }
}

function isConnectionLoss(error: Error, code: unknown): boolean {
  if (
    typeof code === "string" &&
    (discardStates.has(code) || /^E(CONN|PIPE|NOENT|HOSTUNREACH|TIMEDOUT|NOTFOUND)/.test(code))
  )
    return true;
  return /Connection terminated|Client has encountered a connection error|connection is closed/i.test(error.message);
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
    try {
      await connection.command("rollback");
    } catch (error) {
      connection.discard();
      throw error;
    }
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
      const code = (error as { code?: unknown }).code;
      if (error instanceof Error && isConnectionLoss(error, code)) this.isBroken = true;
      throw this.pool.translate(error);
    }
  }
}
