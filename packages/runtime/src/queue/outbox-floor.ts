/** How far reads of the outbox need not go back. */
import type { Clock } from "../kernel/clock.ts";
import type { Beat } from "./outbox.ts";

/** How often everything is looked at, whatever is believed. */
const fullLookEveryMs = 30_000;

/**
 * The sequence below which nothing is left and nothing can come any more, so that reads need not pass the rows deleted there.
 *
 * A number drawn at some moment is settled once all transactions that may have drawn it or a lower one have ended. What is read from
 * then on shows all rows up to it; when those are published, the floor is above them. Believed for half a minute at most, and not
 * after an error: a fail-over may have taken numbers back.
 */
export class OutboxFloor {
  value = 0;
  private readonly clock: Clock;
  private candidate:
    | { readonly sequence: number; readonly writers: ReadonlySet<string>; isSettled: boolean }
    | undefined;
  private resetAt: number;

  constructor(clock: Clock) {
    this.clock = clock;
    this.resetAt = clock.monotonic();
  }

  reset(): void {
    this.value = 0;
    this.candidate = undefined;
    this.resetAt = this.clock.monotonic();
  }

  note({ lastSequence, writers }: Beat): void {
    if (this.clock.monotonic() - this.resetAt > fullLookEveryMs || lastSequence < this.value - 1) this.reset();
    const { candidate } = this;
    if (candidate === undefined) {
      this.candidate = { sequence: lastSequence, writers: new Set(writers), isSettled: writers.length === 0 };
    } else if (!writers.some((writer) => candidate.writers.has(writer))) candidate.isSettled = true;
  }

  /** To be called before a read; what it gives, once all that was read is published, with the last of it. */
  settled(): (last: number | undefined) => void {
    const { candidate } = this;
    if (candidate === undefined || !candidate.isSettled) return () => {};
    return (last = candidate.sequence) => {
      // Of a floor that was given up meanwhile.
      if (this.candidate !== candidate) return;
      this.value = Math.max(this.value, Math.min(candidate.sequence, last) + 1);
      if (this.value > candidate.sequence) this.candidate = undefined;
    };
  }
}
