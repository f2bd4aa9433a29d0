/**
 * Methods: what one service asks of another, and waits for. A method is data, declared beside its service and imported by callers
 * without the service's code.
 */
import type { z } from "zod";
import { ConfigError } from "../kernel/errors.ts";

/** How a method is declared. */
export interface MethodDefinition<I extends z.ZodType, O extends z.ZodType> {
  /** Of the input as JSON gives it. Fields that it does not know are dropped, so that a newer caller may send more. */
  readonly input: I;
  /** Of the answer as JSON gives it. Fields that it does not know are dropped on both sides. */
  readonly output: O;
  /** It changes nothing, so that it may be sent again whenever there was no answer. Default false. */
  readonly isSafe?: boolean;
  /**
   * It has one effect however often it comes with one idempotency key, so that it may be sent again whenever there was no answer: it
   * uses {@link ServedCall.idempotencyKey}. Default false.
   */
  readonly isIdempotent?: boolean;
  /** How long a caller waits that says nothing else, 1 to 60,000; default 2,000 ms. */
  readonly deadlineMs?: number;
  /** Errors that arrive at the caller as what they are, by the name they have on the way; see {@link callError}. Default none. */
  readonly errors?: Readonly<Record<string, DeclaredError>>;
}

/** A method. `I`, `O`: the schemas of input and answer. */
export interface Method<I extends z.ZodType = z.ZodType, O extends z.ZodType = z.ZodType>
  extends Required<MethodDefinition<I, O>> {
  /** "service.method". */
  readonly name: string;
  readonly service: string;
}

/** One call, as the method sees it. */
export interface ServedCall {
  /** Aborted when the time is up or nobody waits any more; pass it on to everything that waits. */
  readonly signal: AbortSignal;
  /** Time left in ms; calls made from within have no more than that by themselves. */
  remainingMs(): number;
  /** The caller's, or made for this call: the same at each of its tries. Rungs does nothing with it; see `rungs/idempotency`. */
  readonly idempotencyKey: string;
  /** The group of processes that calls, or the app where it has no groups. */
  readonly caller: string;
  /** Trace context (W3C, `traceparent`) for logs. */
  readonly traceparent: string;
}

/** A method and what answers it. `C`: what the app gives beside the input. */
export interface ServedMethod<C> {
  readonly method: Method;
  readonly run: (input: unknown, call: ServedCall, context: C) => Promise<unknown>;
}

/** A kind of error on its way from callee to caller. */
export interface DeclaredError {
  /** What is sent of it, as JSON takes it; undefined when it is none of these. */
  dataOf(error: unknown): unknown;
  /** The error again; undefined when the data is none of such an error. */
  errorOf(data: unknown): Error | undefined;
}

/** Longest time a caller waits. What takes longer is an event, and its outcome another. */
export const deadlineMsMax = 60_000;
const deadlineMsDefault = 2_000;
/** Input and answer, each, in bytes as JSON: what the web tier takes by default. */
export const callBytesMax = 1_048_576;

/**
 * Declares a method by "service.method", each of lower-case words. Raises `CONFIG_INVALID` for another name.
 *
 * @example
 * const quote = defineMethod("payments.quote", {
 *   input: z.object({ amount: z.int().positive() }),
 *   output: z.object({ fee: z.int(), total: z.int() }),
 *   isSafe: true,
 * });
 */
export function defineMethod<I extends z.ZodType, O extends z.ZodType>(
  name: string,
  definition: MethodDefinition<I, O>,
): Method<I, O> {
  const [service = ""] = name.split(".");
  if (!/^[a-z][a-z0-9_]{0,29}\.[a-z][a-z0-9_]{0,59}$/.test(name)) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `Method name "${name}" must be its service's name and its own, of a-z, 0-9 and _, with a dot between them: payments.quote.`,
    );
  }
  const { isSafe = false, isIdempotent = false, deadlineMs = deadlineMsDefault, errors = {} } = definition;
  return { ...definition, name, service, isSafe, isIdempotent, deadlineMs: checkDeadline(deadlineMs, name), errors };
}

/** Joins a method to what answers it, for `defineService({ methods: [...] })`. */
export function serve<I extends z.ZodType, O extends z.ZodType, C = unknown>(
  method: Method<I, O>,
  run: (input: z.output<I>, call: ServedCall, context: C) => Promise<z.input<O>>,
): ServedMethod<C> {
  return { method, run: run as ServedMethod<C>["run"] };
}

/**
 * Declares a class of errors for {@link MethodDefinition.errors}: `data` picks from the error what is sent, `make` makes it again
 * from that.
 *
 * @example
 * errors: { soldOut: callError(SoldOutError, z.object({ left: z.int() }), ({ left }) => new SoldOutError(left)) }
 */
export function callError<E extends Error, S extends z.ZodType>(
  type: abstract new (...parameters: never[]) => E,
  data: S,
  make: (data: z.output<S>) => E,
): DeclaredError {
  return {
    dataOf(error) {
      return error instanceof type ? data.safeParse(error).data : undefined;
    },
    errorOf(sent) {
      const parsed = data.safeParse(sent);
      return parsed.success ? make(parsed.data) : undefined;
    },
  };
}

/** Gives the time back; raises `CALL_INVALID` unless it is from 1 to {@link deadlineMsMax}. */
export function checkDeadline(deadlineMs: number, name: string): number {
  if (deadlineMs >= 1 && deadlineMs <= deadlineMsMax) return deadlineMs;
  throw new ConfigError(
    "CALL_INVALID",
    `${name}: deadlineMs is ${deadlineMs}; give 1 to ${deadlineMsMax}. What takes longer is for the queue.`,
  );
}

/** Names the fields and what is wrong with them, never their values: a message may hold a secret. */
export function schemaProblems(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join(".") || "value"}: ${issue.code}`).join(", ");
}
