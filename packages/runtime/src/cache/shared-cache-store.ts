/**
 * The port of a cache that all processes share: bytes under keys, and leases on keys so that one loads what many miss.
 *
 * Anything may be lost at any time, values and leases: that costs hits and loads. Whether a value may still be served is not the
 * store's business: each value says what it is as of (`shared-level.ts`), so one that is written late, by whoever, harms nothing.
 *
 * Methods raise `UnavailableError` with `CACHE_STORE_UNREACHABLE` when the server does not answer within the store's own bound.
 */

/** A value that is there. */
export interface FoundValue {
  readonly bytes: Buffer;
  /** Of its life, exact to the store's resolution. */
  readonly remainingMs: number;
}

/** What {@link SharedCacheStore.acquire} gives. */
export interface Acquired {
  /** A token of the lease; undefined when another holds it. */
  readonly lease: string | undefined;
  /** The value as of after the lease was given. */
  readonly found: FoundValue | undefined;
}

/** What a driver can do. */
export interface SharedCacheCapabilities {
  /** Entries are seen by every process of the app. */
  readonly isShared: true;
  /** How exactly lives and leases end, in milliseconds. */
  readonly resolutionMs: number;
  /** Larger values are refused by the server. */
  readonly valueBytesMax: number;
}

/** Counters since the start. */
export interface SharedStoreStats {
  readonly commands: number;
  readonly failures: number;
  readonly connections: number;
}

/** Keeps values for all processes. */
export interface SharedCacheStore {
  readonly capabilities: SharedCacheCapabilities;
  /** One round trip. */
  read(key: string): Promise<FoundValue | undefined>;
  /** Takes the lease of the key unless another holds it, and reads after that. One round trip. */
  acquire(key: string, leaseMs: number): Promise<Acquired>;
  /** Prolongs a lease; gives whether it was still held. */
  renew(key: string, lease: string, leaseMs: number): Promise<boolean>;
  /** Puts the value there for so long, and gives the lease back if it is still held. */
  write(
    key: string,
    bytes: Buffer,
    options: { readonly lifeMs: number; readonly lease?: string | undefined },
  ): Promise<void>;
  /** Gives a lease back, if it is still held. */
  release(key: string, lease: string): Promise<void>;
  delete(key: string): Promise<void>;
  /** Resolves when the server answers. */
  check(): Promise<void>;
  stats(): SharedStoreStats;
  close(): Promise<void>;
}
