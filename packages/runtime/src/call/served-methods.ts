/**
 * The callee's side, the same for calls from this process and from others: the input is read from JSON by its schema, the method runs
 * within the time that is left, the answer goes through its schema and becomes JSON. Whatever happens becomes an answer; what nobody
 * was to know of is logged here and told to no one.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import { startLimit, unlessAborted } from "./call-limit.ts";
import { type CallReads, plainReads } from "./call-reads.ts";
import { type CallScope, inCallScope } from "./call-scope.ts";
import { CallStats } from "./call-stats.ts";
import { callBytesMax, type Method, type ServedCall, type ServedMethod, schemaProblems } from "./method.ts";
import { traceIdOf } from "./trace-context.ts";
import { type CallAnswer, callTimeout, parsedText, refusal, textOf, type WireError, wireErrorOf } from "./wire.ts";

/** A call that has arrived. */
export interface IncomingCall {
  /** "service.method". */
  readonly name: string;
  /** The input as JSON; empty for undefined. */
  readonly text: string;
  /** Time there is for it, in ms. */
  readonly givenMs: number;
  readonly idempotencyKey: string;
  readonly caller: string;
  readonly traceparent: string;
  /** Aborted when nobody waits any more. */
  readonly signal: AbortSignal;
}

/** The methods of this process. `C`: what the app gives them beside the input. */
export interface ServedMethods<C> {
  /** Answers a call from within the process. Never raises. */
  answer(call: IncomingCall, context: C): Promise<CallAnswer>;
  /** Answers a call from another process, whose reads are as new as its note says. Never raises. */
  answerAfar(
    call: IncomingCall & { readonly reads: string | undefined },
    context: C,
  ): Promise<{ readonly answer: CallAnswer; readonly reads: string | undefined }>;
}

export interface ServedMethodsOptions<C> {
  readonly methods: readonly ServedMethod<C>[];
  /** Where faults of methods are told; default nowhere. */
  readonly log?: Logger;
  readonly stats?: CallStats;
  readonly reads?: CallReads;
  readonly clock?: Clock;
}

/** Takes the methods of a process. Raises `CONFIG_INVALID` when two have one name. */
export function createServedMethods<C>(options: ServedMethodsOptions<C>): ServedMethods<C> {
  const { log = silentLogger, stats = new CallStats(), reads = plainReads, clock = systemClock } = options;
  const around = { log, clock };
  const byName = new Map<string, ServedMethod<C>>();
  for (const served of options.methods) {
    const { name } = served.method;
    if (byName.has(name)) {
      throw new ConfigError("CONFIG_INVALID", `Two methods are called ${name}; give one of them another name.`);
    }
    byName.set(name, served);
  }

  async function timed(call: IncomingCall, work: () => Promise<CallAnswer>): Promise<CallAnswer> {
    const since = clock.monotonic();
    const answer = await work();
    // Names that somebody made up are no series.
    const method = byName.has(call.name) ? call.name : "(unknown)";
    stats.note(method, outcomeOf(answer), clock.monotonic() - since);
    return answer;
  }

  return {
    answer: (call, context) =>
      timed(call, async () => {
        const served = byName.get(call.name);
        if (served === undefined) return { isOk: false, error: unknownMethod(call.name) };
        return reads.serveHere(served.method, () => answerOne(served, call, context, around));
      }),

    async answerAfar(call, context) {
      const served = byName.get(call.name);
      let note: string | undefined;
      const answer = await timed(call, async () => {
        if (served === undefined) return { isOk: false, error: unknownMethod(call.name) };
        try {
          const done = await reads.serve({ note: call.reads, isSafe: served.method.isSafe }, () =>
            answerOne(served, call, context, around),
          );
          note = done.note;
          return done.result;
        } catch (error) {
          // How far the databases had got could not be told: what cannot be noted is not answered, as of requests.
          return { isOk: false, error: failureOf(error, served.method, call, log) };
        }
      });
      return { answer, reads: note };
    },
  };
}

async function answerOne<C>(
  { method, run }: ServedMethod<C>,
  call: IncomingCall,
  context: C,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Promise<CallAnswer> {
  const input = readInput(call, method);
  if ("error" in input) return { isOk: false, error: input.error };
  const deadlineAt = clock.monotonic() + call.givenMs;
  const late = () => callTimeout(method, call.givenMs);
  const limit = startLimit({ givenMs: call.givenMs, late, given: call.signal });
  try {
    const served: ServedCall = {
      signal: limit.signal,
      remainingMs: () => Math.max(0, deadlineAt - clock.monotonic()),
      idempotencyKey: call.idempotencyKey,
      caller: call.caller,
      traceparent: call.traceparent,
    };
    const scope: CallScope = { deadlineAt, traceparent: call.traceparent };
    // One that goes on past its time is not over: what it calls then has no time left.
    const work = () =>
      inCallScope(scope, async () => run(input.value, served, context)).finally(() => {
        scope.isOver = true;
      });
    const result = await unlessAborted(work(), limit.signal);
    return { isOk: true, text: writeOutput(result, method) };
  } catch (error) {
    return { isOk: false, error: failureOf(error, method, call, log) };
  } finally {
    limit.end();
  }
}

function readInput(
  { text }: IncomingCall,
  method: Method,
): { readonly value: unknown } | { readonly error: WireError } {
  const invalid = (problem: string) => ({
    error: refusal("config", "CALL_INVALID", `The input of ${method.name} ${problem}.`),
  });
  let value: unknown;
  try {
    value = parsedText(text);
  } catch {
    return invalid("is no JSON");
  }
  const parsed = method.input.safeParse(value);
  return parsed.success ? { value: parsed.data } : invalid(`does not fit its schema: ${schemaProblems(parsed.error)}`);
}

/** Raises a plain error for an answer that the method should not have given: that is its own fault, and logged as such. */
function writeOutput(result: unknown, method: Method): string {
  const parsed = method.output.safeParse(result);
  if (!parsed.success) {
    throw new Error(`The answer of ${method.name} does not fit its schema: ${schemaProblems(parsed.error)}.`);
  }
  const text = textOf(parsed.data);
  const bytes = Buffer.byteLength(text);
  if (bytes <= callBytesMax) return text;
  throw new Error(`The answer of ${method.name} takes ${bytes} bytes; limit ${callBytesMax}. Give it in pages.`);
}

function failureOf(error: unknown, method: Method, call: IncomingCall, log: Logger): WireError {
  const known = wireErrorOf(error, method);
  if (known !== undefined) return known;
  // Whoever has gone is told nothing, and that a method ended because of it is nothing to look into.
  if (call.signal.aborted) return { kind: "failed" };
  const trace = traceIdOf(call.traceparent);
  log.error({ err: error, method: method.name, caller: call.caller, trace }, "a call failed");
  return { kind: "failed", trace };
}

function unknownMethod(name: string): WireError {
  return refusal(
    "unsupported",
    "CALL_UNKNOWN",
    `No method ${name} is served there. Roll out the service that has it before what calls it.`,
  );
}

/** For counting: "ok", "declared" or a code. */
export function outcomeOf(answer: CallAnswer): string {
  if (answer.isOk) return "ok";
  const { error } = answer;
  if (error.kind === "declared") return "declared";
  return error.kind === "failed" ? "CALL_FAILED" : error.code;
}
