/** What every cache store must do. Run it against each driver. */
import type { CacheEntry, CacheStore } from "rungs/cache";
import { describe, expect, it } from "vitest";

/** `makeStore` gives an empty store each time; `entriesMax` is the bound it was made with. */
export function cacheStoreContract(options: {
  readonly name: string;
  readonly entriesMax: number;
  makeStore(): CacheStore;
}): void {
  const entry = (value: unknown): CacheEntry => ({
    value,
    tags: ["a", "b"],
    asOf: 3,
    loadedAt: 0,
    freshUntil: 1,
    staleUntil: 2,
    graceUntil: 3,
  });

  describe(`the cache store contract: ${options.name}`, () => {
    it("gives back what was set, whole, and nothing for an unknown key", () => {
      const store = options.makeStore();
      expect(store.get("k")).toBeUndefined();
      store.set("k", entry({ deep: [1, "two", null] }));
      expect(store.get("k")).toEqual(entry({ deep: [1, "two", null] }));
    });

    it("keeps a negative entry apart from no entry", () => {
      const store = options.makeStore();
      store.set("k", entry(undefined));
      expect(store.get("k")).toEqual(entry(undefined));
    });

    it("replaces, deletes and clears", () => {
      const store = options.makeStore();
      store.set("k", entry(1));
      store.set("k", entry(2));
      expect(store.get("k")?.value).toBe(2);
      store.delete("k");
      store.delete("never there");
      expect(store.get("k")).toBeUndefined();
      store.set("l", entry(1));
      store.clear();
      expect([store.get("l"), store.stats().entries]).toEqual([undefined, 0]);
    });

    it("tells keys apart whatever they hold", () => {
      const store = options.makeStore();
      const keys = ["", " ", "a", "A", "a:b", "a\u0000b", "__proto__", "constructor", "ä", "k".repeat(1_000)];
      for (const key of keys) store.set(key, entry(key));
      for (const key of keys) expect(store.get(key)?.value).toBe(key);
    });

    it("stays within its bound of entries", () => {
      const store = options.makeStore();
      for (let index = 0; index < options.entriesMax * 3; index++) store.set(`k${index}`, entry(index));
      expect(store.stats().entries).toBeLessThanOrEqual(options.entriesMax);
      expect(store.get(`k${options.entriesMax * 3 - 1}`)?.value).toBe(options.entriesMax * 3 - 1);
    });

    it("declares its capabilities", () => {
      expect(options.makeStore().capabilities).toEqual({ isShared: expect.any(Boolean) });
    });
  });
}
