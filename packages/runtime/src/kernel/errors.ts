/**
 * The errors Rungs raises, in four classes by what the caller can do about them:
 *
 * - {@link ConfigError}: the setup is wrong; a person has to change it.
 * - {@link UnavailableError}: a component did not answer or refused for load; `canRetry` says whether the same call may succeed.
 * - {@link ConflictError}: another writer was first; re-read and decide.
 * - {@link UnsupportedError}: this driver or engine cannot do that, here or at all.
 *
 * Every error carries a closed `code`. Messages say what failed, on what, observed against limit, and what to do next;
 * they never hold a secret.
 */

/** The closed list of error codes. One meaning each; codes are never reused. */
export type ErrorCode =
  // configuration
  | "CONFIG_INVALID"
  | "CONFIG_FILE_UNREADABLE"
  | "SECRET_MISSING"
  | "PLATFORM_UNSUPPORTED"
  | "PACKAGE_MISSING"
  | "DATA_DIRECTORY_IN_USE"
  | "DATA_DIRECTORY_INVALID"
  | "MIGRATION_FAILED"
  | "SHARD_KEY_MISSING"
  | "SHARD_KEY_MISMATCH"
  | "MERGE_INVALID"
  | "STATEMENT_NAME_TAKEN"
  | "TABLE_UNDECLARED"
  | "TABLE_ELSEWHERE"
  | "EVENT_INVALID"
  | "HANDLER_UNKNOWN"
  | "STORAGE_KEY_INVALID"
  | "STORAGE_REFUSED"
  | "CDN_REFUSED"
  | "CALL_INVALID"
  | "CALL_DENIED"
  // availability
  | "DATABASE_UNREACHABLE"
  | "DATABASE_START_FAILED"
  | "REDIS_UNREACHABLE"
  | "SESSION_STORE_UNREACHABLE"
  | "SERVER_START_FAILED"
  | "REGION_REFUSED"
  | "POOL_EXHAUSTED"
  | "STATEMENT_TIMEOUT"
  | "LOCK_TIMEOUT"
  | "SHARD_MOVED"
  | "SHARD_LEASE_EXPIRED"
  | "SHARD_TIMEOUT"
  | "BROKER_UNREACHABLE"
  | "BROKER_UNROUTABLE"
  | "OUTBOX_FULL"
  | "CALL_TIMEOUT"
  | "CALL_UNREACHABLE"
  | "CALL_REFUSED"
  | "CALL_FAILED"
  | "REGION_UNREACHABLE"
  | "CDN_UNREACHABLE"
  | "CACHE_LOAD_FAILED"
  | "CACHE_INVALIDATION_DELAYED"
  | "CACHE_STORE_UNREACHABLE"
  | "OVERLOADED"
  | "SHUTTING_DOWN"
  | "MEDIA_TOOL_MISSING"
  | "MEDIA_TIMEOUT"
  | "MEDIA_FAILED"
  | "STORAGE_FAILED"
  // conflicts
  | "NAME_TAKEN"
  | "SESSION_REVOKED"
  | "LEASE_LOST"
  | "PLACEMENT_OVERTAKEN"
  | "IDEMPOTENCY_KEY_UNSETTLED"
  | "HANDLER_AT_WORK"
  | "REPLAY_REPEATS"
  // requests turned away
  | "SESSION_REQUIRED"
  | "CSRF_REFUSED"
  | "IDEMPOTENCY_KEY_MISSING"
  | "IDEMPOTENCY_KEY_INVALID"
  | "IDEMPOTENCY_KEY_REUSED"
  | "UPLOAD_INVALID"
  | "UPLOAD_TIMEOUT"
  | "UPLOAD_LIMIT_EXCEEDED"
  | "UPLOAD_TYPE_REFUSED"
  // unsupported
  | "MEDIA_UNREADABLE"
  | "MEDIA_LIMIT_EXCEEDED"
  | "STORAGE_LIMIT_EXCEEDED"
  | "STORAGE_RANGE_INVALID"
  | "SESSION_DATA_TOO_LARGE"
  | "CALL_UNKNOWN"
  | "CAPABILITY_MISSING";

/** Options every Rungs error takes: the error that led to it, kept as `cause`. */
export interface ErrorDetails {
  readonly cause?: unknown;
}

/** Base class of all errors raised by Rungs; match on `code`, not on the message. */
export class RungsError extends Error {
  override readonly name: string = "RungsError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
  }
}

/** The setup is wrong and a person has to change it; retrying cannot help. */
export class ConfigError extends RungsError {
  override readonly name = "ConfigError";
}

/** A component did not answer in time, or refused for load. */
export class UnavailableError extends RungsError {
  override readonly name = "UnavailableError";
  /** True when the same call, made again later, may succeed and cannot have taken effect already. */
  readonly canRetry: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails & { readonly canRetry: boolean }) {
    super(code, message, details);
    this.canRetry = details.canRetry;
  }
}

/** Another writer was first, or the thing changed meanwhile; re-read and decide. */
export class ConflictError extends RungsError {
  override readonly name = "ConflictError";
}

/** The driver or engine in use cannot do what was asked. */
export class UnsupportedError extends RungsError {
  override readonly name = "UnsupportedError";
}
