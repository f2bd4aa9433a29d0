/** A pg pool with a bound on callers that wait, and errors in Rungs' classes. */
import pg from "pg";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { PoolStats } from "../database.ts";
import { type ReadContext, readContext } from "../replication/read-context.ts";
import {
  isConnectionLoss,
  isNotExecuted,
  isReadOnlyRefusal,
  isStalePlan,
  mustDiscard,
  translate,
} from "./postgres-errors.ts";
import { LeaderKeeper, type LeaderOptions } from "./postgres-failover.ts";
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
  /**
   * The address leads to the present leader of several servers: statements that were not carried out wait for one. Default:
   * a single server, whose loss is told at once.
   */
  readonly leader?: LeaderOptions;
}

/** A silent server is given up this long after it should itself have cancelled the statement. */
const silenceMarginMs = 5_000;

/** How long a statement may wait for a leader, and after which errors. */
interface Patience {
  readonly canRepeat: boolean;
  /** The unit of work it belongs to, whose deadline is kept. */
  readonly context: ReadContext | undefined;
  /** Set by the first failure. */
  readonly deadlineAt: number | undefined;
}

/** How often the connection beside a leader's pool is made anew, and so whether it still leads is found out. */
const leaderCheckSeconds = 5;

/** Connections to one server. */
export class BoundedPool {
  readonly name: string;
  readonly isPreparing: boolean;
  readonly acquireTimeoutMs: number;
  readonly statementTimeoutMs: number;
  /** Waited for by each new connection. */
  beforeUse: (() => Promise<void>) | undefined;
  private readonly pool: pg.Pool;
  private readonly waitersMax: number;
  private readonly keeper: LeaderKeeper | undefined;
  private ended: Promise<void> | undefined;

  constructor(options: {
    readonly name: string;
    readonly address: PostgresAddress;
    readonly log: Logger;
    readonly pool: PostgresPoolOptions;
    /** A pool to the same leader, with which it shares what is known of it. */
    readonly beside?: BoundedPool;
  }) {
    const { address, name, log } = options;
    const {
      connectionsMax = 20,
      acquireTimeoutMs = 2_000,
      waitersMax = 1_000,
      statementTimeoutMs = 10_000,
      preparedStatements = true,
      leader,
    } = options.pool;
    this.name = name;
    this.isPreparing = preparedStatements;
    this.acquireTimeoutMs = acquireTimeoutMs;
    this.waitersMax = waitersMax;
    this.statementTimeoutMs = statementTimeoutMs;
    const target = "url" in address ? { connectionString: address.url } : address;
    refuseUnreadable(target, name);
    const config: pg.ClientConfig = {
      ...target,
      // Without keep-alive a silently dead peer holds its connection until the kernel gives up, minutes later.
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      statement_timeout: statementTimeoutMs === 0 ? false : statementTimeoutMs,
      // A server that hangs cannot cancel anything; this one is counted here.
      ...(statementTimeoutMs === 0 ? {} : { query_timeout: statementTimeoutMs + silenceMarginMs }),
      application_name: `rungs ${name}`,
      types: postgresTypes,
    };
    this.keeper =
      options.beside === undefined
        ? leader && new LeaderKeeper({ name, config, log, leader, waitersMax })
        : options.beside.keeper;
    const { keeper } = this;
    this.pool = new pg.Pool({
      ...config,
      max: connectionsMax,
      connectionTimeoutMillis: acquireTimeoutMs,
      idleTimeoutMillis: 30_000,
      // Where the address leads now is seen by new connections only: an old leader may live on behind those there are.
      ...(keeper === undefined || options.beside === undefined ? {} : { maxLifetimeSeconds: leaderCheckSeconds }),
      onConnect: async (client) => {
        await keeper?.verify(client, acquireTimeoutMs);
        await this.beforeUse?.();
      },
    });
    keeper?.watch(this.pool);
    // A connection may also break while it is checked out and between two statements; pg then raises the error on the
    // client itself. The next statement on it fails and reports it.
    this.pool.on("connect", (client) => client.on("error", () => {}));
    // An idle connection that breaks is dropped by the pool; without a listener the process would die of it.
    this.pool.on("error", (error) => log.warn({ error, shard: name }, "an idle database connection was lost"));
  }

  /** Whether the server is one of several, of which another may lead tomorrow. */
  get hasFailover(): boolean {
    return this.keeper !== undefined;
  }

  /**
   * Not by `pg.Pool.query`, which closes the connection after any error, be it a duplicate key. With callbacks, because
   * each promise on the way costs: together a twentieth of a short query's CPU time (benchmarks/database-overhead.ts).
   *
   * `canRepeat`: the statement only reads, and may run again where there is a leader to wait for.
   */
  query<R>(name: string | undefined, sql: string, values: unknown[], canRepeat = false): Promise<R[]> {
    const { keeper } = this;
    if (keeper === undefined) return this.send(name, sql, values);
    // Of the caller: in pg's callbacks it may be another's.
    const patience = { canRepeat, context: readContext(), deadlineAt: undefined };
    return keeper.isSearching ? this.afterSearch(name, sql, values, patience) : this.send(name, sql, values, patience);
  }

  private send<R>(name: string | undefined, sql: string, values: unknown[], patience?: Patience): Promise<R[]> {
    if (this.isCrowded()) return Promise.reject(this.crowded());
    const prepared = this.isPreparing ? name : undefined;
    return new Promise((resolve, reject) => {
      this.pool.connect((connectError, client, release) => {
        if (client === undefined) {
          if (patience === undefined) reject(translate(connectError, "connect", this));
          else resolve(this.afterFailure(connectError, "connect", { name, sql, values, patience }));
          return;
        }
        if (this.keeper?.isStale(client)) {
          release(true);
          resolve(this.send(name, sql, values, patience));
          return;
        }
        const done = (error: unknown, result?: pg.QueryResult) => {
          release(error != null && mustDiscard(error));
          if (error == null) resolve(result?.rows as R[]);
          else if (isStalePlan(error)) resolve(this.send(undefined, sql, values, patience));
          else if (patience === undefined) reject(this.translate(error));
          else resolve(this.afterFailure(error, "query", { name, sql, values, patience }));
        };
        try {
          client.query(pgQuery(prepared, sql, values, done));
        } catch (error) {
          done(error);
        }
      });
    });
  }

  /** A connection, waited for through a fail-over. */
  async acquire(deadlineAt = this.deadline()): Promise<pg.PoolClient> {
    if (this.keeper?.isSearching) await this.keeper.waitForLeader(deadlineAt as number);
    if (this.isCrowded()) throw this.crowded();
    let client: pg.PoolClient;
    try {
      client = await this.pool.connect();
    } catch (error) {
      if (await this.isRecovered(error, "connect", { canRepeat: true, deadlineAt })) return this.acquire(deadlineAt);
      throw translate(error, "connect", this);
    }
    if (!this.keeper?.isStale(client)) return client;
    client.release(true);
    return this.acquire(deadlineAt);
  }

  /** Until when something that begins now may wait for a leader; undefined where there is none to wait for. */
  deadline(): number | undefined {
    return this.keeper?.deadline(readContext());
  }

  /** Waits, after an error that allows it, until there is a leader to repeat the statement on. */
  async isRecovered(
    error: unknown,
    phase: "connect" | "query",
    { canRepeat, deadlineAt }: { readonly canRepeat: boolean; readonly deadlineAt: number | undefined },
  ): Promise<boolean> {
    if (this.keeper === undefined || deadlineAt === undefined) return false;
    if (isReadOnlyRefusal(error)) this.keeper.refused();
    if (!isNotExecuted(error, phase) && !(canRepeat && isConnectionLoss(error))) return false;
    return this.keeper.waitForLeader(deadlineAt);
  }

  private async afterFailure<R>(
    error: unknown,
    phase: "connect" | "query",
    sent: {
      readonly name: string | undefined;
      readonly sql: string;
      readonly values: unknown[];
      readonly patience: Patience;
    },
  ): Promise<R[]> {
    const { name, sql, values, patience } = sent;
    const { canRepeat, context } = patience;
    const deadlineAt = patience.deadlineAt ?? this.keeper?.deadline(context);
    if (!(await this.isRecovered(error, phase, { canRepeat, deadlineAt }))) throw translate(error, phase, this);
    return this.send(name, sql, values, { canRepeat, context, deadlineAt });
  }

  private async afterSearch<R>(
    name: string | undefined,
    sql: string,
    values: unknown[],
    { canRepeat, context }: Patience,
  ): Promise<R[]> {
    const deadlineAt = this.keeper?.deadline(context);
    if (deadlineAt !== undefined && (await this.keeper?.waitForLeader(deadlineAt))) {
      return this.send(name, sql, values, { canRepeat, context, deadlineAt });
    }
    throw new UnavailableError(
      "DATABASE_UNREACHABLE",
      `${this.name} has no leader that takes connections now. Nothing was sent to it.`,
      { canRetry: true },
    );
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
    this.keeper?.end();
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

/**
 * A statement as pg sends it. Begun with the text alone: what else pg is given it copies descriptor by descriptor, about a tenth of the
 * CPU time that a short query takes (benchmarks/replication.ts).
 */
export function pgQuery(
  name: string | undefined,
  sql: string,
  values: unknown[] | undefined,
  done: (error: unknown, result?: pg.QueryResult) => void,
): pg.Query {
  const query: pg.Query & { name?: string } = new pg.Query(sql, values, done);
  if (name !== undefined) query.name = name;
  return query;
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
