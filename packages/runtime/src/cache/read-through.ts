/**
 * The read-through policy.
 *
 * - One load a key: readers of a missing key wait for the load under way.
 * - Fresh entries are served; stale ones are served while one refresh runs; failed refreshes are bridged within a grace.
 * - No stale set: a load that began before an invalidation of one of its tags is never stored, and never handed to a
 *   reader who came after that invalidation. Each load carries the number of the last invalidation before it began.
 * - An invalidated entry is not served again, neither as stale nor in grace.
 * - Loads are bounded in number and time, so an empty cache does not become a crowd at the database.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { UnavailableError } from "../kernel/errors.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import type { CacheEntry, CacheStore } from "./cache-store.ts";
import { InvalidationLog } from "./invalidation-log.ts";
import { LoadGate } from "./load-gate.ts";

/** How long an entry lives and what ends it. */
export interface ReadOptions {
  /** Fresh for this long, give or take a tenth, so that entries made together do not expire together. */
  readonly ttlMs: number;
  /** After that, served for this long while one refresh runs. Default 0. */
  readonly staleMs?: number;
  /** After that, served for this long when loads fail. Default 0. */
  readonly graceMs?: number;
  /** Life of a negative entry (the load gave undefined). Default: `ttlMs`, at most 1,000. */
  readonly negativeTtlMs?: number;
  /** Tags known before the load. */
  readonly tags?: readonly string[];
}

/** What a load is given. */
export interface LoadContext {
  /** Ties the entry to a tag that only the load can know. */
  tag(name: string): void;
  /** Aborted when the load takes longer than its limit. */
  readonly signal: AbortSignal;
}

/** Counters since the start, and the store's size now. */
export interface CacheStats {
  readonly hits: number;
  readonly misses: number;
  readonly loads: number;
  /** Reads that waited for another reader's load. */
  readonly waits: number;
  readonly staleServed: number;
  readonly loadErrors: number;
  readonly invalidations: number;
  readonly entries: number;
  readonly bytes: number;
}

export interface Cache {
  /** True when every read loads. */
  readonly isOff: boolean;
  /**
   * Gives the cached value of the key, or loads it. Values are shared between readers and frozen in development: treat
   * them as read-only. What the load throws goes to all who wait and is never cached.
   */
  read<V>(key: string, options: ReadOptions, load: (context: LoadContext) => Promise<V>): Promise<V>;
  /** Ends every entry that carries one of the tags, at once. */
  invalidate(tags: readonly string[]): void;
  stats(): CacheStats;
}

export interface CacheOptions {
  /** Null turns caching off: every read loads, bounded as ever. */
  readonly store: CacheStore | null;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Loads at once; default 64. */
  readonly loadsMax?: number;
  /** Loads that may wait for their turn; default 10,000. One more is refused with `OVERLOADED`. */
  readonly loadQueueMax?: number;
  /** Longest a load may take; default 10,000 ms. */
  readonly loadTimeoutMs?: number;
  /** Tags whose last invalidation is remembered; default 100,000. */
  readonly tagsMax?: number;
  /** Freeze values so that a reader who changes one fails at once; default true unless NODE_ENV is "production". */
  readonly freeze?: boolean;
}

/** A load under way. */
interface Flight {
  readonly asOf: number;
  readonly tags: Set<string>;
  readonly result: Promise<unknown>;
}

/** Makes a read-through cache over a store. */
export function createCache(options: CacheOptions): Cache {
  return options.store === null ? uncached(options) : new ReadThroughCache(options.store, options);
}

function uncached(options: CacheOptions): Cache {
  const gate = new LoadGate(options);
  let loads = 0;
  let loadErrors = 0;
  return {
    isOff: true,
    async read(_key, _options, load) {
      loads++;
      try {
        return await gate.run((signal) => load({ tag() {}, signal }));
      } catch (error) {
        loadErrors++;
        throw error;
      }
    },
    invalidate() {},
    stats: () => ({
      hits: 0,
      misses: loads,
      loads,
      waits: 0,
      staleServed: 0,
      loadErrors,
      invalidations: 0,
      entries: 0,
      bytes: 0,
    }),
  };
}

class ReadThroughCache implements Cache {
  readonly isOff = false;
  private readonly store: CacheStore;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly freeze: boolean;
  private readonly gate: LoadGate;
  private readonly log: InvalidationLog;
  private readonly flights = new Map<string, Flight>();
  private readonly counters = {
    hits: 0,
    misses: 0,
    loads: 0,
    waits: 0,
    staleServed: 0,
    loadErrors: 0,
    invalidations: 0,
  };

  constructor(store: CacheStore, options: CacheOptions) {
    this.store = store;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
    this.freeze = options.freeze ?? process.env["NODE_ENV"] !== "production";
    this.gate = new LoadGate(options);
    this.log = new InvalidationLog(options.tagsMax ?? 100_000);
  }

  read<V>(key: string, options: ReadOptions, load: (context: LoadContext) => Promise<V>): Promise<V> {
    const entry = this.store.get(key);
    if (entry !== undefined && this.log.isCurrent(entry.tags, entry.asOf)) {
      const now = this.clock.monotonic();
      if (now < entry.freshUntil) {
        this.counters.hits++;
        return Promise.resolve(entry.value as V);
      }
      if (now < entry.staleUntil) {
        this.counters.staleServed++;
        // The refresh's failure is counted; this reader has an answer already.
        if (!this.flights.has(key)) this.fly(key, options, load).result.catch(() => {});
        return Promise.resolve(entry.value as V);
      }
    }
    this.counters.misses++;
    return this.join(key, options, load);
  }

  invalidate(tags: readonly string[]): void {
    this.counters.invalidations++;
    this.log.invalidate(tags);
  }

  stats(): CacheStats {
    return { ...this.counters, ...this.store.stats() };
  }

  /** Waits for the load under way if its result will do for a reader who comes now, else loads. */
  private async join<V>(key: string, options: ReadOptions, load: (context: LoadContext) => Promise<V>): Promise<V> {
    const arrival = this.log.now;
    const flight = this.flights.get(key);
    if (flight === undefined || !this.log.isCurrent([...flight.tags], flight.asOf)) {
      return (await this.withGrace(key, this.fly(key, options, load))) as V;
    }
    this.counters.waits++;
    const value = await this.withGrace(key, flight);
    // The load may have named a tag that was invalidated before this reader came: then it must not see the result.
    if (arrival === flight.asOf || this.log.isCurrent([...flight.tags], flight.asOf)) return value as V;
    return (await this.withGrace(key, this.fly(key, options, load))) as V;
  }

  private fly<V>(key: string, options: ReadOptions, load: (context: LoadContext) => Promise<V>): Flight {
    this.counters.loads++;
    const tags = new Set(options.tags);
    const asOf = this.log.now;
    const result = this.gate
      .run((signal) => load({ tag: (name) => void tags.add(name), signal }))
      .then(
        (value) => {
          this.keep(key, options, value, [...tags], asOf);
          return value;
        },
        (error: unknown) => {
          this.counters.loadErrors++;
          throw error;
        },
      )
      .finally(() => {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      });
    const flight: Flight = { asOf, tags, result };
    this.flights.set(key, flight);
    return flight;
  }

  private keep(key: string, options: ReadOptions, value: unknown, tags: readonly string[], asOf: number): void {
    if (!this.log.isCurrent(tags, asOf)) return;
    const { ttlMs, staleMs = 0, graceMs = 0, negativeTtlMs = Math.min(ttlMs, 1_000) } = options;
    const isNegative = value === undefined;
    const lifeMs = (isNegative ? negativeTtlMs : ttlMs) * (0.9 + 0.2 * this.random.next());
    const freshUntil = this.clock.monotonic() + lifeMs;
    const staleUntil = freshUntil + (isNegative ? 0 : staleMs);
    if (this.freeze) deepFreeze(value);
    this.store.set(key, {
      value,
      tags,
      asOf,
      freshUntil,
      staleUntil,
      graceUntil: staleUntil + (isNegative ? 0 : graceMs),
    });
  }

  private async withGrace(key: string, flight: Flight): Promise<unknown> {
    try {
      return await flight.result;
    } catch (error) {
      const entry = this.store.get(key) as CacheEntry | undefined;
      const isUsable =
        entry !== undefined && this.clock.monotonic() < entry.graceUntil && this.log.isCurrent(entry.tags, entry.asOf);
      if (!isUsable || !(error instanceof UnavailableError)) throw error;
      this.counters.staleServed++;
      return entry.value;
    }
  }
}

function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value) || ArrayBuffer.isView(value)) return;
  Object.freeze(value);
  for (const item of Object.values(value)) deepFreeze(item);
}
