/** Many readers of what is not there, in four real processes over one database; loads are counted in the database. */
import { setTimeout as sleep } from "node:timers/promises";
import { startTestMemcached, type TestMemcached } from "@rungs/contract/test-memcached";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CounterSite, startCounterSite } from "./support/counter-site.ts";

/** What a dead process's lease takes to end, as in `shared-level.ts`. */
const leaseMs = 2_000;

const stores = { redis: () => startTestRedis(), memcached: () => startTestMemcached() };

describe.each(Object.entries(stores))("four processes with a shared cache in %s", (name, startStore) => {
  let redis: TestRedis;
  let store: TestRedis | TestMemcached;
  let site: CounterSite;
  let database: pg.Client;
  beforeAll(async () => {
    [redis, store] = await Promise.all([startTestRedis(), startStore()]);
    site = await startCounterSite({ redisUrl: redis.url, cacheUrl: store.url, count: 4 });
    database = new pg.Client(site.databaseUrl);
    await database.connect();
  });
  afterAll(async () => {
    await database?.end();
    await site?.stop();
    await Promise.all([redis?.stop(), store?.stop()]);
  });

  const loadsOf = async (like: string) => {
    const { rows } = await database.query("select count(*)::int as count from loads where key like $1", [like]);
    return rows[0].count as number;
  };
  const read = async (process: number, path: string) => {
    const answer = await fetch(`${site.processes[process]?.address}${path}`);
    return `${answer.status} ${await answer.text()}`;
  };

  it("load one cold key once for 2,000 readers at the same time", async () => {
    const since = performance.now();
    const asked = Array.from({ length: 2_000 }, (_, index) => read(index % 4, "/open/cold?slow=300"));
    expect(new Set(await Promise.all(asked))).toEqual(new Set(["200 0"]));
    console.log(name, "2,000 readers of one cold key", { loads: await loadsOf("cold"), ms: performance.now() - since });
    expect(await loadsOf("cold")).toBe(1);
  });

  it("load each of 1,000 keys that expire together at most once", { retry: 2, timeout: 60_000 }, async () => {
    // A machine that stalls for seconds makes processes give up waiting for each other, as they should: then once more, with new keys.
    const prefix = `together${crypto.randomUUID().slice(0, 8)}`;
    const keys = Array.from({ length: 1_000 }, (_, index) => `${prefix}${index}`);
    const path = (key: string, ttlMs: number) => `/open/${key}?slow=1&ttl=${ttlMs}&stale=0`;
    await Promise.all(keys.map((key, index) => read(index % 4, path(key, 3_000))));
    expect(await loadsOf(`${prefix}%`)).toBe(1_000);
    await sleep(3_400);
    const bypasses = async () => {
      const figures = await Promise.all(site.processes.map((each) => each.figures()));
      return figures.reduce((sum, { sharedBypassed = 0 }) => sum + sharedBypassed, 0);
    };
    const before = await bypasses();
    await Promise.all(keys.flatMap((key) => [0, 1, 2, 3].map((process) => read(process, path(key, 60_000)))));
    // On a machine that stalls, a process may take the shared level for dead and load by itself for a while, as it should.
    const bypassed = (await bypasses()) - before;
    console.log(name, "1,000 keys that expired together", { loads: (await loadsOf(`${prefix}%`)) - 1_000, bypassed });
    expect((await loadsOf(`${prefix}%`)) - 1_000).toBeLessThanOrEqual(1_000 + bypassed);
  });

  it("load again what a killed process was loading, within the time of a lease", async () => {
    const victim = await site.add();
    fetch(`${victim.address}/open/orphan?slow=60000`).catch(() => {});
    await until("it loads", async () => (await loadsOf("orphan")) === 1);
    const others = Array.from({ length: 40 }, (_, index) => read(index % 4, "/open/orphan?slow=20"));
    await sleep(100);
    const since = performance.now();
    await victim.kill();
    expect(new Set(await Promise.all(others))).toEqual(new Set(["200 0"]));
    const ms = performance.now() - since;
    console.log(name, "after a lease holder was killed", { ms, loads: await loadsOf("orphan") });
    expect(ms).toBeLessThan(leaseMs + 300);
    expect(await loadsOf("orphan")).toBe(2);
  });

  it("keep a lease for as long as a load takes", async () => {
    const slowMs = leaseMs + 1_500;
    const first = read(0, `/open/long?slow=${slowMs}`);
    await until("it loads", async () => (await loadsOf("long")) === 1);
    expect(await Promise.all([first, read(1, `/open/long?slow=${slowMs}`), read(2, "/open/long?slow=1")])).toEqual(
      Array(3).fill("200 0"),
    );
    expect(await loadsOf("long")).toBe(1);
  });

  it("answer while the shared cache is frozen, gone, and back with nothing, without a herd at the database", async () => {
    const keys = Array.from({ length: 20 }, (_, index) => `hot${index}`);
    const [phaseMs, ttlMs] = [2_500, 2_000];
    let isOver = false;
    let answers = 0;
    const wrong: string[] = [];
    const times: number[] = [];
    const reader = async (process: number) => {
      for (let turn = process; !isOver; turn++) {
        const since = performance.now();
        const answer = await read(process, `/open/${keys[turn % keys.length]}?slow=5&ttl=${ttlMs}&stale=2000`);
        times.push(performance.now() - since);
        answers++;
        if (answer !== "200 0") wrong.push(answer);
        await sleep(2);
      }
    };
    const loads = async (what: string, ms: number) => {
      const before = await loadsOf("hot%");
      await sleep(ms);
      const count = (await loadsOf("hot%")) - before;
      console.log(name, what, { loadsPerSecond: (count * 1_000) / ms });
      return count;
    };
    const disturb = async () => {
      const usual = await loads("usual", phaseMs);
      store.freeze(true);
      const frozen = await loads("frozen", phaseMs);
      store.freeze(false);
      await store.kill();
      const gone = await loads("gone", phaseMs);
      await store.restart();
      const back = await loads("back with nothing", phaseMs);
      isOver = true;
      // Each process refreshes each key every two seconds when it is alone with its cache; those of all together are shared.
      const refreshes = Math.ceil(phaseMs / ttlMs) + 1;
      const alone = 4 * keys.length * refreshes;
      expect([usual <= refreshes * keys.length, frozen <= alone, gone <= alone, back <= alone]).toEqual(
        Array(4).fill(true),
      );
    };
    const readers = Array.from({ length: 16 }, (_, index) => reader(index % 4));
    await disturb().finally(() => {
      isOver = true;
    });
    await Promise.all(readers);
    const [p99, max] = [times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)], times.at(-1)];
    console.log(name, "disturbed", { answers, p99, max });
    expect(wrong).toEqual([]);
    expect(p99).toBeLessThan(300);
    expect(max).toBeLessThan(1_500);
  });
});
