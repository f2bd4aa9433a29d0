/** The port of a cache driver: a bounded map of entries. What may be kept, and for how long, is the policy's business. */

/** One cached value with what the policy needs to judge it. Times are of the policy's monotonic clock, in milliseconds. */
export interface CacheEntry {
  /** The loaded value; undefined marks a negative entry: the thing was looked for and is not there. */
  readonly value: unknown;
  /** Tags whose invalidation ends this entry. */
  readonly tags: readonly string[];
  /** Number of the last invalidation before the load began; later ones of its tags make the entry invalid. */
  readonly asOf: number;
  /** When the load began. */
  readonly loadedAt: number;
  readonly freshUntil: number;
  /** Until then it may be served while one refresh runs. */
  readonly staleUntil: number;
  /** Until then it may be served when the refresh fails. */
  readonly graceUntil: number;
}

/** What a driver can do; undeclared capabilities must be refused by it, never imitated. */
export interface CacheCapabilities {
  /** Entries are seen by every process of the app. */
  readonly isShared: boolean;
}

/** Figures of a store at one moment. */
export interface CacheStoreStats {
  readonly entries: number;
  /** Estimated size of all values. */
  readonly bytes: number;
}

export interface CacheStore {
  readonly capabilities: CacheCapabilities;
  get(key: string): CacheEntry | undefined;
  set(key: string, entry: CacheEntry): void;
  delete(key: string): void;
  clear(): void;
  stats(): CacheStoreStats;
}
