import { cacheStoreContract } from "@rungs/contract/cache-store-contract";
import { describe, expect, it } from "vitest";
import { localCacheStore } from "../../src/cache/index.ts";

cacheStoreContract({ name: "local", entriesMax: 50, makeStore: () => localCacheStore({ entriesMax: 50 }) });

describe("the local cache store", () => {
  const entry = (value: unknown) => ({
    value,
    tags: [],
    asOf: 0,
    loadedAt: 0,
    freshUntil: 0,
    staleUntil: 0,
    graceUntil: 0,
  });

  it("stays within its bound of bytes, oldest out first", () => {
    const store = localCacheStore({ bytesMax: 100_000 });
    for (let index = 0; index < 100; index++) store.set(`k${index}`, entry("x".repeat(2_000)));
    expect(store.stats().bytes).toBeLessThanOrEqual(100_000);
    expect(store.get("k0")).toBeUndefined();
    expect(store.get("k99")).toBeDefined();
  });

  it("does not keep a single value over a quarter of its bytes, nor the old one under its key", () => {
    const store = localCacheStore({ bytesMax: 100_000 });
    store.set("k", entry("small"));
    store.set("k", entry("x".repeat(60_000)));
    expect(store.get("k")).toBeUndefined();
  });
});
