/**
 * Refusals that are held back for a moment before they are answered.
 *
 * A balancer in front bounds how many requests of a class are under way. What is refused at once frees its place at once, and the next
 * one comes; what is held keeps it, so the balancer refuses the rest by itself, which costs a fraction of a refusal by the app.
 * Whoever is refused has time: they are asked to come back in seconds.
 */

/** Keeps what is refused, in the order in which it came. */
export class HeldRefusals<T> {
  private readonly holdMs: number;
  private readonly countMax: number;
  private held: { readonly refused: T; readonly dueAt: number }[] = [];

  /** Each is held for `holdMs`, no more than `countMax` at a time. */
  constructor({ holdMs, countMax }: { readonly holdMs: number; readonly countMax: number }) {
    this.holdMs = holdMs;
    this.countMax = countMax;
  }

  /** Holds it; false when there are too many, and it is to be answered now. `now`: of a clock that only goes forward, in ms. */
  add(refused: T, now: number): boolean {
    if (this.held.length >= this.countMax) return false;
    this.held.push({ refused, dueAt: now + this.holdMs });
    return true;
  }

  /** Gives what is to be answered now; at the end, with infinity, all there is. */
  due(now: number): T[] {
    const first = this.held.findIndex(({ dueAt }) => dueAt > now);
    return this.held.splice(0, first === -1 ? this.held.length : first).map(({ refused }) => refused);
  }
}
