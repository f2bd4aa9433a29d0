/**
 * The read-through policy.
 *
 * - One load a key: readers of a missing key wait for the load under way.
 * - Fresh entries are served; stale ones are served while one refresh runs; failed refreshes are bridged within a grace.
 * - No stale set: a load that began before an invalidation of one of its tags is never stored, and never handed to a
 *   reader who came after that invalidation. Each load carries the number of the last invalidation before it began.
 * - An invalidated entry is not served again, neither as stale nor in grace.
 * - With a bus, invalidations of other processes count like one's own, and an entry is served only within the bus's bound
 *   after its load or after all invalidations were known to be heard; see `invalidation-bus.ts`.
 * - With a shared store, what is missing here is looked for there, and one process loads for all; see `shared-level.ts`.
 * - Loads are bounded in number and time, so an empty cache does not become a crowd at the database.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError, UnavailableError } from "../kernel/errors.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import type { CacheEntry, CacheStore } from "./cache-store.ts";
import { HotKeys, type HottestKeys } from "./hot-keys.ts";
import { type KeyInspection, keyTag, type LevelInspection, namedTags, noEntry } from "./inspection.ts";
import type { InvalidationBus, InvalidationTarget } from "./invalidation-bus.ts";
import type { CommitMarks, InvalidatedTags } from "./invalidation-channel.ts";
import { InvalidationLog } from "./invalidation-log.ts";
import { LoadGate } from "./load-gate.ts";
import {
  type Lifetimes,
  type Obtained,
  SharedLevel,
  type SharedLevelOptions,
  type SharedLevelStats,
} from "./shared-level.ts";

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

/** Counters since the start, and the store's size now. Those of a shared store only with one. */
export interface CacheStats extends Partial<SharedLevelStats> {
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
  /**
   * Ends every entry that carries one of the tags: here at once, and resolves when the other processes have been told, or will
   * be later because they cannot be told now. `upTo`: how far the databases had got with the commits that this stands for;
   * without it, they are asked. Never raises.
   */
  invalidate(tags: readonly string[], upTo?: CommitMarks): Promise<void>;
  stats(): CacheStats;
  /** What this process would do about the key, and why. */
  inspect(key: string): Promise<KeyInspection>;
  /** The keys that this process reads most, by a sample; at most 256. */
  hottest(keysMax: number): HottestKeys;
}

export interface CacheOptions {
  /** Null turns caching off: every read loads, bounded as ever. */
  readonly store: CacheStore | null;
  /** The second level, shared by all processes; needs `bus`. Default none. */
  readonly shared?: SharedLevelOptions | undefined;
  /** Carries invalidations between the processes of the app; default none: each process hears its own only. */
  readonly bus?: InvalidationBus | undefined;
  /** Without a bus: told of each invalidation before this cache is. */
  readonly first?: InvalidationTarget | undefined;
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
  readonly startedAt: number;
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
    async invalidate(tags, upTo) {
      if (options.bus === undefined) options.first?.drop(tags, upTo);
      else await options.bus.announce(tags, upTo);
    },
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
    inspect: async () => ({ local: noEntry("absent"), shared: null, isLoading: false }),
    hottest: () => ({ reads: 0, keys: [] }),
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
  private readonly bus: InvalidationBus | undefined;
  private readonly first: InvalidationTarget | undefined;
  private readonly shared: SharedLevel | undefined;
  private readonly flights = new Map<string, Flight>();
  private readonly hotKeys = new HotKeys();
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
    this.bus = options.bus;
    this.first = options.first;
    this.bus?.join({ drop: (tags) => this.drop(tags) });
    this.shared = sharedLevel(options, { clock: this.clock, random: this.random });
  }

  read<V>(key: string, options: ReadOptions, load: (context: LoadContext) => Promise<V>): Promise<V> {
    this.hotKeys.saw(key);
    const entry = this.store.get(key);
    const now = this.clock.monotonic();
    if (entry !== undefined && this.log.isCurrent(entry.tags, entry.asOf) && this.isWithinBound(entry, now)) {
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

  async invalidate(tags: readonly string[], upTo?: CommitMarks): Promise<void> {
    if (this.bus !== undefined) return this.bus.announce(tags, upTo);
    this.first?.drop(tags, upTo);
    this.drop(tags);
  }

  stats(): CacheStats {
    return { ...this.counters, ...this.store.stats(), ...this.shared?.stats() };
  }

  async inspect(key: string): Promise<KeyInspection> {
    const shared = await this.shared?.inspect(key);
    return { local: this.inspectLocal(key), shared: shared ?? null, isLoading: this.flights.has(key) };
  }

  hottest(keysMax: number): HottestKeys {
    return this.hotKeys.hottest(keysMax);
  }

  private inspectLocal(key: string): LevelInspection {
    const entry = this.store.get(key);
    if (entry === undefined) return noEntry("absent");
    const now = this.clock.monotonic();
    const endedBy = this.log.endedBy(entry.tags, entry.asOf) ?? null;
    const isHeard = this.isWithinBound(entry, now);
    return {
      notServed: endedBy !== null ? "invalidated" : !isHeard ? "unheard" : now >= entry.staleUntil ? "over" : null,
      endedBy,
      ageMs: now - entry.loadedAt,
      freshMs: Math.max(0, entry.freshUntil - now),
      staleMs: Math.max(0, entry.staleUntil - Math.max(now, entry.freshUntil)),
      tags: namedTags(entry.tags, key),
      asOf: entry.asOf,
      isNegative: entry.value === undefined,
      bytes: null,
    };
  }

  private drop(tags: InvalidatedTags): void {
    this.counters.invalidations++;
    if (tags === "everything") this.log.invalidateEverything();
    else this.log.invalidate(tags);
  }

  /** Whether no invalidation can have been missed for longer than the bus allows. */
  private isWithinBound(entry: CacheEntry, now: number): boolean {
    if (this.bus === undefined) return true;
    return now - Math.max(this.bus.heardAt(), entry.loadedAt) <= this.bus.staleMsMax;
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
    const tags = new Set(options.tags).add(keyTag(key));
    const asOf = this.log.now;
    const startedAt = this.clock.monotonic();
    const result = this.obtain(key, { options, tags, load })
      .then((obtained) => {
        this.keep(key, obtained, flight);
        return obtained.value;
      })
      .finally(() => {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      });
    const flight: Flight = { startedAt, asOf, tags, result };
    this.flights.set(key, flight);
    return flight;
  }

  /** From the second level, or loaded. */
  private async obtain<V>(
    key: string,
    { options, tags, load }: { options: ReadOptions; tags: Set<string>; load(context: LoadContext): Promise<V> },
  ): Promise<Obtained> {
    const loadWith = (found: Set<string>) =>
      this.load((signal) => load({ tag: (name) => void found.add(name), signal }));
    const lifetimesOf = (value: unknown) => this.lifetimesOf(value, options);
    if (this.shared !== undefined) return this.shared.obtain({ key, tags, load: loadWith, lifetimesOf });
    const value = await loadWith(tags);
    return { value, ageMs: 0, ...lifetimesOf(value) };
  }

  private async load<V>(load: (signal: AbortSignal) => Promise<V>): Promise<V> {
    this.counters.loads++;
    try {
      return await this.gate.run(load);
    } catch (error) {
      this.counters.loadErrors++;
      throw error;
    }
  }

  private lifetimesOf(value: unknown, options: ReadOptions): Lifetimes {
    const { ttlMs, staleMs = 0, graceMs = 0, negativeTtlMs = Math.min(ttlMs, 1_000) } = options;
    const jitter = 0.9 + 0.2 * this.random.next();
    if (value === undefined) return { freshMs: negativeTtlMs * jitter, staleMs: 0, graceMs: 0 };
    return { freshMs: ttlMs * jitter, staleMs, graceMs };
  }

  private keep(key: string, { value, ageMs, freshMs, staleMs, graceMs }: Obtained, flight: Flight): void {
    const { startedAt, asOf, tags } = flight;
    // One that is stale already is not worth a place: the second level has it, and its refresh is under way.
    if (ageMs >= freshMs || !this.log.isCurrent([...tags], asOf)) return;
    const freshUntil = this.clock.monotonic() + freshMs - ageMs;
    const staleUntil = freshUntil + staleMs;
    if (this.freeze) deepFreeze(value);
    this.store.set(key, {
      value,
      tags: [...tags],
      asOf,
      loadedAt: startedAt - ageMs,
      freshUntil,
      staleUntil,
      graceUntil: staleUntil + graceMs,
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

function sharedLevel(
  { shared, bus }: CacheOptions,
  around: { readonly clock: Clock; readonly random: Random },
): SharedLevel | undefined {
  if (shared === undefined) return undefined;
  if (bus !== undefined) return new SharedLevel(shared, { bus, ...around });
  throw new ConfigError(
    "CONFIG_INVALID",
    "A shared cache needs a bus that carries invalidations. Give createCache one.",
  );
}

function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value) || ArrayBuffer.isView(value)) return;
  Object.freeze(value);
  for (const item of Object.values(value)) deepFreeze(item);
}
