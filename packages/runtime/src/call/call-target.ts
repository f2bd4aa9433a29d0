/**
 * One group of processes that is called: tries, and what keeps its trouble away from its callers.
 *
 * A try goes to the next address whose breaker lets it. A call is tried again when it has not begun for sure, whatever the method; when it
 * may have begun, only if the method is safe, or idempotent by its key; never when it was answered. Each retry takes from the
 * budget, waits with jitter, and all of it ends at the call's deadline.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError, UnavailableError, UnsupportedError } from "../kernel/errors.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import { Bulkhead, type BulkheadLimits } from "./bulkhead.ts";
import { type CallDriver, CallNotAnswered, type CallReply, type OutgoingCall } from "./call.ts";
import { type BreakerLimits, type BreakerState, CircuitBreaker } from "./circuit-breaker.ts";
import { RetryBudget } from "./retry-budget.ts";

/** Settings of a target. */
export interface TargetLimits {
  readonly breaker?: Partial<BreakerLimits>;
  readonly bulkhead?: Partial<BulkheadLimits>;
  /** Tries of one call in all; default 3. */
  readonly triesMax?: number;
}

export interface CallTargetOptions {
  /** For messages and metrics: the group. */
  readonly name: string;
  /** A way to each of its addresses, which take turns; 1 or more. */
  readonly drivers: readonly CallDriver[];
  readonly limits?: TargetLimits;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** Counters since the start, and the state now. */
export interface TargetStats {
  readonly target: string;
  readonly underWay: number;
  readonly waiting: number;
  readonly retries: number;
  /** Retries that the budget did not allow. */
  readonly retriesDenied: number;
  /** Calls refused by the breaker, and by the bulkhead. */
  readonly refusedOpen: number;
  readonly refusedFull: number;
  readonly breakers: readonly { readonly address: string; readonly state: BreakerState }[];
}

/** A target. */
export interface CallTarget {
  /** Raises as `Call` does, but for what the method itself answers. */
  send(call: OutgoingCall): Promise<CallReply>;
  stats(): TargetStats;
  close(): Promise<void>;
}

const retryFirstMs = 20;
const retryMaxMs = 250;
/** A call that was given less time than this says more about its caller than about the target that was late. */
const patientMs = 100;

interface Address {
  readonly driver: CallDriver;
  readonly breaker: CircuitBreaker;
}

/** Makes a target; nothing is connected before the first call. */
export function createCallTarget(options: CallTargetOptions): CallTarget {
  const { name, limits = {}, clock = systemClock, random = systemRandom } = options;
  const { triesMax = 3 } = limits;
  const bulkhead = new Bulkhead(limits.bulkhead);
  const budget = new RetryBudget();
  const breakerOptions = { clock, random, ...(limits.breaker === undefined ? {} : { limits: limits.breaker }) };
  const addresses = options.drivers.map((driver) => ({ driver, breaker: new CircuitBreaker(breakerOptions) }));
  const counters = { retries: 0, retriesDenied: 0, refusedOpen: 0, refusedFull: 0 };
  let turn = 0;

  function next(): Address | undefined {
    for (let index = 0; index < addresses.length; index++) {
      const address = addresses[(turn + index) % addresses.length] as Address;
      if (!address.breaker.wouldAdmit) continue;
      turn = (turn + index + 1) % addresses.length;
      return address;
    }
    return undefined;
  }

  function refuse(call: OutgoingCall, why: "refusedOpen" | "refusedFull"): UnavailableError {
    counters[why]++;
    const reason =
      why === "refusedOpen"
        ? `too many calls to ${name} have failed; it is asked again within seconds`
        : `${bulkhead.underWay} calls to ${name} are under way and ${bulkhead.waiting} wait, which is as many as may`;
    return new UnavailableError("CALL_REFUSED", `${call.method.name} was not called: ${reason}. Try again later.`, {
      canRetry: true,
    });
  }

  async function tryOnce(call: OutgoingCall): Promise<CallReply> {
    // Before the wait for a place: what fails is refused at once, however many wait.
    if (!addresses.some(({ breaker }) => breaker.wouldAdmit)) throw refuse(call, "refusedOpen");
    if (!(await bulkhead.enter(call.signal))) throw refuse(call, "refusedFull");
    try {
      const address = next();
      const leave = address?.breaker.admit();
      if (address === undefined || leave === undefined) throw refuse(call, "refusedOpen");
      return await judged(call, address, leave);
    } finally {
      bulkhead.leave();
    }
  }

  async function judged(call: OutgoingCall, { driver, breaker }: Address, leave: number): Promise<CallReply> {
    const givenMs = call.deadlineAt - clock.monotonic();
    let outcome: "success" | "failure" | "nothing" = "nothing";
    try {
      const reply = await driver.send(call, givenMs);
      outcome = isFault(reply) ? "failure" : "success";
      return reply;
    } catch (error) {
      const isLate = isTimeout(error) && givenMs >= patientMs;
      if (isLate || (error instanceof CallNotAnswered && error.reason !== "denied")) outcome = "failure";
      throw error;
    } finally {
      breaker.note(leave, outcome);
    }
  }

  /** Whether a call whose try came to nothing is tried again, which is then counted. */
  function triesAgain({ reach, reason }: CallNotAnswered, { method }: OutgoingCall, tries: number): boolean {
    const isWorthIt = reason === "unreachable" || reason === "refused";
    const isHarmless = reach === "none" || method.isSafe || method.isIdempotent;
    if (!isWorthIt || !isHarmless || tries >= triesMax) return false;
    // Where no connection came about nobody was troubled: asking the next address costs no budget.
    const isFree = reach === "none" && reason === "unreachable" && tries < addresses.length;
    const isAllowed = isFree || budget.spend();
    if (isAllowed) counters.retries++;
    else counters.retriesDenied++;
    return isAllowed;
  }

  return {
    async send(call) {
      budget.earn();
      for (let tries = 1; ; tries++) {
        try {
          return await tryOnce(call);
        } catch (error) {
          if (!(error instanceof CallNotAnswered)) throw error;
          if (!triesAgain(error, call, tries)) throw told(error, call);
          const ms = Math.min(retryMaxMs, retryFirstMs * 2 ** (tries - 1)) * (0.5 + random.next());
          await pause(tries < addresses.length ? 0 : ms, call.signal);
        }
      }
    },

    stats: () => ({
      target: name,
      underWay: bulkhead.underWay,
      waiting: bulkhead.waiting,
      ...counters,
      breakers: addresses.map(({ driver, breaker }) => ({ address: driver.address, state: breaker.state })),
    }),

    async close() {
      await Promise.all(options.drivers.map((driver) => driver.close()));
    },
  };
}

/** What the callee itself calls its fault, and not the caller's. */
function isFault({ answer }: CallReply): boolean {
  return !answer.isOk && (answer.error.kind === "failed" || answer.error.kind === "unavailable");
}

function isTimeout(error: unknown): boolean {
  return error instanceof UnavailableError && error.code === "CALL_TIMEOUT";
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  // Node would wrap the reason.
  await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

/** What the caller is told of a call whose tries came to nothing. */
function told(error: CallNotAnswered, { method }: OutgoingCall): Error {
  const { message, reach, reason } = error;
  const details = { cause: error };
  if (reason === "denied") return new ConfigError("CALL_DENIED", `${method.name}: ${message}`, details);
  if (reason === "unknown") return new UnsupportedError("CALL_UNKNOWN", `${method.name}: ${message}`, details);
  const canRetry = reach === "none" || method.isSafe;
  const code = reason === "refused" ? "CALL_REFUSED" : "CALL_UNREACHABLE";
  const hint = canRetry ? "" : " It may have taken effect: look before you call again.";
  return new UnavailableError(code, `${method.name}: ${message}${hint}`, { ...details, canRetry });
}
