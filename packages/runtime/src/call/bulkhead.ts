/** A bulkhead: so many calls to one target at a time, and so many that wait; a target that hangs takes no more of its caller than that. */

/** Settings of a bulkhead. */
export interface BulkheadLimits {
  /** Calls at the same time; default 100. Each takes a connection. */
  readonly underWayMax: number;
  /** Calls that wait for one of those to end, first come first served; default 100. Further ones are refused. */
  readonly waitingMax: number;
}

/** Where nothing else is said: at 10 ms a call, 10,000 calls a second; and none waits longer than about those under way take. */
export const bulkheadLimitsDefault: BulkheadLimits = { underWayMax: 100, waitingMax: 100 };

/** One target's bulkhead. */
export class Bulkhead {
  private readonly limits: BulkheadLimits;
  private readonly queue = new Set<() => void>();
  private count = 0;

  constructor(limits: Partial<BulkheadLimits> = {}) {
    this.limits = { ...bulkheadLimitsDefault, ...limits };
  }

  get underWay(): number {
    return this.count;
  }

  get waiting(): number {
    return this.queue.size;
  }

  /** True once the call may go on, and then {@link Bulkhead.leave} follows; false when it is refused. Raises the signal's reason. */
  async enter(signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted();
    if (this.count < this.limits.underWayMax) {
      this.count++;
      return true;
    }
    if (this.queue.size >= this.limits.waitingMax) return false;
    await this.turn(signal);
    return true;
  }

  /** The place goes to who has waited longest. */
  leave(): void {
    const [next] = this.queue;
    if (next === undefined) {
      this.count--;
      return;
    }
    this.queue.delete(next);
    next();
  }

  private turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const give = () => {
        signal.removeEventListener("abort", drop);
        resolve();
      };
      const drop = () => {
        this.queue.delete(give);
        reject(signal.reason);
      };
      this.queue.add(give);
      signal.addEventListener("abort", drop, { once: true });
    });
  }
}
