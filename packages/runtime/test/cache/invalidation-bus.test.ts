/** The bus between the caches of two processes, over a real Redis that loses, delays and forgets. */
import { startTestCluster, startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { until } from "@rungs/contract/until";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { redisInvalidationChannel } from "../../src/cache/drivers/redis-invalidation-channel.ts";
import {
  type Cache,
  createCache,
  type InvalidationBus,
  type InvalidationBusOptions,
  localCacheStore,
  openInvalidationBus,
} from "../../src/cache/index.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";

interface Process {
  readonly bus: InvalidationBus;
  readonly cache: Cache;
  readonly way: UnreliableWay;
  readonly redis: Redis;
  /** Reads "k"; gives which load the value is of. */
  read(): Promise<number>;
}

let server: TestRedis;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  server = await startTestRedis();
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(() => server?.stop());

async function startProcess(options: Partial<InvalidationBusOptions> = {}): Promise<Process> {
  const way = await openUnreliableWay({ port: server.port });
  closing.push(() => way.cut());
  const redis = await openRedis({ url: `redis://127.0.0.1:${way.port}`, commandMs: 300, pingMs: 200 });
  closing.push(() => redis.close());
  const bus = await openInvalidationBus({ channel: redisInvalidationChannel({ redis }), ...options });
  closing.push(() => bus.close());
  const cache = createCache({ store: localCacheStore(), bus });
  let loads = 0;
  const read = () => cache.read("k", { ttlMs: 60_000, tags: ["t"] }, async () => ++loads);
  return { bus, cache, way, redis, read };
}

const twoProcesses = async (options: Partial<InvalidationBusOptions> = {}) => [
  await startProcess(options),
  await startProcess(options),
];

const fast = { staleMsMax: 400, markEveryMs: 50 };

describe("an invalidation", () => {
  it("ends the entries of all processes, once in each", async () => {
    const [one, other] = (await twoProcesses()) as [Process, Process];
    expect([await one.read(), await one.read(), await other.read(), await other.read()]).toEqual([1, 1, 1, 1]);
    await one.cache.invalidate(["t"]);
    expect(await one.read()).toBe(2);
    await expect.poll(() => other.read()).toBe(2);
    await one.bus.catchUp(other.bus.newest());
    expect(await one.read()).toBe(2);
    await one.cache.invalidate(["unrelated"]);
    await other.bus.catchUp(one.bus.newest());
    expect([await one.read(), await other.read(), other.bus.stats().heard]).toEqual([2, 2, 2]);
  });

  it("is seen by a reader who knows its number, without waiting once it is heard", async () => {
    const [one, other] = (await twoProcesses()) as [Process, Process];
    await other.read();
    await one.cache.invalidate(["t"]);
    const number = await one.bus.settled();
    await other.bus.catchUp(number);
    expect([await other.read(), other.bus.stats().missed]).toEqual([2, 0]);
    const { waits } = other.bus.stats();
    await other.bus.catchUp(number);
    expect(other.bus.stats().waits).toBe(waits);
  });

  it("that is known of but does not come costs one wait and everything cached, once", async () => {
    const [one] = (await twoProcesses()) as [Process, Process];
    await one.read();
    const never = one.bus.newest() + 1e12;
    await Promise.all([one.bus.catchUp(never), one.bus.catchUp(never)]);
    expect(await one.read()).toBe(2);
    const since = performance.now();
    await one.bus.catchUp(never);
    expect([await one.read(), performance.now() - since < 20]).toEqual([2, true]);
  });

  it("that was lost is found out by the next mark, and everything cached is dropped", async () => {
    const [one] = (await twoProcesses(fast)) as [Process, Process];
    await one.read();
    await server.cli("incr", "rungs:{cache}:number");
    await expect.poll(() => one.read()).toBe(2);
    expect(one.bus.stats().gaps).toBe(1);
  });

  it("has a number above all before, also when Redis has forgotten them", async () => {
    const [one, other] = (await twoProcesses()) as [Process, Process];
    await one.cache.invalidate(["t"]);
    const before = await one.bus.settled();
    await server.cli("set", "rungs:{cache}:number", String(before + 5_000_000));
    await other.cache.invalidate(["t"]);
    const ahead = await other.bus.settled();
    await server.cli("flushall");
    await other.cache.invalidate(["t"]);
    expect([ahead > before + 5_000_000, (await other.bus.settled()) > ahead]).toEqual([true, true]);
    await one.bus.catchUp(other.bus.newest());
    expect(one.bus.stats().missed).toBe(0);
  });
});

describe("a process that is cut off", () => {
  it("serves nothing that was loaded longer ago than the bound, and everything anew when it is back", async () => {
    const [one, other] = (await twoProcesses(fast)) as [Process, Process];
    await one.read();
    await other.read();
    other.way.silence(true);
    await one.cache.invalidate(["t"]);
    const since = performance.now();
    await expect.poll(() => other.read(), { interval: 5 }).toBe(2);
    expect(performance.now() - since).toBeLessThan(fast.staleMsMax + 100);
    // What was loaded meanwhile is still shared by the readers of a bound, so the database is not run over.
    expect([await other.read(), await other.read()]).toEqual([2, 2]);
    await other.way.cut();
    other.way.silence(false);
    await other.way.open();
    await until("it hears again", async () => other.bus.stats().heardMsAgo < fast.staleMsMax);
    const value = await other.read();
    await new Promise((resolve) => setTimeout(resolve, 2 * fast.staleMsMax));
    expect(await other.read()).toBe(value);
  });

  it("says that its changes are not told, and tells them when it is back", async () => {
    const [one, other] = (await twoProcesses(fast)) as [Process, Process];
    expect([await one.read(), await other.read()]).toEqual([1, 1]);
    one.way.silence(true);
    const since = performance.now();
    await one.cache.invalidate(["t"]);
    expect(performance.now() - since).toBeLessThan(1_000);
    expect(await one.read()).toBe(2);
    await expect(one.bus.settled()).rejects.toMatchObject({ code: "CACHE_INVALIDATION_DELAYED", canRetry: false });
    expect(await other.read()).toBe(1);
    one.way.silence(false);
    await expect.poll(() => other.read(), { timeout: 5_000 }).toBe(2);
    await until("it can tell again", async () => (await one.bus.settled()) > 0);
  });

  it("repeats what it told lately over a new connection, for a server that did not hear of it", async () => {
    const [one, other] = (await twoProcesses(fast)) as [Process, Process];
    await one.cache.invalidate(["t"]);
    await other.bus.catchUp(await one.bus.settled());
    const { heard } = other.bus.stats();
    await one.way.cut();
    await one.way.open();
    await expect.poll(() => other.bus.stats().heard, { timeout: 5_000 }).toBe(heard + 1);
  });
});

describe("a process that dies", () => {
  const mortal = { ...fast, deadAfterMs: 500 };

  it("takes everything cached with it, since it may not have told its last changes; one that leaves does not", async () => {
    const [one, other] = (await twoProcesses(mortal)) as [Process, Process];
    const leaving = await openInvalidationBus({ channel: redisInvalidationChannel({ redis: other.redis }), ...mortal });
    expect(await other.read()).toBe(1);
    await leaving.close();
    await new Promise((resolve) => setTimeout(resolve, 3 * mortal.deadAfterMs));
    expect(await other.read()).toBe(1);
    const since = performance.now();
    await one.way.cut();
    await expect.poll(() => other.read(), { timeout: 5_000 }).toBe(2);
    expect(performance.now() - since).toBeLessThan(mortal.deadAfterMs + 4 * mortal.markEveryMs + 300);
    await new Promise((resolve) => setTimeout(resolve, mortal.deadAfterMs));
    expect([await other.read(), other.bus.stats().gaps]).toEqual([2, 0]);
  });
});

it("works in a Cluster", async () => {
  const cluster = await startTestCluster();
  const redis = await openRedis({ url: cluster.url });
  const bus = () => openInvalidationBus({ channel: redisInvalidationChannel({ redis }) });
  const [one, other] = await Promise.all([bus(), bus()]);
  const dropped: unknown[] = [];
  other.join({ drop: (tags) => dropped.push(tags) });
  await one.announce(["a", "b"]);
  await other.catchUp(await one.settled());
  expect([dropped, other.stats().missed]).toEqual([[["a", "b"]], 0]);
  await Promise.all([one.close(), other.close()]);
  await redis.close();
  await cluster.stop();
});
