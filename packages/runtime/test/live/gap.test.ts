/** What open pages are told when their process may have missed messages. */
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { redisFanOut } from "../../src/live/drivers/redis-fan-out.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { type LiveServer, memoryRecord, startLiveServer } from "./support.ts";

let server: TestRedis;
let redis: Redis;
let live: LiveServer | undefined;
beforeAll(async () => {
  server = await startTestRedis();
  redis = await openRedis({ url: server.url });
});
afterAll(async () => {
  await live?.stop();
  await redis?.close();
  await server?.stop();
});

describe("a gap in what Redis carries", () => {
  it("has the streams of those topics, and no others, load afresh, at the record's newest position", async () => {
    const recorded = memoryRecord("recorded");
    const fanOut = redisFanOut({ redis });
    live = await startLiveServer({ fanOut, tickMs: 50 }, (owner) => {
      if (owner === "recorded") return { topics: ["recorded"], record: recorded.record };
      return { topics: [owner] };
    });
    const [first, second] = [await live.connect("/live?owner=recorded"), await live.connect("/live?owner=plain")];
    await live.live.send("recorded", recorded.commit("before"));
    await expect.poll(() => first.data("told")).toEqual(["before"]);
    await server.kill();
    const lost = recorded.commit("lost");
    await live.live.send("recorded", lost);
    await server.restart();
    for (const client of [first, second]) {
      await expect.poll(() => client.data("reset"), { timeout: 8_000 }).toEqual([{}]);
    }
    expect(first.lastEventId()).toBe("2");
    await until("messages pass", async () => (await redis.check()) === undefined);
    await live.live.send("recorded", recorded.commit("after"));
    await expect.poll(() => first.data("told")).toEqual(["before", "after"]);
    expect(second.data("told")).toEqual([]);
    for (const client of [first, second]) client.close();
  });
});
