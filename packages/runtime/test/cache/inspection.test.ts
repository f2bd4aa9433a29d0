/** What a cache says of a key: where it is in its life, and what ended it. */
import { describe, expect, it } from "vitest";
import { createCache, keyTag, localCacheStore } from "../../src/cache/index.ts";

/** A clock that stands until moved, and no jitter. */
function bench() {
  let now = 1_000;
  const clock = { now: () => now, monotonic: () => now };
  const random = { next: () => 0.5, bytes: (count: number) => new Uint8Array(count) };
  const cache = createCache({ store: localCacheStore(), clock, random });
  const read = (key = "k") =>
    cache.read(key, { ttlMs: 100, staleMs: 50, graceMs: 1_000, tags: ["t", "u"] }, async () => ({ key }));
  return {
    cache,
    read,
    local: async (key = "k") => (await cache.inspect(key)).local,
    pass(ms: number) {
      now += ms;
    },
  };
}

describe("inspecting a key", () => {
  it("follows its life, without a load and without a count", async () => {
    const { cache, read, local, pass } = bench();
    expect(await local()).toMatchObject({ notServed: "absent", ageMs: null, tags: null });
    await read();
    pass(40);
    expect(await local()).toMatchObject({ notServed: null, ageMs: 40, freshMs: 60, staleMs: 50, tags: ["t", "u"] });
    pass(80);
    expect(await local()).toMatchObject({ notServed: null, ageMs: 120, freshMs: 0, staleMs: 30 });
    pass(80);
    expect(await local()).toMatchObject({ notServed: "over", freshMs: 0, staleMs: 0 });
    expect(cache.stats()).toMatchObject({ hits: 0, misses: 1, loads: 1 });
  });

  it("names the tag that ended it", async () => {
    const { cache, read, local } = bench();
    await read();
    await cache.invalidate(["other"]);
    expect(await local()).toMatchObject({ notServed: null, endedBy: null });
    await cache.invalidate(["u"]);
    expect(await local()).toMatchObject({ notServed: "invalidated", endedBy: "u" });
  });

  it("tells a load under way and what is remembered as missing", async () => {
    const { cache, local } = bench();
    const load = Promise.withResolvers<undefined>();
    const reading = cache.read("m", { ttlMs: 100 }, () => load.promise);
    expect((await cache.inspect("m")).isLoading).toBe(true);
    load.resolve(undefined);
    await reading;
    expect((await cache.inspect("m")).isLoading).toBe(false);
    expect(await local("m")).toMatchObject({ notServed: null, isNegative: true });
  });
});

describe("the tag of a key", () => {
  it("ends this one key, also one whose load is under way", async () => {
    const { cache, read, local } = bench();
    await read();
    await read("other");
    const load = Promise.withResolvers<string>();
    const reading = cache.read("slow", { ttlMs: 100 }, () => load.promise);
    await cache.invalidate([keyTag("k"), keyTag("slow")]);
    load.resolve("old");
    await reading;
    expect(await local()).toMatchObject({ notServed: "invalidated", endedBy: keyTag("k") });
    expect(await local("slow")).toMatchObject({ notServed: "absent" });
    expect(await local("other")).toMatchObject({ notServed: null });
  });
});
