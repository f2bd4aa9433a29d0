/**
 * The two-level cache beside bentocache (same levels, its bus over the same Redis) and beside plain get and set, in one run.
 *
 * `npm run bench:cache -- --rounds 5`: a Redis is started for it. Several caches in this process stand for several processes; each has
 * its own connections and its own local level. Per way of caching, medians of rounds of:
 *
 * - hits a second in the local level, one reader;
 * - hits a second in the shared level, 64 readers of a key each, of a row with dates and of a page of twenty;
 * - loads for 2,000 readers of one cold key in four caches, and for 1,000 keys that expired together;
 * - stale values handed out after a load that began before an invalidation ended after it, of 200 tries.
 */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startTestRedis } from "@rungs/contract/test-redis";
import { BentoCache, bentostore } from "bentocache";
import { memoryDriver } from "bentocache/drivers/memory";
import { redisBusDriver, redisDriver } from "bentocache/drivers/redis";
import { Redis } from "ioredis";
import { createCache, localCacheStore, openInvalidationBus } from "rungs/cache";
import { redisCacheStore } from "rungs/cache/redis";
import { redisInvalidationChannel } from "rungs/cache/redis/invalidations";
import { openRedis } from "rungs/redis";

/** A way of caching, as one process has it. */
interface Way {
  read<V>(key: string, options: { readonly ttlMs: number; readonly tag?: string }, load: () => Promise<V>): Promise<V>;
  invalidate(tag: string, key: string): Promise<unknown>;
  close(): Promise<unknown>;
}

interface Opener {
  readonly name: string;
  open(port: number, options: { readonly isLocal: boolean }): Promise<Way>;
}

const { values } = parseArgs({ options: { rounds: { type: "string", default: "3" } } });
const rounds = Number(values.rounds);
const caches = 4;
const readers = 64;
const timed = 1_000;

const rungs: Opener = {
  name: "rungs",
  async open(port, { isLocal }) {
    const url = `redis://127.0.0.1:${port}`;
    const redis = await openRedis({ url });
    const bus = await openInvalidationBus({ channel: redisInvalidationChannel({ redis }) });
    const store = redisCacheStore({ redis: () => redis });
    const local = localCacheStore({ entriesMax: 10_000 });
    const cache = createCache({
      store: isLocal ? local : { ...local, get: () => undefined, set() {} },
      // As in production.
      ...{ bus, shared: { store }, freeze: false },
    });
    return {
      read: (key, { ttlMs, tag }, load) =>
        cache.read(key, { ttlMs, ...(tag === undefined ? {} : { tags: [tag] }) }, load),
      invalidate: (tag) => cache.invalidate([tag]),
      async close() {
        await bus.close();
        await redis.close();
      },
    };
  },
};

const bento: Opener = {
  name: "bentocache",
  async open(port, { isLocal }) {
    const connection = { host: "127.0.0.1", port };
    const shared = bentostore().useL2Layer(redisDriver({ connection }));
    const store = isLocal
      ? shared.useL1Layer(memoryDriver({ maxItems: 10_000 })).useBus(redisBusDriver({ connection }))
      : shared;
    const cache = new BentoCache({ default: "it", stores: { it: store } });
    return {
      read: (key, { ttlMs, tag }, load) =>
        cache.getOrSet({ key, ttl: ttlMs, ...(tag === undefined ? {} : { tags: [tag] }), factory: load }),
      invalidate: (tag) => cache.deleteByTag({ tags: [tag] }),
      close: () => cache.disconnectAll(),
    };
  },
};

const plain: Opener = {
  name: "plain get and set",
  async open(port) {
    const redis = new Redis({ host: "127.0.0.1", port });
    await once(redis, "ready");
    return {
      async read(key, { ttlMs }, load) {
        const text = await redis.get(key);
        if (text !== null) return JSON.parse(text);
        const value = await load();
        await redis.set(key, JSON.stringify(value), "PX", ttlMs);
        return value;
      },
      invalidate: (_, key) => redis.del(key),
      close: async () => redis.disconnect(),
    };
  },
};

const row = (index: number) => ({
  slug: `how-to-train-your-dragon-${index}`,
  title: "How to train your dragon",
  description: "Ever wonder how?",
  tags: ["dragons", "training"],
  createdAt: new Date(),
  favorites: index,
  author: { username: `jake${index}`, bio: "I work at the farm", image: null },
});
const page = Array.from({ length: 20 }, (_, index) => row(index));
const hour = { ttlMs: 3_600_000, tag: "t" };

async function perSecond(readers: number, read: (reader: number) => Promise<unknown>): Promise<number> {
  let count = 0;
  const endsAt = performance.now() + timed;
  const reader = async (index: number) => {
    while (performance.now() < endsAt) {
      for (let turn = 0; turn < 20; turn++) await read(index);
      count += 20;
    }
  };
  const since = performance.now();
  await Promise.all(Array.from({ length: readers }, (_, index) => reader(index)));
  return (count * 1_000) / (performance.now() - since);
}

async function measure(opener: Opener, port: number, round: number): Promise<Record<string, number>> {
  const ways = await Promise.all(Array.from({ length: caches }, () => opener.open(port, { isLocal: true })));
  const far = await opener.open(port, { isLocal: false });
  const [one, other] = ways as [Way, Way];
  const name = (text: string) => `${opener.name} ${round} ${text}`;
  const forbidden = () => Promise.reject(new Error("This should have been a hit."));

  const each = Array.from({ length: readers }, (_, index) => index);
  await Promise.all(each.map((index) => one.read(name(`row ${index}`), hour, async () => row(index))));
  await Promise.all(each.map((index) => one.read(name(`page ${index}`), hour, async () => page)));
  await sleep(100);
  const nearKey = name("row 0");
  const [rowKeys, pageKeys] = ["row", "page"].map((what) => each.map((index) => name(`${what} ${index}`)));
  await other.read(nearKey, hour, forbidden);
  const local = await perSecond(1, () => other.read(nearKey, hour, forbidden));
  const sharedRow = await perSecond(readers, (index) => far.read(rowKeys?.[index] ?? "", hour, forbidden));
  const sharedPage = await perSecond(readers, (index) => far.read(pageKeys?.[index] ?? "", hour, forbidden));

  let loads = 0;
  const load = async () => {
    loads++;
    await sleep(100);
    return row(1);
  };
  await Promise.all(Array.from({ length: 2_000 }, (_, index) => ways[index % caches]?.read(name("cold"), hour, load)));
  const coldLoads = loads;

  const keys = Array.from({ length: 1_000 }, (_, index) => name(`key ${index}`));
  const brief = { ttlMs: 2_000 };
  await Promise.all(keys.map((key, index) => ways[index % caches]?.read(key, brief, load)));
  await sleep(2_400);
  loads = 0;
  await Promise.all(keys.flatMap((key) => ways.map((way) => way.read(key, brief, load))));
  const expiredLoads = loads;

  let stale = 0;
  await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const [key, tag] = [name(`race ${index}`), `race ${round} ${index}`];
      let version = 1;
      // Reads the old version, and takes its time.
      const slow = one.read(key, { ttlMs: 3_600_000, tag }, async () => {
        const seen = version;
        await sleep(50);
        return seen;
      });
      await sleep(20);
      version = 2;
      await other.invalidate(tag, key);
      await slow;
      await sleep(100);
      const seen = await Promise.all(ways.map((way) => way.read(key, { ttlMs: 3_600_000, tag }, async () => version)));
      if (seen.some((value) => value !== 2)) stale++;
    }),
  );
  await Promise.all([...ways, far].map((way) => way.close()));
  return {
    "local hits/s": local,
    "shared hits/s, a row": sharedRow,
    "shared hits/s, a page": sharedPage,
    "loads: 1 cold key, 2,000 readers": coldLoads,
    "loads: 1,000 expired keys": expiredLoads,
    "stale after an invalidation, of 200": stale,
  };
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((left, right) => left - right)[Math.floor(numbers.length / 2)] as number;
}

const redis = await startTestRedis();
const results = new Map<string, Record<string, number>[]>();
for (let round = 0; round < rounds; round++) {
  for (const opener of [rungs, bento, plain]) {
    results.set(opener.name, [...(results.get(opener.name) ?? []), await measure(opener, redis.port, round)]);
  }
}
await redis.stop();
const table = Object.fromEntries(
  [...results].map(([name, all]) => [
    name,
    Object.fromEntries(
      Object.keys(all[0] ?? {}).map((what) => [what, Math.round(median(all.map((each) => each[what] ?? 0)))]),
    ),
  ]),
);
console.table(table);
