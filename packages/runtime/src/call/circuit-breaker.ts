/**
 * A circuit breaker: calls to a target that fails are refused at once, so that they cost neither side anything, and a few find out
 * whether it is back. (Nygard, "Release It!", 2007; ratio over a window as in Netflix's Hystrix.)
 *
 * - *closed*: calls pass. With `callsMin` of them in the window and `failureRatio` of those failed, it opens.
 * - *open*: calls are refused for `openMs`, each time in a row twice as long up to `openMsMax`, with jitter, so that many callers do
 *   not come back together.
 * - *halfOpen*: `probesMax` calls at a time pass, the others are refused. One that fails opens it again; `probesMax` successes close it,
 *   with an empty window.
 *
 * What a call has found counts only in the state in which it began.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Random } from "../kernel/random.ts";

/** Settings of a breaker. */
export interface BreakerLimits {
  /** Default 10,000 ms. */
  readonly windowMs: number;
  /** Fewer calls say nothing; default 20. */
  readonly callsMin: number;
  /** Default 0.5. */
  readonly failureRatio: number;
  /** Default 1,000 ms. */
  readonly openMs: number;
  /** Default 5,000 ms: so long at most, and a little more, a target that is back stays unused. */
  readonly openMsMax: number;
  /** Default 3. */
  readonly probesMax: number;
}

/** Where nothing else is said. */
export const breakerLimitsDefault: BreakerLimits = {
  windowMs: 10_000,
  callsMin: 20,
  failureRatio: 0.5,
  openMs: 1_000,
  openMsMax: 5_000,
  probesMax: 3,
};

export type BreakerState = "closed" | "open" | "halfOpen";

/** Leave to make one call; to be given back by {@link CircuitBreaker.note}. */
export type Leave = number;

const slotsInWindow = 10;

/** One target's breaker. */
export class CircuitBreaker {
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly limits: BreakerLimits;
  private current: BreakerState = "closed";
  /** Counts changes of state: leave of an earlier one is void. */
  private era = 0;
  private openUntil = 0;
  private timesOpened = 0;
  private probes = 0;
  private successes = 0;
  private slots: { readonly number: number; calls: number; failures: number }[] = [];

  constructor(options: { readonly clock: Clock; readonly random: Random; readonly limits?: Partial<BreakerLimits> }) {
    this.clock = options.clock;
    this.random = options.random;
    this.limits = { ...breakerLimitsDefault, ...options.limits };
  }

  get state(): BreakerState {
    if (this.current === "open" && this.clock.monotonic() >= this.openUntil) this.change("halfOpen");
    return this.current;
  }

  /** Whether a call would be let through now. */
  get wouldAdmit(): boolean {
    const { state } = this;
    return state === "closed" || (state === "halfOpen" && this.probes < this.limits.probesMax);
  }

  /** Leave for one call; undefined when it is refused. */
  admit(): Leave | undefined {
    if (!this.wouldAdmit) return undefined;
    if (this.current === "halfOpen") this.probes++;
    return this.era;
  }

  /** Gives leave back with what came of it; "nothing" when the call was given up for reasons of its caller. */
  note(leave: Leave, outcome: "success" | "failure" | "nothing"): void {
    if (leave !== this.era) return;
    if (this.current === "closed") {
      if (outcome !== "nothing") this.count(outcome === "failure");
      return;
    }
    this.probes--;
    if (outcome === "failure") this.open();
    else if (outcome === "success" && ++this.successes >= this.limits.probesMax) {
      this.timesOpened = 0;
      this.change("closed");
    }
  }

  private count(isFailure: boolean): void {
    const { windowMs, callsMin, failureRatio } = this.limits;
    const number = Math.floor((this.clock.monotonic() / windowMs) * slotsInWindow);
    let slot = this.slots.at(-1);
    if (slot?.number !== number) {
      slot = { number, calls: 0, failures: 0 };
      this.slots = [...this.slots.filter((each) => each.number > number - slotsInWindow), slot];
    }
    slot.calls++;
    if (!isFailure) return;
    slot.failures++;
    const calls = this.slots.reduce((sum, each) => sum + each.calls, 0);
    const failures = this.slots.reduce((sum, each) => sum + each.failures, 0);
    if (calls >= callsMin && failures >= calls * failureRatio) this.open();
  }

  private open(): void {
    const { openMs, openMsMax } = this.limits;
    const ms = Math.min(openMsMax, openMs * 2 ** Math.min(this.timesOpened++, 20));
    this.openUntil = this.clock.monotonic() + ms * (0.75 + 0.5 * this.random.next());
    this.change("open");
  }

  private change(state: BreakerState): void {
    this.current = state;
    this.era++;
    this.probes = 0;
    this.successes = 0;
    this.slots = [];
  }
}
