/**
 * Purging as an effect of commits: tags that a commit invalidated become purges at the CDN.
 *
 * - *pending*: a key waits until its batch goes out (`batchMs` after the first of it).
 * - *sent*: confirmed by the CDN. It is sent again after each of `repeatAfterMs`, because an answer that was being made when
 *   the commit came may reach the CDN after the first purge. An answer that takes longer than `renderMsMax` is not shared, and
 *   no process serves what is older than the cache's bound; the repeats come after both.
 * - *failed*: back to pending, behind a wait that doubles up to `backoffMsMax`; every key until its `retryForMs` has passed.
 *   After that the CDN holds nothing that old: whatever it had expired by its own time.
 * - *too many*: more than `pendingMax` keys become one, which every answer bears.
 *
 * Nothing is written to disk: a process that is killed with purges pending loses them, and the answers they meant live out
 * their `sharedMaxAgeMs`. See docs/decisions/0014.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { RungsError } from "../kernel/errors.ts";
import type { Logger } from "../kernel/log.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import type { Cdn } from "./cdn.ts";
import { siteKey, surrogateKey } from "./surrogate-key.ts";

/** Settings of {@link createPurger}; times in ms. */
export interface PurgerOptions {
  readonly cdn: Cdn;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  /** From the first key of a batch until it is sent; default 5. */
  readonly batchMs?: number;
  /** When a purge is sent again, after it was confirmed; default 1,500 and 4,000. */
  readonly repeatAfterMs?: readonly number[];
  /** How long a purge is tried; default 10 minutes. At least the longest time an answer is shared. */
  readonly retryForMs?: number;
  /** Longest wait between tries; default 5,000. */
  readonly backoffMsMax?: number;
  /** Longest wait for an answer of the CDN; default 5,000. */
  readonly timeoutMs?: number;
  /** Keys that may wait; default 20,000. */
  readonly pendingMax?: number;
}

/** Counters since the start, and what waits now. */
export interface PurgerStats {
  readonly purgedKeys: number;
  readonly calls: number;
  readonly failures: number;
  readonly givenUpKeys: number;
  readonly pending: number;
  /** Age of the oldest key that waits for its first purge, ms. */
  readonly oldestPendingMs: number;
}

/** Carries invalidations to the CDN. */
export interface Purger {
  /** Told after a commit, once no process serves the old data from its cache. Never raises, never waits. */
  changed(tags: readonly string[]): void;
  /** Sends what waits, repeats included, and ends; what cannot be sent within `withinMs` is lost. */
  close(withinMs?: number): Promise<void>;
  stats(): PurgerStats;
}

/** A key on its way. */
interface Pending {
  readonly since: number;
  /** Repeats that still follow. */
  readonly repeats: readonly number[];
}

const backoffFirstMs = 100;

/** Makes a purger; it does nothing until something changes. */
export function createPurger(options: PurgerOptions): Purger {
  return new BatchingPurger(options);
}

class BatchingPurger implements Purger {
  private readonly options: Required<Omit<PurgerOptions, "cdn" | "log">>;
  private readonly cdn: Cdn;
  private readonly log: Logger;
  private readonly pending = new Map<string, Pending>();
  private readonly repeats = new Map<string, { readonly at: number; readonly rest: readonly number[] }>();
  private inFlight = 0;
  private readonly counters = { purgedKeys: 0, calls: 0, failures: 0, givenUpKeys: 0 };
  private timer: { readonly handle: NodeJS.Timeout; readonly at: number } | undefined;
  private running: Promise<void> | undefined;
  private failuresInRow = 0;
  private isClosed = false;

  constructor({ cdn, log, ...options }: PurgerOptions) {
    this.cdn = cdn;
    this.log = log;
    this.options = {
      clock: systemClock,
      random: systemRandom,
      batchMs: 5,
      repeatAfterMs: [1_500, 4_000],
      retryForMs: 10 * 60_000,
      backoffMsMax: 5_000,
      timeoutMs: 5_000,
      pendingMax: 20_000,
      ...options,
    };
  }

  changed(tags: readonly string[]): void {
    const since = this.options.clock.monotonic();
    for (const tag of tags) this.put(surrogateKey(tag), { since, repeats: this.options.repeatAfterMs });
    if (this.running === undefined && this.failuresInRow === 0) this.wakeIn(this.options.batchMs);
  }

  stats(): PurgerStats {
    const now = this.options.clock.monotonic();
    let oldest = now;
    for (const { since } of this.pending.values()) oldest = Math.min(oldest, since);
    return { ...this.counters, pending: this.pending.size + this.inFlight, oldestPendingMs: now - oldest };
  }

  async close(withinMs = 3_000): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.timer?.handle);
    const until = this.options.clock.monotonic() + withinMs;
    await this.running;
    // What is being made now by this process has drained; other processes repeat their own.
    for (const key of this.repeats.keys()) this.put(key, { since: until, repeats: [] });
    this.repeats.clear();
    while (this.pending.size > 0 && this.options.clock.monotonic() < until) {
      if (!(await this.send(AbortSignal.timeout(Math.max(1, Math.floor(until - this.options.clock.monotonic()))))))
        break;
    }
    if (this.pending.size > 0) {
      this.log.warn(
        { keys: this.pending.size },
        "purges were lost at the stop; answers at the CDN live out their time",
      );
    }
  }

  private put(key: string, pending: Pending): void {
    const known = this.pending.get(key);
    this.pending.set(key, { since: known?.since ?? pending.since, repeats: pending.repeats });
    if (this.pending.size <= this.options.pendingMax) return;
    const oldest = Math.min(...[...this.pending.values()].map(({ since }) => since));
    this.pending.clear();
    this.pending.set(siteKey, { since: oldest, repeats: this.options.repeatAfterMs });
  }

  private wakeIn(ms: number): void {
    const at = this.options.clock.monotonic() + ms;
    if (this.isClosed || (this.timer !== undefined && this.timer.at <= at)) return;
    clearTimeout(this.timer?.handle);
    const handle = setTimeout(() => {
      this.timer = undefined;
      this.running = this.run().finally(() => {
        this.running = undefined;
        this.scheduleNext();
      });
    }, ms);
    // Lost purges are bounded by the answers' own time; they must not keep a tool alive.
    this.timer = { handle: handle.unref(), at };
  }

  private scheduleNext(): void {
    if (this.pending.size > 0) {
      this.wakeIn(this.failuresInRow === 0 ? this.options.batchMs : this.backoff());
      return;
    }
    const next = Math.min(...[...this.repeats.values()].map(({ at }) => at));
    if (next !== Number.POSITIVE_INFINITY) this.wakeIn(Math.max(1, next - this.options.clock.monotonic()));
  }

  private backoff(): number {
    const { backoffMsMax, random } = this.options;
    return Math.min(backoffMsMax, backoffFirstMs * 2 ** (this.failuresInRow - 1)) * (0.75 + 0.5 * random.next());
  }

  private async run(): Promise<void> {
    const now = this.options.clock.monotonic();
    for (const [key, { at, rest }] of this.repeats) {
      if (at > now) continue;
      this.repeats.delete(key);
      if (!this.pending.has(key)) this.put(key, { since: now, repeats: rest });
    }
    while (this.pending.size > 0) {
      if (!(await this.send(AbortSignal.timeout(this.options.timeoutMs)))) return;
    }
  }

  /** Sends one call's worth; gives whether it was confirmed. */
  private async send(signal: AbortSignal): Promise<boolean> {
    const batch = [...this.pending].slice(0, this.cdn.keysMax);
    for (const [key] of batch) this.pending.delete(key);
    this.counters.calls++;
    this.inFlight = batch.length;
    try {
      await this.cdn.purge(
        batch.map(([key]) => key),
        { soft: true, signal },
      );
    } catch (error) {
      this.failed(batch, error);
      return false;
    } finally {
      this.inFlight = 0;
    }
    this.failuresInRow = 0;
    this.counters.purgedKeys += batch.length;
    const now = this.options.clock.monotonic();
    for (const [key, { repeats }] of batch) {
      const [first, ...rest] = repeats;
      if (first !== undefined && !this.isClosed)
        this.repeats.set(key, { at: now + first, rest: rest.map((ms) => ms - first) });
    }
    return true;
  }

  private failed(batch: readonly [string, Pending][], error: unknown): void {
    this.failuresInRow++;
    this.counters.failures++;
    const now = this.options.clock.monotonic();
    const kept = batch.filter(([, { since }]) => now - since < this.options.retryForMs);
    this.counters.givenUpKeys += batch.length - kept.length;
    for (const [key, { since, repeats }] of kept) this.put(key, { since, repeats });
    const code = error instanceof RungsError ? error.code : undefined;
    const line = { error, code, keys: batch.length, failuresInRow: this.failuresInRow };
    // One line for an outage, and one every so often while it lasts.
    if (this.failuresInRow === 1 || this.failuresInRow % 20 === 0)
      this.log.warn(line, "the CDN could not be purged; trying again");
    else this.log.debug(line, "the CDN could not be purged; trying again");
  }
}
