/** What pg throws, told apart: a full pool, a dead server, a slow statement and a wrong login call for different answers. */
import { ConfigError, RungsError, UnavailableError } from "../../kernel/errors.ts";
import type { PoolStats } from "../database.ts";

/**
 * SQLSTATEs after which a connection must not be used again: server going away, or no longer the leader. 08P01 is what PgBouncer gives
 * for all that it says itself, such as that it lost the server.
 */
const discardStates = new Set(["25006", "57P01", "57P02", "57P03", "08000", "08003", "08006", "08P01"]);

/** What the messages say of a pool. */
export interface PoolFacts {
  readonly name: string;
  readonly acquireTimeoutMs: number;
  readonly statementTimeoutMs: number;
  stats(): PoolStats;
}

/** Whether the connection must be closed instead of going back to the pool. */
export function mustDiscard(error: unknown): boolean {
  return isConnectionLoss(error) || isStalePlan(error);
}

/** Whether a prepared statement no longer fits its tables, after a migration; it did not run. */
export function isStalePlan(error: unknown): boolean {
  return codeOf(error) === "0A000" && (error as { routine?: unknown }).routine === "RevalidateCachedQuery";
}

/**
 * Whether the server did nothing, for sure, because it takes no writes or was never asked: the statement may be sent again
 * once there is a leader. A full pool and a wrong login are not among these: waiting does not help.
 */
export function isNotExecuted(error: unknown, phase: "connect" | "query"): boolean {
  if (phase === "connect") return isConnectionLoss(error);
  return isReadOnlyRefusal(error) || (error instanceof Error && error.message.endsWith("is not queryable"));
}

/** Whether the server refused to write: it is a follower, or the transaction is a read-only one. */
export function isReadOnlyRefusal(error: unknown): boolean {
  return codeOf(error) === "25006";
}

/** Turns what pg throws into Rungs' errors; errors that the caller's SQL caused pass as they are. */
export function translate(error: unknown, phase: "connect" | "query", pool: PoolFacts): unknown {
  if (error instanceof RungsError || !(error instanceof Error)) return error;
  const code = codeOf(error);
  // A dead host with several addresses gives an AggregateError without a message.
  const reason = error.message === "" ? code : error.message;
  if (error.message.startsWith("Cannot use a pool after calling end")) {
    return new UnavailableError("SHUTTING_DOWN", `The connections to ${pool.name} are closed.`, {
      canRetry: true,
      cause: error,
    });
  }
  if (error.message === "timeout exceeded when trying to connect") {
    const { total, idle, waiting } = pool.stats();
    return new UnavailableError(
      "POOL_EXHAUSTED",
      `No connection to ${pool.name} came free within ${pool.acquireTimeoutMs} ms; ${total} are open, ` +
        `${idle} idle, ${waiting} callers wait. Look for long transactions, or raise database.pool.connectionsMax.`,
      { canRetry: true, cause: error },
    );
  }
  if (code === "53300") {
    return new UnavailableError(
      "POOL_EXHAUSTED",
      `${pool.name} has no connection left to give: ${reason}. Lower database.pool.connectionsMax of the processes, or raise the server's max_connections.`,
      { canRetry: true, cause: error },
    );
  }
  // The words are the server's language; only the other cause of this code, a person's pg_cancel_backend, is told apart.
  if (code === "57014" && pool.statementTimeoutMs > 0 && !error.message.includes("user request")) {
    return new UnavailableError(
      "STATEMENT_TIMEOUT",
      `A statement on ${pool.name} ran longer than database.statementTimeoutMs, ${pool.statementTimeoutMs} ms, and was cancelled.`,
      { canRetry: true, cause: error },
    );
  }
  // The state of the guard's triggers, see `sharding/shard-guard.ts`. PostgreSQL rolls the statement or transaction back.
  if (code === "RG001") {
    return new UnavailableError("SHARD_MOVED", `${pool.name} refused a row: ${reason}`, {
      canRetry: true,
      cause: error,
    });
  }
  // The state of the queue tier's outbox, see `outbox-tables.ts` there. The message comes with the data, and both are rolled back.
  if (code === "RQ001") {
    return new UnavailableError(
      "OUTBOX_FULL",
      `${pool.name} takes no messages now: ${reason}, because the broker took too few of them. Nothing was changed. See to the broker, or raise queue.outboxBytesMax.`,
      { canRetry: true, cause: error },
    );
  }
  if (code === "28P01" || code === "28000" || code === "3D000") {
    return new ConfigError("CONFIG_INVALID", `${pool.name} refused the login or database name: ${reason}.`, {
      cause: error,
    });
  }
  if (phase === "query" && isReadOnlyRefusal(error)) {
    return new UnavailableError(
      "DATABASE_UNREACHABLE",
      `${pool.name} did not carry out a statement: ${reason}. Nothing was changed.`,
      { canRetry: true, cause: error },
    );
  }
  if (!isConnectionLoss(error)) return error;
  return phase === "connect"
    ? new UnavailableError("DATABASE_UNREACHABLE", `${pool.name} did not answer: ${reason}. Nothing was sent to it.`, {
        canRetry: true,
        cause: error,
      })
    : new UnavailableError(
        "DATABASE_UNREACHABLE",
        `${pool.name} did not answer: ${reason}. A write under way may or may not have been committed.`,
        { canRetry: false, cause: error },
      );
}

function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

/** Whether the connection broke, or the server is going away or does not lead. */
export function isConnectionLoss(error: unknown): boolean {
  const code = codeOf(error);
  if (code !== undefined && discardStates.has(code)) return true;
  if (/^E(CONN|PIPE|NOENT|HOSTUNREACH|NETUNREACH|TIMEDOUT|NOTFOUND|AI_)/.test(code ?? "")) return true;
  return (
    error instanceof Error &&
    /Connection terminated|connection error|connection is closed|Query read timeout|is not queryable|timeout expired/i.test(
      error.message,
    )
  );
}
