/** The caller's side: deadline, key and trace of a call, its way to whoever serves the method, and what comes back. */
import type { z } from "zod";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError, RungsError } from "../kernel/errors.ts";
import { type Random, systemRandom, uuidV7 } from "../kernel/random.ts";
import type { Call, CallOptions, CallReply, OutgoingCall } from "./call.ts";
import { startLimit, unlessAborted } from "./call-limit.ts";
import { type CallReads, plainReads } from "./call-reads.ts";
import { callScope } from "./call-scope.ts";
import { CallStats } from "./call-stats.ts";
import type { CallTarget } from "./call-target.ts";
import { callBytesMax, checkDeadline, type Method, schemaProblems } from "./method.ts";
import { pooledRandom } from "./pooled-random.ts";
import { outcomeOf, type ServedMethods } from "./served-methods.ts";
import { newTraceparent } from "./trace-context.ts";
import { callTimeout, errorOf, noTimeLeft, parsedText, textOf } from "./wire.ts";

export interface CallsOptions<C> {
  /** What this process serves. */
  readonly served: ServedMethods<C>;
  /** What its methods are given beside the input. */
  readonly context: () => C;
  /** Where services of other processes are, by the service's name; all others are asked for here. */
  readonly targets?: ReadonlyMap<string, CallTarget>;
  /** What this process calls itself to those it calls. */
  readonly caller: string;
  readonly stats?: CallStats;
  readonly reads?: CallReads;
  readonly clock?: Clock;
  readonly random?: Random;
}

const keyForm = /^[\x21-\x7e]{1,255}$/;

/** Makes the function that calls. */
export function createCalls<C>(options: CallsOptions<C>): Call {
  const { served, context, targets = new Map(), caller } = options;
  const { stats = new CallStats(), reads = plainReads, clock = systemClock } = options;
  const random = pooledRandom(options.random ?? systemRandom);

  /** The time there is in all, and for whose sake. */
  function begin(method: Method, input: unknown, { deadlineMs = method.deadlineMs, idempotencyKey }: CallOptions) {
    const scope = callScope();
    const now = clock.monotonic();
    const givenMs = Math.min(checkDeadline(deadlineMs, method.name), (scope?.deadlineAt ?? Infinity) - now);
    if (givenMs <= 0) throw noTimeLeft(method);
    if (idempotencyKey !== undefined && !keyForm.test(idempotencyKey)) {
      throw invalid(method, "idempotencyKey must be 1 to 255 visible ASCII characters");
    }
    const traceparent = scope?.traceparent ?? newTraceparent(random);
    if (scope !== undefined) scope.traceparent = traceparent;
    const key = idempotencyKey ?? uuidV7(clock, random);
    return { text: inputText(method, input), givenMs, deadlineAt: now + givenMs, idempotencyKey: key, traceparent };
  }

  async function exchange(call: OutgoingCall, givenMs: number): Promise<CallReply> {
    const { method, signal } = call;
    const target = targets.get(method.service);
    if (target === undefined) {
      const { text, idempotencyKey, traceparent } = call;
      const incoming = { name: method.name, text, givenMs, idempotencyKey, traceparent, caller, signal };
      const answer = await served.answer(incoming, context());
      signal.throwIfAborted();
      return { answer, reads: undefined };
    }
    const note = await unlessAborted(reads.carry(), signal);
    const reply = await target.send({ ...call, reads: note });
    if (reply.reads !== undefined) await reads.merge(reply.reads);
    return reply;
  }

  return async <I extends z.ZodType, O extends z.ZodType>(
    method: Method<I, O>,
    input: z.input<I>,
    callOptions: CallOptions = {},
  ): Promise<z.output<O>> => {
    callOptions.signal?.throwIfAborted();
    const since = clock.monotonic();
    let outcome = "given up";
    try {
      const { givenMs, ...begun } = begin(method, input, callOptions);
      const limit = startLimit({ givenMs, late: () => callTimeout(method, givenMs), given: callOptions.signal });
      try {
        const { answer } = await exchange({ ...begun, method, reads: undefined, signal: limit.signal }, givenMs);
        outcome = outcomeOf(answer);
        if (!answer.isOk) throw errorOf(answer.error, method);
        return outputOf(method, answer.text);
      } finally {
        limit.end();
      }
    } catch (error) {
      // A declared one may have a code of its own.
      if (outcome !== "declared" && error instanceof RungsError) outcome = error.code;
      throw error;
    } finally {
      stats.note(method.name, outcome, clock.monotonic() - since);
    }
  };
}

function inputText(method: Method, input: unknown): string {
  let text: string;
  try {
    text = textOf(input);
  } catch (error) {
    throw invalid(method, "its input has no form as JSON", error);
  }
  const bytes = Buffer.byteLength(text);
  if (bytes <= callBytesMax) return text;
  throw invalid(method, `its input takes ${bytes} bytes; limit ${callBytesMax}. Store the data and send its id`);
}

/** The caller's own schema has the last word: a newer callee may say more, and must not say less. */
function outputOf<O extends z.ZodType>(method: Method<z.ZodType, O>, text: string): z.output<O> {
  let value: unknown;
  try {
    value = parsedText(text);
  } catch (error) {
    throw invalid(method, "its answer is no JSON", error);
  }
  const parsed = method.output.safeParse(value);
  if (parsed.success) return parsed.data;
  throw invalid(method, `its answer does not fit the schema of the caller: ${schemaProblems(parsed.error)}`);
}

function invalid(method: Method, problem: string, cause?: unknown): ConfigError {
  return new ConfigError("CALL_INVALID", `${method.name}: ${problem}.`, { cause });
}
