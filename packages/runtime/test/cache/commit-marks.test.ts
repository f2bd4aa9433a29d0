/** What announcements say of the commits that they stand for, over a real Redis and beside processes that say nothing. */
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { redisInvalidationChannel } from "../../src/cache/drivers/redis-invalidation-channel.ts";
import {
  type CommitMarks,
  createCache,
  type InvalidatedTags,
  type InvalidationBus,
  type InvalidationTarget,
  localCacheStore,
  openInvalidationBus,
} from "../../src/cache/index.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";

type Told = [InvalidatedTags, CommitMarks | undefined] | boolean;

let server: TestRedis;
let redis: Redis;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  server = await startTestRedis();
  redis = await openRedis({ url: server.url });
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(async () => {
  await redis?.close();
  await server?.stop();
});

async function listenerOf(told: Told[]): Promise<InvalidationBus> {
  const first: InvalidationTarget = {
    drop: (tags, upTo) => void told.push([tags, upTo]),
    stepChanged: (isInStep) => void told.push(isInStep),
  };
  const bus = await openInvalidationBus({ channel: redisInvalidationChannel({ redis }), first });
  closing.push(() => bus.close());
  return bus;
}

describe("an announcement", () => {
  it("says how far the shards had got, here and to all others, before its number counts as heard", async () => {
    const [here, there]: [Told[], Told[]] = [[], []];
    const [one, other] = [await listenerOf(here), await listenerOf(there)];
    expect([here, there]).toEqual([[true], [true]]);
    await one.announce(["a"], { 0: "00ff", 3: "" });
    await other.catchUp(await one.settled());
    expect(there.at(-1)).toEqual([["a"], { 0: "00ff", 3: "" }]);
    expect(here[1]).toEqual([["a"], { 0: "00ff", 3: "" }]);
  });

  it("without marks, as older processes make them, is heard as one that says nothing", async () => {
    const told: Told[] = [];
    const bus = await listenerOf(told);
    const newest = bus.newest();
    // Word for word what the version before told.
    const message = `{"number":${newest + 1},"previous":${newest},"origin":"old","tags":["a"]}`;
    await server.cli("set", "rungs:{cache}:number", String(newest + 1));
    await server.cli("publish", "rungs:{cache}:invalidations", message);
    await expect.poll(() => told.at(-1)).toEqual([["a"], undefined]);
    expect(bus.stats().gaps).toBe(0);
  });

  it("that was missed puts everything in doubt until all is heard again", async () => {
    const told: Told[] = [];
    await listenerOf(told);
    await server.cli("incr", "rungs:{cache}:number");
    await expect.poll(() => told.length, { timeout: 3_000 }).toBe(4);
    expect(told).toEqual([true, false, ["everything", undefined], true]);
  });
});

describe("a cache without a bus", () => {
  it("tells of its invalidations before it acts on them, also when it is off", async () => {
    for (const store of [localCacheStore(), null]) {
      const told: Told[] = [];
      const cache = createCache({ store, first: { drop: (tags, upTo) => void told.push([tags, upTo]) } });
      await cache.invalidate(["a"], { 0: "1" });
      await cache.invalidate(["b"]);
      expect(told).toEqual([
        [["a"], { 0: "1" }],
        [["b"], undefined],
      ]);
    }
  });
});
