/** Two levels of cache in several processes (in this one) over real servers: one Redis carries invalidations, another values. */
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { until } from "@rungs/contract/until";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { CircuitBreaker } from "../../src/cache/circuit-breaker.ts";
import { redisCacheStore } from "../../src/cache/drivers/redis-cache-store.ts";
import { redisInvalidationChannel } from "../../src/cache/drivers/redis-invalidation-channel.ts";
import {
  type Cache,
  createCache,
  type InvalidationBus,
  localCacheStore,
  openInvalidationBus,
  type SharedCacheStore,
} from "../../src/cache/index.ts";
import { UnavailableError } from "../../src/kernel/errors.ts";
import { openRedis } from "../../src/redis/redis.ts";

interface Process {
  readonly cache: Cache;
  readonly bus: InvalidationBus;
  readonly store: SharedCacheStore;
  /** The way to the Redis that carries invalidations. */
  readonly way: UnreliableWay;
}

let carrier: TestRedis;
let values: TestRedis;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  [carrier, values] = await Promise.all([startTestRedis(), startTestRedis()]);
});
beforeEach(async () => void (await Promise.all([carrier.cli("flushall"), values.cli("flushall")])));
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(async () => void (await Promise.all([carrier?.stop(), values?.stop()])));

async function startProcess(): Promise<Process> {
  const way = await openUnreliableWay({ port: carrier.port });
  closing.push(() => way.cut());
  const redis = await openRedis({ url: `redis://127.0.0.1:${way.port}` });
  closing.push(() => redis.close());
  const valuesRedis = await openRedis({ url: values.url, commandMs: 250 });
  const store = redisCacheStore({ redis: () => valuesRedis });
  closing.push(() => store.close());
  const bus = await openInvalidationBus({ channel: redisInvalidationChannel({ redis }) });
  closing.push(() => bus.close());
  const cache = createCache({ store: localCacheStore(), bus, shared: { store, valueBytesMax: 100_000 } });
  return { cache, bus, store, way };
}

const start = (count: number) => Promise.all(Array.from({ length: count }, startProcess));
const hour = { ttlMs: 3_600_000 };
/** Once what one process loaded is there for the others. */
const stored = (key: string) =>
  until(`"${key}" is shared`, async () => (await values.cli("exists", `rungs:cache:${key}`)) === "1");

describe("a value that one process loaded", () => {
  it("is what it was in another, without a load: dates, bytes, maps, missing fields and all", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    const value = {
      at: new Date(1_234),
      bytes: new Uint8Array([0, 255]),
      map: new Map([["a", 1n]]),
      list: [undefined, null, Number.NaN, -0],
      text: "ü \u0000 \ud83d\ude00",
      large: "x".repeat(50_000),
    };
    await one.cache.read("k", hour, async () => value);
    await stored("k");
    const load = vi.fn();
    const found = await other.cache.read("k", hour, load);
    expect([found, load.mock.calls.length]).toEqual([value, 0]);
    expect((found as typeof value).at).toBeInstanceOf(Date);
    expect(Number(await values.cli("strlen", "rungs:cache:k"))).toBeLessThan(2_000);
    expect(other.cache.stats()).toMatchObject({ sharedHits: 1, loads: 0 });
    expect(await other.cache.read("k", hour, load)).toBe(found);
    expect(other.cache.stats()).toMatchObject({ hits: 1, sharedHits: 1 });
  });

  it("may be that there is none", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    await one.cache.read("none", { ...hour, negativeTtlMs: 60_000 }, async () => undefined);
    await stored("none");
    const load = vi.fn();
    expect([await other.cache.read("none", hour, load), load.mock.calls.length]).toEqual([undefined, 0]);
  });

  it("stays in the processes when it is too large or no plain data, and they do not load it one after the other", async () => {
    const processes = await start(3);
    const bytes = () => Buffer.from(Array.from({ length: 200_000 }, () => Math.floor(Math.random() * 256)));
    let atOnce = 0;
    let atOnceMax = 0;
    const load = (value: unknown) => async () => {
      atOnceMax = Math.max(atOnceMax, ++atOnce);
      await new Promise((resolve) => setTimeout(resolve, 100));
      atOnce--;
      return value;
    };
    for (const [key, value] of Object.entries({ large: bytes(), code: { run: () => 1 } })) {
      await processes[0]?.cache.read(key, hour, load(value));
      await stored(key);
      atOnceMax = 0;
      const found = await Promise.all(processes.slice(1).map(({ cache }) => cache.read(key, hour, load(value))));
      expect([found, atOnceMax]).toEqual([[value, value], 2]);
    }
  });

  it("does not serve another key, and what cannot be read is a miss", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    await one.cache.read("a", hour, async () => "of a");
    await stored("a");
    await values.cli("copy", "rungs:cache:a", "rungs:cache:b");
    expect(await other.cache.read("b", hour, async () => "of b")).toBe("of b");
    await values.cli("set", "rungs:cache:c", "AgAAAA", "px", "100000");
    expect(await other.cache.read("c", hour, async () => "of c")).toBe("of c");
    expect(other.cache.stats().sharedErrors).toBeGreaterThan(0);
  });
});

describe("an invalidation", () => {
  const tagged = { ...hour, tags: ["t"] };

  it("ends the shared value in every process, in those that start later too, and no other value", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    await one.cache.read("k", tagged, async () => "old");
    await one.cache.read("else", { ...hour, tags: ["u"] }, async () => "kept");
    await Promise.all([stored("k"), stored("else")]);
    await one.cache.invalidate(["t"]);
    const late = await startProcess();
    await other.bus.catchUp(await one.bus.settled());
    expect(await other.cache.read("k", tagged, async () => "new")).toBe("new");
    expect(await late.cache.read("else", hour, async () => "loaded")).toBe("kept");
    expect(["new", "newer"]).toContain(await late.cache.read("k", tagged, async () => "newer"));
  });

  it("is not undone by a load that began before it, however late that ends", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    let finish: (value: string) => void = () => {};
    const slow = one.cache.read("k", tagged, () => new Promise<string>((resolve) => (finish = resolve)));
    await vi.waitFor(() => expect(one.cache.stats().loads).toBe(1));
    await other.cache.invalidate(["t"]);
    await one.bus.catchUp(await other.bus.settled());
    finish("old");
    expect(await slow).toBe("old");
    expect(await one.cache.read("k", tagged, async () => "new")).toBe("new");
    expect(await other.cache.read("k", tagged, async () => "new")).toBe("new");
  });

  it("that is still on its way lets its own process keep nothing from before it", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    await other.cache.read("k", tagged, async () => "old");
    await stored("k");
    one.way.delay(150);
    const told = one.cache.invalidate(["t"]);
    // The write's call has not returned: this may still be the old value, but it must not stay.
    await one.cache.read("k", tagged, async () => "new");
    await told;
    one.way.delay(0);
    expect(await one.cache.read("k", tagged, async () => "new")).toBe("new");
  });

  it("that nobody remembers any more ends all shared values from before", async () => {
    const [one] = (await start(1)) as [Process];
    await one.cache.read("k", tagged, async () => "old");
    await stored("k");
    await carrier.cli("flushall");
    const late = await startProcess();
    expect(await late.cache.read("k", tagged, async () => "new")).toBe("new");
  });

  it("that was missed is learnt when the process is back, and all else is served on from the shared cache", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    await one.cache.read("k", tagged, async () => "old");
    await one.cache.read("else", { ...hour, tags: ["u"] }, async () => "kept");
    await Promise.all([stored("k"), stored("else")]);
    await other.way.cut();
    await one.cache.invalidate(["t"]);
    await other.way.open();
    await until("it is in step", async () => (other.bus.position() ?? 0) >= (await one.bus.settled()));
    expect(await other.cache.read("else", hour, async () => "loaded")).toBe("kept");
    expect(await other.cache.read("k", tagged, async () => "new")).toBe("new");
  });
});

describe("time", () => {
  const options = { ttlMs: 200, staleMs: 3_600_000 };

  it("makes a shared value stale: it is served at once, and one process refreshes it", async () => {
    const processes = await start(3);
    await processes[0]?.cache.read("k", options, async () => 1);
    await stored("k");
    await new Promise((resolve) => setTimeout(resolve, 250));
    const load = vi.fn(async () => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      return 2;
    });
    const late = await start(2);
    const all = [...processes, ...late];
    expect(await Promise.all(all.map(({ cache }) => cache.read("k", options, load)))).toEqual([1, 1, 1, 1, 1]);
    await expect.poll(() => late[1]?.cache.read("k", options, load)).toBe(2);
    expect(load.mock.calls.length).toBeLessThanOrEqual(2);
  });

  it("lets a shared value bridge a database that does not answer, within its grace", async () => {
    const [one, other] = (await start(2)) as [Process, Process];
    const graced = { ttlMs: 100, graceMs: 3_600_000 };
    const down = async () => {
      throw new UnavailableError("DATABASE_UNREACHABLE", "down", { canRetry: true });
    };
    await one.cache.read("k", graced, async () => "last");
    await stored("k");
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(await other.cache.read("k", graced, down)).toBe("last");
    await expect(other.cache.read("other", graced, down)).rejects.toThrow("down");
  });
});

it("a shared cache without a bus is refused", async () => {
  const store = redisCacheStore({ redis: () => undefined });
  expect(() => createCache({ store: localCacheStore(), shared: { store } })).toThrow("needs a bus");
});

describe("the circuit breaker", () => {
  function bench() {
    let now = 0;
    const clock = { now: () => now, monotonic: () => now };
    const pass = (ms: number) => {
      now += ms;
    };
    return { breaker: new CircuitBreaker({ clock, failuresMax: 3, openMs: 100, openMsMax: 300 }), pass };
  }
  const fail = (breaker: CircuitBreaker, times: number) => {
    for (let time = 0; time < times; time++) if (breaker.admits()) breaker.failed();
  };

  it("opens after failures in a row, tries one call after a while, and closes when that succeeds", () => {
    const { breaker, pass } = bench();
    fail(breaker, 2);
    breaker.succeeded();
    fail(breaker, 2);
    expect([breaker.state, breaker.admits()]).toEqual(["closed", true]);
    breaker.failed();
    expect([breaker.state, breaker.admits(), breaker.opened]).toEqual(["open", false, 1]);
    pass(100);
    expect([breaker.admits(), breaker.admits(), breaker.state]).toEqual([true, false, "half-open"]);
    breaker.succeeded();
    expect([breaker.admits(), breaker.state]).toEqual([true, "closed"]);
  });

  it("waits longer after each trial that failed, up to its bound, and is not closed by late answers from before", () => {
    const { breaker, pass } = bench();
    fail(breaker, 3);
    breaker.succeeded();
    expect(breaker.state).toBe("open");
    for (const waitMs of [100, 200, 300, 300]) {
      pass(waitMs - 1);
      expect(breaker.admits()).toBe(false);
      pass(1);
      expect(breaker.admits()).toBe(true);
      breaker.failed();
    }
  });
});
