/** The cache tier: read-through over a driver, invalidated by commits. */
export type { CacheCapabilities, CacheEntry, CacheStore, CacheStoreStats } from "./cache-store.ts";
export { type LocalCacheStoreOptions, localCacheStore } from "./drivers/local-cache-store.ts";
export type { HotKey, HottestKeys } from "./hot-keys.ts";
export { type KeyInspection, keyTag, type LevelInspection, type NotServed } from "./inspection.ts";
export {
  type InvalidationBus,
  type InvalidationBusOptions,
  type InvalidationBusStats,
  type InvalidationTarget,
  openInvalidationBus,
} from "./invalidation-bus.ts";
export type {
  AnnounceOptions,
  CommitMarks,
  HeardInvalidation,
  InvalidatedTags,
  InvalidationChannel,
  InvalidationListener,
  RememberedInvalidations,
} from "./invalidation-channel.ts";
export {
  type Cache,
  type CacheOptions,
  type CacheStats,
  createCache,
  type LoadContext,
  type ReadOptions,
} from "./read-through.ts";
export type {
  Acquired,
  FoundValue,
  SharedCacheCapabilities,
  SharedCacheStore,
  SharedStoreStats,
} from "./shared-cache-store.ts";
export type { SharedLevelOptions, SharedLevelStats } from "./shared-level.ts";
