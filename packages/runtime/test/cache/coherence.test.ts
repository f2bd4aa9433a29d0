/** What people see of each other's and their own writes through the caches of three web processes. */
import { setTimeout as sleep } from "node:timers/promises";
import { startTestMemcached } from "@rungs/contract/test-memcached";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CounterSite, startCounterSite } from "./support/counter-site.ts";
import { checkStaleness } from "./support/staleness-checker.ts";

/** What docs/using/cache.md states for others' writes while nothing fails, and whatever happens to Redis. */
const usualMsMax = 500;
const boundMs = 2_000;
const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);
/** How often everything that can be disturbed is, one after the other; `COHERENCE_ROUNDS=20` for more. */
const rounds = Number(process.env["COHERENCE_ROUNDS"] ?? 1);

let server: TestRedis;
let site: CounterSite;
beforeAll(async () => {
  server = await startTestRedis();
  site = await startCounterSite({ redisUrl: server.url, count: 3 });
});
afterAll(async () => {
  await site?.stop();
  await server?.stop();
});

const run = (ms: number, part: number) =>
  checkStaleness({
    addresses: site.processes.map(({ address }) => address),
    ...{ seed: seed + part, people: 12, keys: 5, ms },
  });

const hits = async () => {
  const figures = await Promise.all(site.processes.map((each) => each.figures()));
  return figures.reduce((sum, { hits = 0 }) => sum + hits, 0);
};

describe(`the caches of three processes over one Redis, seed ${seed}`, () => {
  it("show nobody an own write late, and others' writes within the usual bound", async () => {
    const before = await hits();
    const seen = await run(4_000, 1);
    const hit = (await hits()) - before;
    console.log("undisturbed", seen, { hit });
    expect(seen.staleOwnReads).toEqual([]);
    expect([seen.failures, seen.reads > 200, seen.writes > 50]).toEqual([0, true, true]);
    expect(seen.staleMsMax).toBeLessThan(usualMsMax);
    expect(hit).toBeGreaterThan(seen.reads / 10);
  });

  it("keep to the bound while connections are killed", async () => {
    let isOver = false;
    const kill = async () => {
      while (!isOver) {
        for (const type of ["pubsub", "normal"]) {
          await sleep(150);
          await server.cli("client", "kill", "type", type, "skipme", "yes");
        }
      }
    };
    const [seen] = await Promise.all([
      run(5_000, 2).finally(() => {
        isOver = true;
      }),
      kill(),
    ]);
    console.log("connections killed", seen);
    expect(seen.staleOwnReads).toEqual([]);
    expect(seen.reads).toBeGreaterThan(100);
    expect(seen.staleMsMax).toBeLessThan(boundMs);
  });

  it("keep to the bound while Redis stands still for longer and shorter times", async () => {
    const freeze = async () => {
      for (const ms of [300, 900, 1_300, 3_500]) {
        await sleep(700);
        server.freeze(true);
        await sleep(ms);
        server.freeze(false);
      }
    };
    const [seen] = await Promise.all([run(11_000, 3), freeze()]);
    console.log("frozen", seen);
    expect(seen.staleOwnReads).toEqual([]);
    expect(seen.reads).toBeGreaterThan(100);
    expect(seen.staleMsMax).toBeLessThan(boundMs);
  });

  it("would be found wrong without the bus (planted fault: each process hears only itself)", async () => {
    const deaf = await startCounterSite({ redisUrl: undefined, count: 3 });
    const addresses = deaf.processes.map(({ address }) => address);
    let found = 0;
    for (let part = 0; part < 5 && found === 0; part++) {
      const seen = await checkStaleness({ addresses, seed: seed + part, people: 12, keys: 5, ms: 2_000 });
      found = seen.staleOwnReads.length;
    }
    await deaf.stop();
    expect(found).toBeGreaterThan(0);
  }, 60_000);

  it("keep to the bound over a restart of Redis with nothing", async () => {
    const restart = async () => {
      await sleep(1_500);
      await server.restart();
    };
    const [seen] = await Promise.all([run(4_000, 4), restart()]);
    console.log("restarted empty", seen);
    expect(seen.staleOwnReads).toEqual([]);
    expect(seen.staleMsMax).toBeLessThan(boundMs);
  });
});

const stores = {
  redis: () => startTestRedis({ settings: { maxmemory: "64mb", "maxmemory-policy": "allkeys-lru" } }),
  memcached: () => startTestMemcached(),
};

describe.each(Object.entries(stores))(`with a shared cache in %s, seed ${seed}`, (name, startStore) => {
  it(
    "nobody sees an own write late, whatever happens to Redis, to the cache and to a process",
    async () => {
      const [redis, store] = await Promise.all([startTestRedis(), startStore()]);
      const shared = await startCounterSite({ redisUrl: redis.url, cacheUrl: store.url, count: 3 });
      const addresses = shared.processes.map(({ address }) => address);
      const check = (ms: number, part: number) =>
        checkStaleness({ addresses, seed: seed + part, people: 12, keys: 5, ms });
      const seen = await check(3_000, 1);
      const figures = await Promise.all(shared.processes.map((each) => each.figures()));
      const sum = (kind: string) => figures.reduce((total, each) => total + (each[kind] ?? 0), 0);
      console.log(name, "undisturbed", seen, { local: sum("hits"), shared: sum("sharedHits"), loads: sum("loads") });
      expect([seen.staleOwnReads, seen.failures]).toEqual([[], 0]);
      expect(seen.staleMsMax).toBeLessThan(usualMsMax);
      expect(sum("sharedHits")).toBeGreaterThan(20);

      const disturb = async () => {
        for (let round = 0; round < rounds; round++) {
          await sleep(500);
          store.freeze(true);
          await sleep(700);
          store.freeze(false);
          await sleep(300);
          await redis.cli("client", "kill", "type", "pubsub", "skipme", "yes");
          await store.restart();
          await sleep(300);
          redis.freeze(true);
          await sleep(1_200);
          redis.freeze(false);
        }
      };
      const [disturbed] = await Promise.all([check(900 + 3_400 * rounds, 2), disturb()]);
      console.log(name, "disturbed", disturbed);
      expect(disturbed.staleOwnReads).toEqual([]);
      expect(disturbed.reads).toBeGreaterThan(50 * rounds);
      expect(disturbed.staleMsMax).toBeLessThan(boundMs);

      // One that has just started judges what the others cached before it heard of anything.
      await shared.processes[0]?.kill();
      addresses[0] = (await shared.add()).address;
      const late = await check(2_000, 3);
      expect([late.staleOwnReads, late.reads > 100]).toEqual([[], true]);
      await shared.stop();
      await Promise.all([redis.stop(), store.stop()]);
    },
    60_000 + 10_000 * rounds,
  );
});
