import { fanOutContract } from "@rungs/contract/fan-out-contract";
import { startTestCluster, startTestRedis, type TestCluster, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { redisFanOut } from "../../src/live/drivers/redis-fan-out.ts";
import type { FanOut } from "../../src/live/live.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";

/** Two processes' fan-outs over ways to Redis that stay open from test to test. */
function joined(urlOf: () => string) {
  let ways: [Redis, Redis] | undefined;
  return {
    async join(): Promise<readonly [FanOut, FanOut]> {
      ways ??= [await openRedis({ url: urlOf() }), await openRedis({ url: urlOf() })];
      return [redisFanOut({ redis: ways[0] }), redisFanOut({ redis: ways[1] })];
    },
    close: async () => void (await Promise.all((ways ?? []).map((redis) => redis.close()))),
  };
}

describe("fan-out through one Redis", () => {
  let server: TestRedis;
  const processes = joined(() => server.url);
  beforeAll(async () => {
    server = await startTestRedis();
  });
  afterAll(async () => {
    await processes.close();
    await server?.stop();
  });

  fanOutContract({ name: "Redis, two processes", join: processes.join });

  it("subscribes anew after Redis was gone, and tells which topics may have lost messages", async () => {
    const [here, there] = await processes.join();
    const heard: unknown[] = [];
    const gaps: string[][] = [];
    there.onGap?.((topics) => gaps.push([...topics].sort()));
    await there.subscribe("a", ({ data }) => heard.push(data));
    await there.subscribe("b", ({ data }) => heard.push(data));
    await here.publish("a", { event: "told", data: 1 });
    await expect.poll(() => heard).toEqual([1]);
    expect(gaps).toEqual([]);
    await server.restart();
    await expect.poll(() => gaps, { timeout: 5_000 }).toEqual([["a", "b"]]);
    await until("a message passes", async () => {
      await here.publish("a", { event: "told", data: 2 });
      return true;
    });
    await expect.poll(() => heard).toEqual([1, 2]);
    await there.close();
  });

  it("finds within seconds that the server has frozen, refuses to subscribe, and goes on when it thaws", async () => {
    const redis = await openRedis({ url: server.url, commandMs: 300, pingMs: 200 });
    const fanOut = redisFanOut({ redis });
    const gaps: (readonly string[])[] = [];
    fanOut.onGap?.((topics) => gaps.push(topics));
    await fanOut.subscribe("a", () => {});
    server.freeze(true);
    const since = performance.now();
    await expect(fanOut.subscribe("b", () => {})).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
    await expect(fanOut.publish("a", { event: "told", data: 1 })).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
    expect(performance.now() - since).toBeLessThan(2_000);
    server.freeze(false);
    await expect.poll(() => gaps, { timeout: 5_000 }).toEqual([["a"]]);
    await fanOut.close();
    await redis.close();
  });
});

describe("fan-out through a Cluster", () => {
  let cluster: TestCluster;
  const processes = joined(() => cluster.url);
  beforeAll(async () => {
    cluster = await startTestCluster({ replicas: 1 });
  });
  afterAll(async () => {
    await processes.close();
    await cluster?.stop();
  });

  fanOutContract({ name: "Redis Cluster, two processes", join: processes.join });

  it("hears every topic again after a master died and its replica took over, and tells which had a gap", async () => {
    const [here, there] = await processes.join();
    const topics = Array.from({ length: 12 }, (_, index) => `topic ${index}`);
    const heard = new Map<string, unknown>();
    const gaps = new Set<string>();
    there.onGap?.((lost) => {
      for (const topic of lost) gaps.add(topic);
    });
    for (const topic of topics) await there.subscribe(topic, ({ data }) => heard.set(topic, data));
    await cluster.servers[0]?.kill();
    let round = 0;
    await until("all topics are heard", async () => {
      const current = ++round;
      await Promise.allSettled(topics.map((topic) => here.publish(topic, { event: "told", data: current })));
      await new Promise((resolve) => setTimeout(resolve, 50));
      return topics.every((topic) => heard.get(topic) === current);
    });
    expect(gaps.size).toBeGreaterThan(0);
    expect(gaps.size).toBeLessThan(topics.length);
  });
});
