/** In-process cache driver on lru-cache: bounded by entries and by estimated bytes, least recently used out first. */
import { LRUCache } from "lru-cache";
import type { CacheEntry, CacheStore } from "../cache-store.ts";

export interface LocalCacheStoreOptions {
  /** Default 10,000. */
  readonly entriesMax?: number;
  /** Estimated bytes of all values; default 64 MiB. A single value over a quarter of it is not kept. */
  readonly bytesMax?: number;
}

/** Opens an empty in-process store. */
export function localCacheStore(options: LocalCacheStoreOptions = {}): CacheStore {
  const { entriesMax = 10_000, bytesMax = 64 * 1024 * 1024 } = options;
  const entries = new LRUCache<string, CacheEntry>({
    max: entriesMax,
    maxSize: bytesMax,
    maxEntrySize: Math.ceil(bytesMax / 4),
    sizeCalculation: (entry, key) => 2 * key.length + 200 + estimateBytes(entry.value, 0),
  });
  return {
    capabilities: { isShared: false },
    get: (key) => entries.get(key),
    set: (key, entry) => void entries.set(key, entry),
    delete: (key) => void entries.delete(key),
    clear: () => entries.clear(),
    stats: () => ({ entries: entries.size, bytes: entries.calculatedSize }),
  };
}

/** Rough size in memory: two bytes a character, some overhead an object. Depth is bounded; values are plain data. */
function estimateBytes(value: unknown, depth: number): number {
  if (typeof value === "string") return 16 + 2 * value.length;
  if (typeof value !== "object" || value === null) return 8;
  if (ArrayBuffer.isView(value)) return 64 + value.byteLength;
  if (depth > 16) return 64;
  let bytes = 40;
  for (const [key, item] of Object.entries(value)) bytes += 8 + key.length + estimateBytes(item, depth + 1);
  return bytes;
}
