/**
 * Calls: one service asks another and waits. In one process that is a function call, between processes a request; the caller cannot
 * tell, because both go through JSON, schemas, a deadline and the same errors.
 */
import type { z } from "zod";
import type { Method } from "./method.ts";
import type { CallAnswer } from "./wire.ts";

/** How one call is made. */
export interface CallOptions {
  /** Longest wait in ms, all tries together, 1 to 60,000; default the method's. Never more than the work around it has left. */
  readonly deadlineMs?: number;
  /**
   * The same for calls that are to have one effect together, as a request that a user's browser repeats; 1 to 255 visible ASCII
   * characters. Default: made for this call.
   */
  readonly idempotencyKey?: string;
  /** Gives the call up; it then raises the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * Calls a method. Raises what the method declares as its errors, and by code:
 *
 * | code                                                | class            |                                                               |
 * | --------------------------------------------------- | ---------------- | ------------------------------------------------------------- |
 * | `CALL_INVALID`                                      | ConfigError      | input, answer or options do not fit                           |
 * | `CALL_DENIED`                                       | ConfigError      | the callee does not take this process for one of its app      |
 * | `CALL_UNKNOWN`                                      | UnsupportedError | nobody serves it                                              |
 * | `CALL_TIMEOUT`                                      | UnavailableError | not answered in time                                          |
 * | `CALL_UNREACHABLE`                                  | UnavailableError | no connection, or lost before the answer                      |
 * | `CALL_REFUSED`                                      | UnavailableError | not begun: the callee fails or is full; may be called again   |
 * | `CALL_FAILED`                                       | UnavailableError | the method raised something that is nobody else's business    |
 * | others, such as `POOL_EXHAUSTED`                    | as raised        | but for ConfigErrors, which are `CALL_FAILED`                 |
 */
export type Call = <I extends z.ZodType, O extends z.ZodType>(
  method: Method<I, O>,
  input: z.input<I>,
  options?: CallOptions,
) => Promise<z.output<O>>;

/** One call on its way out of the process. */
export interface OutgoingCall {
  readonly method: Method;
  readonly text: string;
  /** In monotonic ms of the system's clock. */
  readonly deadlineAt: number;
  readonly idempotencyKey: string;
  readonly traceparent: string;
  /** What the callee's reads have to see; see `call-reads.ts`. */
  readonly reads: string | undefined;
  /** Aborted at the deadline, with `CALL_TIMEOUT`, or when the caller gives up. */
  readonly signal: AbortSignal;
}

/** What came back. */
export interface CallReply {
  readonly answer: CallAnswer;
  readonly reads: string | undefined;
}

/** The port: a way to one address of a service. Connections are bounded by whoever uses it. */
export interface CallDriver {
  /** For messages. */
  readonly address: string;
  /**
   * Sends a call once, with the time it has left. Raises {@link CallNotAnswered} when there is no answer, or the signal's reason.
   */
  send(call: OutgoingCall, remainingMs: number): Promise<CallReply>;
  close(): Promise<void>;
}

/** One try came to nothing. */
export class CallNotAnswered extends Error {
  override readonly name = "CallNotAnswered";
  /** "none": the method has not begun, for sure; "unknown": it may have. */
  readonly reach: "none" | "unknown";
  readonly reason: "unreachable" | "refused" | "denied" | "unknown";

  constructor(
    message: string,
    details: {
      readonly reach: "none" | "unknown";
      readonly reason: CallNotAnswered["reason"];
      readonly cause?: unknown;
    },
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.reach = details.reach;
    this.reason = details.reason;
  }
}
