/** What the errors of Redis mean to a caller. */
import { ConfigError, type RungsError, UnavailableError } from "../kernel/errors.ts";

/** The connection broke or fell silent; a command that was under way may have been carried out. */
export class LinkLostError extends Error {
  override readonly name: string = "LinkLostError";
}

/** There was no connection: the command was not sent. */
export class NotConnectedError extends LinkLostError {
  override readonly name = "NotConnectedError";
}

/** What to do about a failed command. */
export type Failure =
  /** The connection broke or fell silent: the command may have been carried out. */
  | "lost"
  /** The server says it is not the one to ask now, and did nothing. */
  | "elsewhere"
  /** The server cannot do it at the moment, and did nothing. */
  | "refused"
  /** The keys live on another node of the Cluster. */
  | "moved"
  | "ask"
  /** The script is not known to the server. */
  | "unknownScript"
  /** The command itself is wrong: a bug. */
  | "mistake";

const byPrefix: Readonly<Record<string, Failure>> = {
  READONLY: "elsewhere",
  MASTERDOWN: "elsewhere",
  LOADING: "elsewhere",
  TRYAGAIN: "elsewhere",
  CLUSTERDOWN: "elsewhere",
  NOREPLICAS: "refused",
  MISCONF: "refused",
  OOM: "refused",
  BUSY: "refused",
  NOAUTH: "refused",
  WRONGPASS: "refused",
  NOPERM: "refused",
  MOVED: "moved",
  ASK: "ask",
  NOSCRIPT: "unknownScript",
};

/** Judges an error by the first word of the reply, which Redis keeps stable. */
export function failureOf(error: unknown): Failure {
  if (error instanceof LinkLostError) return "lost";
  const word = /^[A-Z]+(?= )/.exec(messageOf(error))?.[0] ?? "";
  const known = byPrefix[word];
  if (known !== undefined) return known;
  return isReply(error) ? "mistake" : "lost";
}

/** The place that a MOVED or ASK names. */
export function redirectOf(error: unknown): { readonly slot: number; readonly address: string } | undefined {
  const [, slot, address] = /^(?:MOVED|ASK) (\d+) (\S+)/.exec(messageOf(error)) ?? [];
  return address === undefined ? undefined : { slot: Number(slot), address };
}

/** What the caller of the connection gets. `canRetry`: the command cannot have been carried out. */
export function unreachable(
  name: string,
  why: string,
  options: { readonly canRetry: boolean; readonly cause?: unknown },
) {
  return new UnavailableError("REDIS_UNREACHABLE", `${name} did not answer: ${why}. Try again.`, options);
}

/** The first connection failed in a way that waiting does not heal; undefined for any other error. */
export function setupProblem(name: string, error: unknown): RungsError | undefined {
  if (error instanceof ConfigError) return error;
  const word = /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH)/.exec(messageOf(error))?.[0];
  if (word === undefined) return undefined;
  const message = `${name} refused the login (${word}). Check user and password of its address, and what the user may do.`;
  return new ConfigError("CONFIG_INVALID", message, { cause: error });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The package's classes of replies; by name, since the package is loaded late. */
function isReply(error: unknown): boolean {
  return error instanceof Error && ["SimpleError", "BlobError", "ErrorReply"].includes(error.constructor.name);
}
