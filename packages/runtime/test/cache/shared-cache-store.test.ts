import { sharedCacheStoreContract } from "@rungs/contract/shared-cache-store-contract";
import { startTestMemcached } from "@rungs/contract/test-memcached";
import { startTestRedis } from "@rungs/contract/test-redis";
import { openUnreliableWay } from "@rungs/contract/unreliable-proxy";
import { until } from "@rungs/contract/until";
import { describe, expect, it } from "vitest";
import { HashRing } from "../../src/cache/drivers/memcached/hash-ring.ts";
import { MetaReplyReader } from "../../src/cache/drivers/memcached/meta-reply.ts";
import { memcachedCacheStore, parseMemcachedAddress } from "../../src/cache/drivers/memcached-cache-store.ts";
import { redisCacheStore } from "../../src/cache/drivers/redis-cache-store.ts";
import { openRedis } from "../../src/redis/redis.ts";

const commandMs = 400;

sharedCacheStoreContract({
  name: "Redis",
  async open() {
    const server = await startTestRedis();
    const way = await openUnreliableWay({ port: server.port });
    const over = async (port: number) => {
      const redis = await openRedis({ url: `redis://127.0.0.1:${port}`, commandMs });
      return redisCacheStore({ redis: () => redis });
    };
    const [store, other] = await Promise.all([over(way.port), over(server.port)]);
    return {
      ...{ store, other, way, commandMs },
      flush: () => server.cli("flushall"),
      async close() {
        await Promise.all([store.close(), other.close()]);
        await way.cut();
        await server.stop();
      },
    };
  },
});

sharedCacheStoreContract({
  name: "memcached",
  async open() {
    const server = await startTestMemcached();
    const way = await openUnreliableWay({ port: server.port });
    const over = (port: number) => memcachedCacheStore({ url: `memcached://127.0.0.1:${port}`, commandMs });
    const [store, other] = [over(way.port), over(server.port)];
    return {
      ...{ store, other, way, commandMs },
      flush: () => server.ask("flush_all"),
      async close() {
        await Promise.all([store.close(), other.close()]);
        await way.cut();
        await server.stop();
      },
    };
  },
});

describe("memcached on several nodes", () => {
  it("goes on with the others when one is killed or frozen, and takes it back", async () => {
    const servers = await Promise.all([1, 2, 3].map(() => startTestMemcached()));
    const store = memcachedCacheStore({
      url: `memcached://${servers.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
      commandMs,
    });
    await until("all are connected", async () => store.check().then(() => true));
    const keys = Array.from({ length: 300 }, (_, index) => `key ${index}`);
    const write = () => Promise.allSettled(keys.map((key) => store.write(key, Buffer.from(key), { lifeMs: 60_000 })));
    const hits = async () => {
      const found = await Promise.allSettled(keys.map((key) => store.read(key)));
      return found.filter((each) => each.status === "fulfilled" && each.value !== undefined).length;
    };
    // A write that takes too long on a busy machine is not there.
    const isAllThere = async () => {
      await write();
      return (await hits()) === 300;
    };
    await until("all is there", isAllThere);
    const held = await Promise.all(servers.map(({ ask }) => ask("stats")));
    expect(held).toHaveLength(3);
    const [first, second] = servers as [(typeof servers)[0], (typeof servers)[0]];
    await first.kill();
    await until(
      "its loss is known",
      async () => (await Promise.all(keys.map((key) => store.read(key)))).length === 300,
    );
    // A third was there, and only that is gone.
    expect(await hits()).toBeGreaterThan(120);
    await until("all is there again", isAllThere);
    await first.restart();
    second.freeze(true);
    await until(
      "the frozen one is left",
      async () => (await Promise.all(keys.map((key) => store.read(key)))).length === 300,
    );
    await until("all is there without the frozen one", isAllThere);
    second.freeze(false);
    await until("all are connected", async () => store.check().then(() => true));
    await store.close();
    await Promise.all(servers.map((server) => server.stop()));
  });

  it("spreads keys evenly, and moves only those of a lost node", () => {
    const names = ["a:1", "b:1", "c:1", "d:1"];
    const ring = new HashRing(names.map((name) => ({ name, node: name })));
    const keys = Array.from({ length: 20_000 }, (_, index) => `key ${index}`);
    const before = keys.map((key) => ring.nodeOf(key, () => true));
    for (const name of names) {
      const share = before.filter((node) => node === name).length / keys.length;
      expect(Math.abs(share - 0.25)).toBeLessThan(0.06);
    }
    const after = keys.map((key) => ring.nodeOf(key, (node) => node !== "b:1"));
    expect(before.every((node, index) => node === "b:1" || node === after[index])).toBe(true);
    expect(ring.nodeOf("x", () => false)).toBeUndefined();
  });

  it("reads replies however they are cut, and gives up on what is none", () => {
    const bytes = Buffer.from("MN\r\nVA 5 t9 c12 W\r\na\r\nb\n\r\nEN\r\nHD c1 Z\r\nSERVER_ERROR out of memory\r\n");
    for (let size = 1; size <= bytes.length; size++) {
      const reader = new MetaReplyReader();
      const replies = [];
      for (let start = 0; start < bytes.length; start += size)
        replies.push(...reader.read(bytes.subarray(start, start + size)));
      expect(replies.map(({ status, value }) => `${status} ${value ?? ""}`)).toEqual([
        ...["MN ", "VA a\r\nb\n", "EN ", "HD ", "SERVER_ERROR "],
      ]);
      expect(replies[1]?.flags).toEqual(
        new Map([
          ["t", "9"],
          ["c", "12"],
          ["W", ""],
        ]),
      );
    }
    expect(() => new MetaReplyReader().read(Buffer.from("HTTP/1.1 400 Bad Request\r\n"))).toThrow("no reply");
    expect(() => new MetaReplyReader().read(Buffer.alloc(10_000, "x"))).toThrow("without an end");
  });

  it("takes addresses of one node or several, and refuses others without repeating them", () => {
    expect(parseMemcachedAddress("memcached://a,b:2,[::1]:3/")).toEqual([
      { host: "a", port: 11_211 },
      { host: "b", port: 2 },
      { host: "::1", port: 3 },
    ]);
    for (const url of ["memcached://", "memcached://a:0", "memcached://u:secret@a", "memcached://a,,b", "redis://a"]) {
      expect(() => parseMemcachedAddress(url)).toThrow(/^(?!.*secret).*cannot be used/);
    }
  });
});
