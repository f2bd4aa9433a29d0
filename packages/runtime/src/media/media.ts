/**
 * What image and video work share: the files they give, and the errors they raise.
 *
 * A job that meets `UnsupportedError` (`MEDIA_UNREADABLE`, `MEDIA_LIMIT_EXCEEDED`) should give up: the same input fails
 * again. `UnavailableError` (`MEDIA_TIMEOUT`, `MEDIA_FAILED`, `MEDIA_TOOL_MISSING`, `OVERLOADED`) is worth a later retry.
 */
import { RungsError, UnavailableError, UnsupportedError } from "../kernel/errors.ts";

/** One file made from an upload, in a temporary folder. */
export interface MediaFile {
  /** Absolute path; gone after {@link MediaOutput.remove}. */
  readonly path: string;
  readonly contentType: string;
  readonly sizeBytes: number;
  readonly widthPx: number;
  readonly heightPx: number;
}

/** Files in a temporary folder of their own, the caller's until removed. */
export interface MediaOutput<Files extends readonly MediaFile[]> {
  readonly files: Files;
  /** Deletes the files and their folder; call it once they are stored elsewhere, in a `finally`. Never fails twice. */
  remove(): Promise<void>;
}

/** Whether an error says that the same input will fail again, so that a job should not be retried. */
export function isPermanentMediaError(error: unknown): boolean {
  return error instanceof RungsError && (error.code === "MEDIA_UNREADABLE" || error.code === "MEDIA_LIMIT_EXCEEDED");
}

/** The input is not a file of a supported kind, or is damaged. */
export function mediaUnreadable(reason: string, cause?: unknown): UnsupportedError {
  return new UnsupportedError("MEDIA_UNREADABLE", `The file cannot be read: ${reason}.`, { cause });
}

/** The input, or the work it causes, is larger than allowed. */
export function mediaLimitExceeded(what: string, observed: string, limit: string): UnsupportedError {
  return new UnsupportedError(
    "MEDIA_LIMIT_EXCEEDED",
    `The file exceeds the limit on ${what}: ${observed}; limit ${limit}.`,
  );
}

/** The work took longer than allowed, perhaps for load. */
export function mediaTimeout(what: string, limitMs: number, cause?: unknown): UnavailableError {
  const message = `${what} was not done within ${limitMs} ms and was broken off. Try again later.`;
  return new UnavailableError("MEDIA_TIMEOUT", message, { canRetry: true, cause });
}

/** The machine failed, not the input: disk full, out of memory, process killed. */
export function mediaFailed(reason: string, cause?: unknown): UnavailableError {
  return new UnavailableError("MEDIA_FAILED", `${reason}. Try again later.`, { canRetry: true, cause });
}
