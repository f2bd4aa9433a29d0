/**
 * Keeps callers from waiting for a server that does not answer.
 *
 * - *Closed*: calls go through. After `failuresMax` failures in a row it opens.
 * - *Open*: calls are turned away at once, for `openMs`, twice as long after each failed trial, up to `openMsMax`.
 * - *Half-open*: the next call goes through as a trial, all others are turned away. Success closes, failure opens again.
 *
 * Source: M. Nygard, Release It!, "Circuit Breaker".
 */
import type { Clock } from "../kernel/clock.ts";

/** Settings of {@link CircuitBreaker}. */
export interface CircuitBreakerOptions {
  readonly clock: Clock;
  /** Default 5. */
  readonly failuresMax?: number;
  /** Default 250 ms. */
  readonly openMs?: number;
  /** Default 2,000 ms. */
  readonly openMsMax?: number;
}

export class CircuitBreaker {
  private readonly clock: Clock;
  private readonly failuresMax: number;
  private readonly openMs: number;
  private readonly openMsMax: number;
  private failures = 0;
  private waitMs: number;
  private openUntil: number | undefined;
  private isTrying = false;
  private openings = 0;

  constructor({ clock, failuresMax = 5, openMs = 250, openMsMax = 2_000 }: CircuitBreakerOptions) {
    this.clock = clock;
    this.failuresMax = failuresMax;
    this.openMs = openMs;
    this.openMsMax = openMsMax;
    this.waitMs = openMs;
  }

  get state(): "closed" | "open" | "half-open" {
    if (this.openUntil === undefined) return "closed";
    return this.isTrying || this.clock.monotonic() >= this.openUntil ? "half-open" : "open";
  }

  /** How often it opened. */
  get opened(): number {
    return this.openings;
  }

  /** Whether a call may go through now; if so, its end must be told to {@link CircuitBreaker.succeeded} or `failed`. */
  admits(): boolean {
    if (this.openUntil === undefined) return true;
    if (this.isTrying || this.clock.monotonic() < this.openUntil) return false;
    this.isTrying = true;
    return true;
  }

  succeeded(): void {
    this.failures = 0;
    // A late answer to a call from before says nothing about now.
    if (this.openUntil !== undefined && !this.isTrying) return;
    this.isTrying = false;
    this.openUntil = undefined;
    this.waitMs = this.openMs;
  }

  failed(): void {
    this.failures++;
    const isTrial = this.isTrying;
    if (!isTrial && (this.openUntil !== undefined || this.failures < this.failuresMax)) return;
    this.isTrying = false;
    this.openings++;
    this.openUntil = this.clock.monotonic() + this.waitMs;
    this.waitMs = Math.min(this.openMsMax, this.waitMs * 2);
  }
}
