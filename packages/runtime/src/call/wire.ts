/**
 * What travels: inputs and answers as JSON, errors as what the caller can do about them. Calls within a process take the same way, so
 * that nothing works there that would not over the network.
 */
import { z } from "zod";
import {
  ConfigError,
  ConflictError,
  type ErrorCode,
  RungsError,
  UnavailableError,
  UnsupportedError,
} from "../kernel/errors.ts";
import type { Method } from "./method.ts";

const wireError = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("declared"), name: z.string().max(100), data: z.unknown() }),
  z.object({
    kind: z.enum(["unavailable", "conflict", "unsupported", "config"]),
    code: z.string().regex(/^[A-Z][A-Z0-9_]{1,63}$/),
    message: z.string().max(10_000),
    canRetry: z.boolean().optional(),
  }),
  z.object({ kind: z.literal("failed"), trace: z.string().max(64).optional() }),
]);

/** An error on its way. */
export type WireError = z.output<typeof wireError>;

/** An answer on its way. */
export type CallAnswer =
  | { readonly isOk: true; readonly text: string }
  | { readonly isOk: false; readonly error: WireError };

/** JSON of a value, empty for undefined. Raises a `TypeError` for what has none, such as cycles and bigints. */
export function textOf(value: unknown): string {
  return JSON.stringify(value) ?? "";
}

/** The value of such a text. Raises a `SyntaxError`. */
export function parsedText(text: string): unknown {
  return text === "" ? undefined : JSON.parse(text);
}

/**
 * An error that a method raised, as it is sent: declared ones as what they are, those that say something to whoever asked by code and
 * message; undefined for all others, whose messages are nobody's business.
 */
export function wireErrorOf(error: unknown, method: Method): WireError | undefined {
  for (const [name, declared] of Object.entries(method.errors)) {
    const data = declared.dataOf(error);
    if (data !== undefined) return { kind: "declared", name, data };
  }
  if (error instanceof UnavailableError) {
    // That one thing the method did may be repeated does not say that the method may.
    const canRetry = error.canRetry && method.isSafe;
    return { kind: "unavailable", code: error.code, message: error.message, canRetry };
  }
  if (!(error instanceof RungsError)) return undefined;
  const kind =
    error instanceof ConflictError ? "conflict" : error instanceof UnsupportedError ? "unsupported" : undefined;
  return kind && { kind, code: error.code, message: error.message };
}

/** A refusal that the side of the callee itself has to tell. */
export function refusal(kind: "unsupported" | "config", code: ErrorCode, message: string): WireError {
  return { kind, code, message };
}

/** An error as text. */
export function errorText(error: WireError): string {
  return JSON.stringify({ error });
}

/** The error in such a text; undefined when it is none. */
export function readErrorText(text: string): WireError | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return z.object({ error: wireError }).safeParse(value).data?.error;
}

/** The error for the caller. */
export function errorOf(sent: WireError, method: Method): Error {
  switch (sent.kind) {
    case "declared": {
      const declared = Object.hasOwn(method.errors, sent.name) ? method.errors[sent.name] : undefined;
      return declared?.errorOf(sent.data) ?? callFailed(method, undefined);
    }
    case "failed":
      return callFailed(method, sent.trace);
    case "unavailable":
      return new UnavailableError(sent.code as ErrorCode, sent.message, { canRetry: sent.canRetry ?? false });
    case "conflict":
      return new ConflictError(sent.code as ErrorCode, sent.message);
    case "unsupported":
      return new UnsupportedError(sent.code as ErrorCode, sent.message);
    case "config":
      return new ConfigError(sent.code as ErrorCode, sent.message);
  }
}

function callFailed(method: Method, trace: string | undefined): UnavailableError {
  const where = trace === undefined ? "" : ` under trace ${trace}`;
  return new UnavailableError(
    "CALL_FAILED",
    `${method.name} failed in its service, whose log has the reason${where}.`,
    { canRetry: method.isSafe },
  );
}

/** Nobody answered in time. */
export function callTimeout({ name, isSafe }: Pick<Method, "name" | "isSafe">, givenMs: number): UnavailableError {
  const hint = isSafe ? "" : " It may have taken effect: look before you call again.";
  const message = `${name} was not answered in the ${Math.max(0, Math.round(givenMs))} ms there were for it.${hint}`;
  return new UnavailableError("CALL_TIMEOUT", message, { canRetry: isSafe });
}

/** The work that wanted to call has none of its time left. */
export function noTimeLeft({ name }: Pick<Method, "name">): UnavailableError {
  const message = `${name} was not called: the request or call it was to be made for has no time left.`;
  return new UnavailableError("CALL_TIMEOUT", message, { canRetry: true });
}
