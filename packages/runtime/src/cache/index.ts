/** The cache tier: read-through over a driver, invalidated by commits. */
export type { CacheCapabilities, CacheEntry, CacheStore, CacheStoreStats } from "./cache-store.ts";
export { type LocalCacheStoreOptions, localCacheStore } from "./drivers/local-cache-store.ts";
export {
  type Cache,
  type CacheOptions,
  type CacheStats,
  createCache,
  type LoadContext,
  type ReadOptions,
} from "./read-through.ts";
