/**
 * The second level: a cache that all processes share, behind that of the process.
 *
 * - *Valid*: an entry is as of the number up to which its loader had heard all invalidations. It is served by a process only if
 *   none of its tags was invalidated after that, as far as this process has heard; and it has heard all but the last moment, else
 *   this level is not used at all (`invalidation-bus.ts`). So nothing has to be deleted, a late write harms nothing, and what a
 *   store brings back from before an outage is judged like everything else.
 * - *One load*: who misses asks for the lease of the key. The holder loads, prolongs its lease meanwhile, writes, and gives it
 *   back. The others look again every few milliseconds; the lease of a dead holder ends by itself.
 * - *Stale* entries are served at once, and refreshed beside by whoever gets the lease; in *grace*, when the load fails.
 * - A store that does not answer is left alone for a while (`circuit-breaker.ts`): then each process loads for itself, bounded as
 *   ever, and goes on with its own level.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../kernel/clock.ts";
import { UnavailableError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import type { Random } from "../kernel/random.ts";
import { CircuitBreaker } from "./circuit-breaker.ts";
import { type LevelInspection, namedTags, noEntry } from "./inspection.ts";
import type { InvalidationBus } from "./invalidation-bus.ts";
import type { Acquired, FoundValue, SharedCacheStore } from "./shared-cache-store.ts";
import { decodeEntry, encodeEntry, type SharedEntry } from "./shared-entry.ts";

/** Settings of the second level. */
export interface SharedLevelOptions {
  readonly store: SharedCacheStore;
  readonly log?: Logger;
  /** A dead holder's lease ends within this; default 2,000 ms. */
  readonly leaseMs?: number;
  /** Who waited this long for another's load loads too; default 10,000 ms. */
  readonly waitMs?: number;
  /** Entries from this size on are compressed; default 8,192. */
  readonly compressFromBytes?: number;
  /** Larger entries, compressed, stay in the processes; default and at most the store's own bound. */
  readonly valueBytesMax?: number;
}

/** How long a value lives from its load on. */
export interface Lifetimes {
  readonly freshMs: number;
  readonly staleMs: number;
  readonly graceMs: number;
}

/** What a reader wants. */
export interface Wanted {
  readonly key: string;
  /** Tags known so far; those of a shared entry are added. */
  readonly tags: Set<string>;
  /** Loads the value and may add tags to the set; bounded by the caller. */
  load(tags: Set<string>): Promise<unknown>;
  lifetimesOf(value: unknown): Lifetimes;
}

/** What it gets. */
export interface Obtained extends Lifetimes {
  readonly value: unknown;
  /** 0 for one that was loaded here. */
  readonly ageMs: number;
}

/** Counters since the start. */
export interface SharedLevelStats {
  readonly sharedHits: number;
  readonly sharedStaleServed: number;
  readonly sharedMisses: number;
  /** Entries found that had been invalidated. */
  readonly sharedInvalid: number;
  /** Looks at a key whose lease another held. */
  readonly sharedWaits: number;
  /** Loads without asking the store, because it or the bus did not answer. */
  readonly sharedBypassed: number;
  readonly sharedErrors: number;
  readonly sharedWrites: number;
  readonly sharedBytesWritten: number;
  readonly sharedBytesRead: number;
  /** Times the circuit breaker opened. */
  readonly sharedOpened: number;
}

interface Judged extends SharedEntry {
  readonly ageMs: number;
}

const failed = Symbol("failed");
const pauseFirstMs = 4;
const pauseMaxMs = 40;

export class SharedLevel {
  private readonly store: SharedCacheStore;
  private readonly bus: InvalidationBus;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly log: Logger;
  private readonly breaker: CircuitBreaker;
  private readonly leaseMs: number;
  private readonly waitMs: number;
  private readonly compressFromBytes: number;
  private readonly valueBytesMax: number;
  private readonly counters = {
    sharedHits: 0,
    sharedStaleServed: 0,
    sharedMisses: 0,
    sharedInvalid: 0,
    sharedWaits: 0,
    sharedBypassed: 0,
    sharedErrors: 0,
    sharedWrites: 0,
    sharedBytesWritten: 0,
    sharedBytesRead: 0,
  };

  constructor(
    options: SharedLevelOptions,
    around: { readonly bus: InvalidationBus; readonly clock: Clock; readonly random: Random },
  ) {
    this.store = options.store;
    this.bus = around.bus;
    this.clock = around.clock;
    this.random = around.random;
    this.log = options.log ?? silentLogger;
    this.breaker = new CircuitBreaker({ clock: around.clock });
    this.leaseMs = Math.max(options.leaseMs ?? 2_000, 2 * this.store.capabilities.resolutionMs);
    this.waitMs = options.waitMs ?? 10_000;
    this.compressFromBytes = options.compressFromBytes ?? 8_192;
    const { valueBytesMax } = this.store.capabilities;
    this.valueBytesMax = Math.min(options.valueBytesMax ?? valueBytesMax, valueBytesMax);
  }

  stats(): SharedLevelStats {
    return { ...this.counters, sharedOpened: this.breaker.opened };
  }

  /** What is there, and whether this process would serve it. */
  async inspect(key: string): Promise<LevelInspection> {
    const found = await this.ask(() => this.store.read(key));
    if (found === failed) return noEntry("unreachable");
    const entry = found === undefined ? undefined : await decodeEntry(found.bytes).catch(() => undefined);
    if (found === undefined || entry === undefined || entry.key !== key) return noEntry("absent");
    const { asOf, freshMs, staleMs, graceMs, value, isWithheld } = entry;
    const ageMs = Math.max(0, freshMs + staleMs + graceMs - found.remainingMs);
    const endedBy = this.bus.endedBy(entry.tags, asOf) ?? null;
    return {
      notServed: this.reasonOf({ ...entry, ageMs }, endedBy),
      endedBy,
      ageMs,
      freshMs: Math.max(0, freshMs - ageMs),
      staleMs: Math.max(0, freshMs + staleMs - Math.max(ageMs, freshMs)),
      tags: namedTags(entry.tags, key),
      asOf,
      isNegative: !isWithheld && value === undefined,
      bytes: found.bytes.length,
    };
  }

  private reasonOf(entry: Judged, endedBy: string | null): LevelInspection["notServed"] {
    if (!this.isUsable()) return "unheard";
    if (endedBy !== null) return "invalidated";
    if (entry.isWithheld) return "withheld";
    return entry.ageMs >= entry.freshMs + entry.staleMs ? "over" : null;
  }

  /** The value, from the store or from one load in all processes. Raises what the load raises. */
  async obtain(wanted: Wanted): Promise<Obtained> {
    if (!this.isUsable()) return this.loadAlone(wanted);
    const found = await this.ask(() => this.store.read(wanted.key));
    if (found === failed) return this.loadAlone(wanted);
    const entry = await this.judge(wanted, found);
    const served = this.serve(wanted, entry);
    if (served === undefined) {
      this.counters.sharedMisses++;
      return this.loadOnce(wanted, entry);
    }
    if (served.ageMs < served.freshMs) this.counters.sharedHits++;
    else {
      this.counters.sharedStaleServed++;
      this.refresh({ ...wanted, tags: new Set(wanted.tags) }).catch(() => {});
    }
    return served;
  }

  /** Only while what was invalidated is known, but for the last moment. */
  private isUsable(): boolean {
    const { bus } = this;
    return bus.position() !== undefined && this.clock.monotonic() - bus.heardAt() <= bus.staleMsMax;
  }

  private async loadAlone(wanted: Wanted): Promise<Obtained> {
    this.counters.sharedBypassed++;
    const value = await wanted.load(wanted.tags);
    return { value, ageMs: 0, ...wanted.lifetimesOf(value) };
  }

  private async loadOnce(wanted: Wanted, known: Judged | undefined): Promise<Obtained> {
    const giveUpAt = this.clock.monotonic() + this.waitMs;
    let entry = known;
    for (let pauseMs = pauseFirstMs; ; pauseMs = Math.min(pauseMaxMs, pauseMs * 1.5)) {
      if (entry?.isWithheld === true || this.clock.monotonic() >= giveUpAt || !this.isUsable()) {
        return this.loadAlone(wanted);
      }
      const acquired = await this.ask(() => this.store.acquire(wanted.key, this.leaseMs));
      if (acquired === failed) return this.loadAlone(wanted);
      entry = await this.judge(wanted, acquired.found);
      const served = this.serve(wanted, entry);
      if (served !== undefined) {
        this.giveBack(wanted.key, acquired);
        return served;
      }
      if (acquired.lease !== undefined) return this.loadUnder(acquired.lease, wanted, entry);
      this.counters.sharedWaits++;
      await sleep(pauseMs * (0.5 + this.random.next()));
    }
  }

  /** Beside a reader who has a stale value already. */
  private async refresh(wanted: Wanted): Promise<void> {
    const acquired = await this.ask(() => this.store.acquire(wanted.key, this.leaseMs));
    if (acquired === failed || acquired.lease === undefined) return;
    const entry = await this.judge(wanted, acquired.found);
    if (entry !== undefined && entry.ageMs < entry.freshMs) return this.giveBack(wanted.key, acquired);
    await this.loadUnder(acquired.lease, wanted, entry);
  }

  private async loadUnder(lease: string, wanted: Wanted, old: Judged | undefined): Promise<Obtained> {
    const { key } = wanted;
    const asOf = this.bus.position();
    const renewing = setInterval(() => {
      void this.ask(() => this.store.renew(key, lease, this.leaseMs));
    }, this.leaseMs / 3).unref();
    try {
      const value = await wanted.load(wanted.tags);
      const lifetimes = wanted.lifetimesOf(value);
      // The reader does not wait for it; who waits in other processes looks again until it is there.
      void this.write(lease, wanted, { key, value, ...lifetimes, asOf: asOf ?? 0, tags: [...wanted.tags] });
      return { value, ageMs: 0, ...lifetimes };
    } catch (error) {
      this.giveBack(key, { lease });
      if (!(error instanceof UnavailableError) || old === undefined || old.isWithheld) throw error;
      this.counters.sharedStaleServed++;
      this.adopt(wanted, old);
      return old;
    } finally {
      clearInterval(renewing);
    }
  }

  private async write(lease: string, wanted: Wanted, entry: Omit<SharedEntry, "isWithheld">): Promise<void> {
    const { key, asOf, tags } = entry;
    const lifeMs = entry.freshMs + entry.staleMs + entry.graceMs;
    const isWorthIt = asOf > 0 && this.bus.isCurrent(tags, asOf) && lifeMs >= 2 * this.store.capabilities.resolutionMs;
    if (!isWorthIt) return this.giveBack(wanted.key, { lease });
    const bytes = await this.encode({ ...entry, isWithheld: false });
    this.counters.sharedWrites++;
    this.counters.sharedBytesWritten += bytes.length;
    await this.ask(() => this.store.write(key, bytes, { lifeMs: Math.ceil(lifeMs), lease }));
  }

  /** What cannot be shared is said to be so, lest the processes load it one after the other. */
  private async encode(entry: SharedEntry): Promise<Buffer> {
    try {
      const bytes = await encodeEntry(entry, { compressFromBytes: this.compressFromBytes });
      if (bytes.length <= this.valueBytesMax) return bytes;
      this.log.warn(
        { key: entry.key, bytes: bytes.length, bytesMax: this.valueBytesMax },
        "a value is too large to share",
      );
    } catch (error) {
      this.log.warn({ key: entry.key, error }, "a value cannot be shared: it is not plain data");
    }
    return encodeEntry({ ...entry, value: undefined, isWithheld: true }, { compressFromBytes: this.compressFromBytes });
  }

  /** The entry if it is one and still holds. */
  private async judge(wanted: Wanted, found: FoundValue | undefined): Promise<Judged | undefined> {
    if (found === undefined) return undefined;
    this.counters.sharedBytesRead += found.bytes.length;
    try {
      const entry = await decodeEntry(found.bytes);
      if (entry.key !== wanted.key) return undefined;
      if (!this.bus.isCurrent(entry.tags, entry.asOf)) {
        this.counters.sharedInvalid++;
        return undefined;
      }
      const lifeMs = entry.freshMs + entry.staleMs + entry.graceMs;
      return { ...entry, ageMs: Math.max(0, lifeMs - found.remainingMs) };
    } catch (error) {
      this.counters.sharedErrors++;
      this.log.debug({ key: wanted.key, error }, "a cached value cannot be read");
      return undefined;
    }
  }

  /** What can be served now. */
  private serve(wanted: Wanted, entry: Judged | undefined): Obtained | undefined {
    if (entry === undefined || entry.isWithheld || entry.ageMs >= entry.freshMs + entry.staleMs) return undefined;
    this.adopt(wanted, entry);
    return entry;
  }

  private adopt(wanted: Wanted, entry: Judged): void {
    for (const tag of entry.tags) wanted.tags.add(tag);
  }

  private giveBack(key: string, { lease }: Pick<Acquired, "lease">): void {
    if (lease !== undefined) void this.ask(() => this.store.release(key, lease));
  }

  private async ask<T>(call: () => Promise<T>): Promise<T | typeof failed> {
    if (!this.breaker.admits()) return failed;
    try {
      const result = await call();
      this.breaker.succeeded();
      return result;
    } catch (error) {
      this.counters.sharedErrors++;
      this.breaker.failed();
      this.log.debug({ error }, "the shared cache did not answer");
      return failed;
    }
  }
}
