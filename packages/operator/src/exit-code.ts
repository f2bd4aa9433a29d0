/** What the exit code of `rungs` says; documented in docs/operating/running.md and printed by `rungs --help`. */
import { ConfigError, RungsError, UnavailableError, UnsupportedError } from "rungs";

/** One meaning each; a code is never reused. 130 and 143: stopped by Ctrl-C or SIGTERM before it was done. */
export const exitCode = {
  ok: 0,
  /** Something that was not foreseen; the only case that prints where it happened. */
  failed: 1,
  /** The command line, a setting or a file is wrong; the message says what to change. */
  usage: 2,
  /** What was named does not exist. */
  notFound: 3,
  /** A server or another part that is needed does not run or did not answer; the same command may work later. */
  unavailable: 4,
  interrupted: 130,
  terminated: 143,
} as const;

/** A command line that cannot be carried out as it was typed. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something was named that is not there. */
export class NotFoundError extends Error {
  override readonly name = "NotFoundError";
}

/** A problem that another process told, such as the launcher: foreseen there, and told on as it is. */
export class ToldError extends Error {
  override readonly name = "ToldError";
  readonly code: string;

  constructor({ code, message }: { readonly code: string; readonly message: string }) {
    super(message);
    this.code = code;
  }
}

/** A problem told to the user: its exit code, and the code that `--json` prints. */
export interface Problem {
  readonly exitCode: number;
  /** An error code of Rungs, "USAGE", "NOT_FOUND" or "FAILED". */
  readonly code: string;
  readonly message: string;
}

/** How an error is told. Only an unforeseen one shows its stack: whoever mends it needs the place. */
export function problemOf(error: unknown): Problem {
  if (error instanceof UsageError) return { exitCode: exitCode.usage, code: "USAGE", message: error.message };
  if (error instanceof NotFoundError) return { exitCode: exitCode.notFound, code: "NOT_FOUND", message: error.message };
  if (error instanceof ToldError) return { exitCode: codeOfTold(error), code: error.code, message: error.message };
  if (error instanceof RungsError) return { exitCode: codeOf(error), code: error.code, message: error.message };
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: exitCode.failed, code: "FAILED", message };
}

function codeOfTold({ code }: ToldError): number {
  if (code === "FAILED") return exitCode.failed;
  if (code === "NOT_FOUND") return exitCode.notFound;
  return code.startsWith("CONFIG") ? exitCode.usage : exitCode.unavailable;
}

function codeOf(error: RungsError): number {
  if (error instanceof ConfigError || error instanceof UnsupportedError) return exitCode.usage;
  return error instanceof UnavailableError ? exitCode.unavailable : exitCode.failed;
}
