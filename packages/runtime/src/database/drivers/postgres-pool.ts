/** A pg pool with a bound on callers that wait, and errors in Rungs' classes. */
import pg from "pg";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { PoolStats } from "../database.ts";
import { isStalePlan, mustDiscard, translate } from "./postgres-errors.ts";
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

/** A silent server is given up this long after it should itself have cancelled the statement. */
const silenceMarginMs = 5_000;

/** Connections to one server. */
export class BoundedPool {
  readonly name: string;
  readonly isPreparing: boolean;
  readonly acquireTimeoutMs: number;
  readonly statementTimeoutMs: number;
  private readonly pool: pg.Pool;
  private readonly waitersMax: number;
  private ended: Promise<void> | undefined;

  constructor(options: {
    readonly name: string;
    readonly address: PostgresAddress;
    readonly log: Logger;
    readonly pool: PostgresPoolOptions;
  }) {
    const { address, name, log } = options;
    const {
      connectionsMax = 20,
      acquireTimeoutMs = 2_000,
      waitersMax = 1_000,
      statementTimeoutMs = 10_000,
      preparedStatements = true,
    } = options.pool;
    this.name = name;
    this.isPreparing = preparedStatements;
    this.acquireTimeoutMs = acquireTimeoutMs;
    this.waitersMax = waitersMax;
    this.statementTimeoutMs = statementTimeoutMs;
    const target = "url" in address ? { connectionString: address.url } : address;
    refuseUnreadable(target, name);
    this.pool = new pg.Pool({
      ...target,
      max: connectionsMax,
      connectionTimeoutMillis: acquireTimeoutMs,
      idleTimeoutMillis: 30_000,
      // Without keep-alive a silently dead peer holds its connection until the kernel gives up, minutes later.
      keepAlive: true,
      statement_timeout: statementTimeoutMs === 0 ? false : statementTimeoutMs,
      // A server that hangs cannot cancel anything; this one is counted here.
      ...(statementTimeoutMs === 0 ? {} : { query_timeout: statementTimeoutMs + silenceMarginMs }),
      application_name: `rungs ${name}`,
      types: postgresTypes,
    });
    // A connection may also break while it is checked out and between two statements; pg then raises the error on the
    // client itself. The next statement on it fails and reports it.
    this.pool.on("connect", (client) => client.on("error", () => {}));
    // An idle connection that breaks is dropped by the pool; without a listener the process would die of it.
    this.pool.on("error", (error) => log.warn({ error, shard: name }, "an idle database connection was lost"));
  }

  /**
   * Not by `pg.Pool.query`, which closes the connection after any error, be it a duplicate key. With callbacks, because
   * each promise on the way costs: together a twentieth of a short query's CPU time (benchmarks/database-overhead.ts).
   */
  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]> {
    if (this.isCrowded()) return Promise.reject(this.crowded());
    const query = name !== undefined && this.isPreparing ? { name, text: sql, values } : { text: sql, values };
    return new Promise((resolve, reject) => {
      this.pool.connect((connectError, client, release) => {
        if (client === undefined) {
          reject(translate(connectError, "connect", this));
          return;
        }
        const done = (error: unknown, result?: pg.QueryResult) => {
          release(error != null && mustDiscard(error));
          if (error == null) resolve(result?.rows as R[]);
          else if (isStalePlan(error)) resolve(this.query(undefined, sql, values));
          else reject(this.translate(error));
        };
        try {
          client.query(query, done);
        } catch (error) {
          done(error);
        }
      });
    });
  }

  async acquire(): Promise<pg.PoolClient> {
    if (this.isCrowded()) throw this.crowded();
    try {
      return await this.pool.connect();
    } catch (error) {
      throw translate(error, "connect", this);
    }
  }

  translate(error: unknown): unknown {
    return translate(error, "query", this);
  }

  stats(): PoolStats {
    return {
      shard: this.name,
      total: this.pool.totalCount,
      idle: this.pool.idleCount,
      waiting: this.pool.waitingCount,
    };
  }

  /** Closes all connections, those in use once they are given back. Safe to call twice. */
  end(): Promise<void> {
    this.ended ??= this.pool.end();
    return this.ended;
  }

  private isCrowded(): boolean {
    return this.pool.waitingCount >= this.waitersMax;
  }

  private crowded(): UnavailableError {
    return new UnavailableError(
      "POOL_EXHAUSTED",
      `All ${this.pool.totalCount} connections to ${this.name} are busy and ${this.pool.waitingCount} callers wait already; ` +
        `limit ${this.waitersMax}. Shed load, or raise database.pool.connectionsMax if the server has room.`,
      { canRetry: true },
    );
  }
}

/** The parser's own error holds the address, and so the password: it is not passed on. */
function refuseUnreadable(target: pg.ClientConfig, name: string): void {
  try {
    new pg.Client(target);
  } catch {
    throw new ConfigError(
      "CONFIG_INVALID",
      `The address of ${name} cannot be read. Write postgres://user:password@host:port/database, with special characters percent-encoded.`,
    );
  }
}
