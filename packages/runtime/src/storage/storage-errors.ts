/** The errors that every driver of the storage tier raises. */
import { ConfigError, RungsError, UnavailableError, UnsupportedError } from "../kernel/errors.ts";

/** The body is longer than its `put` allows. */
export function storageLimitExceeded(key: string, sizeBytesMax: number): UnsupportedError {
  return new UnsupportedError(
    "STORAGE_LIMIT_EXCEEDED",
    `The body for "${key}" is over ${sizeBytesMax} bytes, its limit.`,
  );
}

/** The range begins behind the object's end. */
export function storageRangeInvalid(key: string, start: number): UnsupportedError {
  return new UnsupportedError("STORAGE_RANGE_INVALID", `"${key}" has no byte ${start}.`);
}

/** The disk or the server failed, or did not answer. */
export function storageFailed(what: string, cause: unknown, canRetry = true): UnavailableError {
  const then = canRetry ? " Try again later." : "";
  return new UnavailableError("STORAGE_FAILED", `${what}.${then}`, { canRetry, cause });
}

/** The server does not let us: keys, rights, bucket. A person has to look. */
export function storageRefused(what: string, cause?: unknown): ConfigError {
  return new ConfigError("STORAGE_REFUSED", what, { cause });
}

/** Whether an error is this tier's own or the caller's abort, so that it goes on as it is. */
export function isFinal(error: unknown, signal: AbortSignal | undefined): boolean {
  return error instanceof RungsError || (signal?.aborted === true && error === signal.reason);
}
