import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { type Cache, type CacheOptions, createCache, localCacheStore } from "../../src/cache/index.ts";
import { InvalidationLog } from "../../src/cache/invalidation-log.ts";
import { UnavailableError } from "../../src/kernel/errors.ts";

/** A clock that stands until moved, and a random number of one half: no jitter. */
function bench(options: Partial<CacheOptions> = {}) {
  let now = 0;
  const clock = { now: () => now, monotonic: () => now };
  const random = { next: () => 0.5, bytes: (count: number) => new Uint8Array(count) };
  const cache = createCache({ store: localCacheStore(), clock, random, ...options });
  return {
    cache,
    pass(ms: number) {
      now += ms;
    },
  };
}

/** A load whose end the test decides. */
function held<V>() {
  let settle: { resolve(value: V): void; reject(error: unknown): void } | undefined;
  const promise = new Promise<V>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, resolve: (value: V) => settle?.resolve(value), reject: (error: unknown) => settle?.reject(error) };
}

const down = () => new UnavailableError("DATABASE_UNREACHABLE", "down", { canRetry: true });

describe("read-through", () => {
  it("loads once and serves hits until the time is up", async () => {
    const { cache, pass } = bench();
    const load = vi.fn(async () => "v");
    for (let read = 0; read < 3; read++) expect(await cache.read("k", { ttlMs: 100 }, load)).toBe("v");
    expect(load).toHaveBeenCalledTimes(1);
    pass(101);
    await cache.read("k", { ttlMs: 100 }, load);
    expect(load).toHaveBeenCalledTimes(2);
    expect(cache.stats()).toMatchObject({ hits: 2, misses: 2, loads: 2 });
  });

  it("lets a thousand readers of one cold key share one load", async () => {
    const { cache } = bench();
    const load = held<string>();
    const loader = vi.fn(() => load.promise);
    const readers = Array.from({ length: 1_000 }, () => cache.read("k", { ttlMs: 100 }, loader));
    load.resolve("v");
    expect(new Set(await Promise.all(readers))).toEqual(new Set(["v"]));
    expect([loader.mock.calls.length, cache.stats().waits]).toEqual([1, 999]);
  });

  it("serves a stale entry at once while one refresh runs", async () => {
    const { cache, pass } = bench();
    const options = { ttlMs: 100, staleMs: 1_000 };
    await cache.read("k", options, async () => "old");
    pass(150);
    const refresh = held<string>();
    const loader = vi.fn(() => refresh.promise);
    expect(await Promise.all([1, 2, 3].map(() => cache.read("k", options, loader)))).toEqual(["old", "old", "old"]);
    expect(loader).toHaveBeenCalledTimes(1);
    refresh.resolve("new");
    await vi.waitFor(async () => expect(await cache.read("k", options, loader)).toBe("new"));
  });

  it("bridges a failing load with the last value within the grace, and no longer", async () => {
    const { cache, pass } = bench();
    const options = { ttlMs: 100, graceMs: 1_000 };
    await cache.read("k", options, async () => "last");
    pass(500);
    expect(await cache.read("k", options, () => Promise.reject(down()))).toBe("last");
    pass(1_000);
    await expect(cache.read("k", options, () => Promise.reject(down()))).rejects.toThrow("down");
  });

  it("gives a load's error to all who wait, hides no bug behind old values, and caches no error", async () => {
    const { cache, pass } = bench();
    const options = { ttlMs: 100, graceMs: 1_000 };
    const failing = held<string>();
    const readers = [1, 2, 3].map(() => cache.read("k", options, () => failing.promise));
    failing.reject(new Error("bug"));
    for (const result of await Promise.allSettled(readers)) expect(result.status).toBe("rejected");
    expect(await cache.read("k", options, async () => "v")).toBe("v");
    pass(101);
    await expect(cache.read("k", options, () => Promise.reject(new Error("bug")))).rejects.toThrow("bug");
  });

  it("remembers for a short while that a thing is not there", async () => {
    const { cache, pass } = bench();
    const load = vi.fn(async () => undefined);
    for (let read = 0; read < 2; read++) expect(await cache.read("k", { ttlMs: 60_000 }, load)).toBeUndefined();
    expect(load).toHaveBeenCalledTimes(1);
    pass(1_001);
    await cache.read("k", { ttlMs: 60_000 }, load);
    expect(load).toHaveBeenCalledTimes(2);
  });

  it("spreads expiry by a tenth either way", async () => {
    for (const [next, lifeMs] of [
      [0, 90],
      [0.999999, 110],
    ] as const) {
      const { cache, pass } = bench({ random: { next: () => next, bytes: () => new Uint8Array() } });
      const load = vi.fn(async () => 1);
      await cache.read("k", { ttlMs: 100 }, load);
      pass(lifeMs - 1);
      await cache.read("k", { ttlMs: 100 }, load);
      expect(load).toHaveBeenCalledTimes(1);
      pass(2);
      await cache.read("k", { ttlMs: 100 }, load);
      expect(load).toHaveBeenCalledTimes(2);
    }
  });

  it("freezes what it keeps, so that a reader who changes it fails at once", async () => {
    const { cache } = bench({ freeze: true });
    await cache.read("k", { ttlMs: 100 }, async () => ({ list: [{ n: 1 }] }));
    const value = await cache.read("k", { ttlMs: 100 }, async () => ({ list: [{ n: 0 }] }));
    expect(() => Object.assign(value.list[0] as object, { n: 2 })).toThrow(TypeError);
  });

  it("bounds loads at once, their queue and their time", async () => {
    const { cache } = bench({ loadsMax: 2, loadQueueMax: 3, loadTimeoutMs: 50 });
    const signals: AbortSignal[] = [];
    const reads = Array.from({ length: 6 }, (_, index) =>
      cache.read(`k${index}`, { ttlMs: 1 }, ({ signal }) => {
        signals.push(signal);
        return new Promise<never>(() => {});
      }),
    );
    const results = await Promise.allSettled(reads);
    const codes = results.map((result) => (result.status === "rejected" ? result.reason.code : "fine"));
    expect(codes.filter((code) => code === "OVERLOADED")).toHaveLength(1);
    expect(codes.filter((code) => code === "CACHE_LOAD_FAILED")).toHaveLength(5);
    expect(signals.every((signal) => signal.aborted)).toBe(true);
  });

  it("loads every time when it is off, within the same bounds", async () => {
    const { cache } = bench({ store: null });
    const load = vi.fn(async () => 1);
    await cache.read("k", { ttlMs: 100 }, load);
    await cache.read("k", { ttlMs: 100 }, load);
    expect([cache.isOff, load.mock.calls.length]).toEqual([true, 2]);
  });
});

describe("invalidation", () => {
  it("ends entries of the tag at once, stale and in grace too, and no others", async () => {
    const { cache, pass } = bench();
    const options = { ttlMs: 100, staleMs: 1_000, graceMs: 1_000 };
    await cache.read("a", { ...options, tags: ["t"] }, async () => "old");
    await cache.read("b", { ...options, tags: ["u"] }, async () => "kept");
    pass(150);
    cache.invalidate(["t"]);
    await expect(cache.read("a", options, () => Promise.reject(down()))).rejects.toThrow("down");
    expect(await cache.read("a", options, async () => "new")).toBe("new");
    expect(await cache.read("b", options, async () => "loaded")).toBe("kept");
  });

  it("keeps out a load that began before it, also by a tag named only during the load", async () => {
    for (const naming of ["before", "during"] as const) {
      const { cache } = bench();
      const load = held<string>();
      const options = { ttlMs: 100, tags: naming === "before" ? ["t"] : [] };
      const early = cache.read("k", options, async (context) => {
        const value = await load.promise;
        context.tag("t");
        return value;
      });
      cache.invalidate(["t"]);
      const late = cache.read("k", options, async (context) => {
        context.tag("t");
        return "new";
      });
      load.resolve("old");
      expect([await early, await late]).toEqual(["old", "new"]);
      expect(await cache.read("k", options, async () => "again")).not.toBe("old");
    }
  });

  it("never lets a reader see what was replaced before it came (property)", async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), scenario(), (scheduler, steps) =>
        play(scheduler, steps, bench({ tagsMax: 2 }).cache),
      ),
    );
  });

  it("would be found wrong without the check of loads that began earlier (planted fault)", async () => {
    vi.spyOn(InvalidationLog.prototype, "isCurrent").mockReturnValue(true);
    const property = fc.asyncProperty(fc.scheduler(), scenario(), (scheduler, steps) =>
      play(scheduler, steps, bench().cache),
    );
    const { failed } = await fc.check(property, { numRuns: 500 });
    vi.restoreAllMocks();
    expect(failed).toBe(true);
  });

  it("forgets tags beyond its bound by trusting less, never more", () => {
    const log = new InvalidationLog(2);
    const before = log.now;
    for (const tag of ["a", "b", "c", "d"]) log.invalidate([tag]);
    expect(log.isCurrent(["a"], before)).toBe(false);
    expect(log.isCurrent(["untouched"], before)).toBe(false);
    expect(log.isCurrent(["untouched"], log.now)).toBe(true);
  });
});

interface Step {
  readonly kind: "read" | "write" | "noise";
  readonly key: string;
}

function scenario() {
  return fc.array(
    fc.record({
      kind: fc.constantFrom("read", "write", "noise"),
      key: fc.constantFrom("a", "b"),
    }) as fc.Arbitrary<Step>,
    {
      minLength: 2,
      maxLength: 30,
    },
  );
}

/** Writers commit and then invalidate; loads read the committed value after a delay that the scheduler decides. */
async function play(scheduler: fc.Scheduler, steps: readonly Step[], cache: Cache): Promise<void> {
  const committed = new Map([
    ["a", 0],
    ["b", 0],
  ]);
  const invalidated = new Map(committed);
  let noise = 0;
  const act = async ({ kind, key }: Step): Promise<void> => {
    if (kind === "noise") return cache.invalidate([`noise${noise++}`]);
    if (kind === "write") {
      const version = (committed.get(key) as number) + 1;
      committed.set(key, version);
      await scheduler.schedule(Promise.resolve(), "between commit and invalidation");
      cache.invalidate([key]);
      invalidated.set(key, Math.max(version, invalidated.get(key) as number));
      return;
    }
    const atLeast = invalidated.get(key) as number;
    const seen = await cache.read(key, { ttlMs: 1_000_000, staleMs: 1_000_000 }, async (context) => {
      await scheduler.schedule(Promise.resolve(), "before the database answers");
      const value = committed.get(key) as number;
      await scheduler.schedule(Promise.resolve(), "on the way back");
      context.tag(key);
      return value;
    });
    expect(seen).toBeGreaterThanOrEqual(atLeast);
  };
  const work = steps.map((step, index) => scheduler.schedule(Promise.resolve(), `step ${index}`).then(() => act(step)));
  await scheduler.waitFor(Promise.all(work));
}
