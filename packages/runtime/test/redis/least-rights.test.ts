/** The user that the manual proposes may do what the drivers need, on one server and in a Cluster, and nothing else. */
import { readFile } from "node:fs/promises";
import { sampleSession } from "@rungs/contract/session-store-contract";
import { startTestCluster, startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { expect, it } from "vitest";
import { redisInvalidationChannel } from "../../src/cache/drivers/redis-invalidation-channel.ts";
import { openInvalidationBus } from "../../src/cache/index.ts";
import { redisFanOut } from "../../src/live/drivers/redis-fan-out.ts";
import { openRedis } from "../../src/redis/redis.ts";
import { redisAttemptStore } from "../../src/session/drivers/redis-attempt-store.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import { redisRateLimitStore } from "../../src/web/drivers/redis-rate-limit-store.ts";
import { rateLimit } from "../../src/web/rate-limit.ts";

async function rights(): Promise<string[]> {
  const manual = await readFile(new URL("../../../../docs/operating/redis.md", import.meta.url), "utf8");
  const [, text] = /^user app (on >PASSWORD [^`]*?)\n```/m.exec(manual) ?? [];
  if (text === undefined) throw new Error("The manual proposes no user any more.");
  return text.split(/\s+/);
}

async function useEverything(url: string): Promise<void> {
  const redis = await openRedis({ url });
  const store = await redisSessionStore({ redis });
  const [old, next] = [sampleSession({ data: { a: 1 } }), sampleSession()];
  await store.create(old);
  await store.touch(old.tokenHash, new Date(old.lastSeenAt.getTime() + 1), old.lastSeenAt);
  await store.update(old.tokenHash, { a: null, b: 2 });
  await store.rotate(old.tokenHash, next, { keepsData: true });
  expect((await store.read(next.tokenHash))?.data).toEqual({ b: 2 });
  expect(await store.revokeAllOf(String(next.userId))).toBe(1);
  const attempts = redisAttemptStore({ redis });
  expect(await attempts.add("a", { index: 1, windowMs: 1_000 }, 1)).toEqual({ current: 1, previous: 0 });
  await attempts.clear("a");
  const limit = rateLimit({ name: "x", perMinute: 60 });
  expect((await redisRateLimitStore({ redis }).take([{ limit, key: "a" }]))[0]?.isAllowed).toBe(true);
  const fanOut = redisFanOut({ redis });
  const heard: unknown[] = [];
  const leave = await fanOut.subscribe("a", ({ data }) => heard.push(data));
  await fanOut.publish("a", { event: "told", data: 1 });
  await expect.poll(() => heard).toEqual([1]);
  await leave();
  const bus = await openInvalidationBus({ channel: redisInvalidationChannel({ redis }) });
  await bus.announce(["tag"]);
  await store.noteWrite(next.tokenHash, await bus.settled());
  await bus.catchUp(bus.newest());
  expect([bus.stats().missed, bus.position()]).toEqual([0, bus.newest()]);
  await bus.close();
  await redis.check();
  await expect(redis.command("other", ["SET", "other", "1"])).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
  await expect(redis.command("", ["FLUSHALL"])).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
  await redis.close();
}

const allow = async (servers: readonly TestRedis[]) => {
  const words = await rights();
  for (const server of servers) await server.cli("acl", "setuser", "app", ...words);
};

it("on one server", async () => {
  const server = await startTestRedis();
  await allow([server]);
  await useEverything(`redis://app:PASSWORD@127.0.0.1:${server.port}`);
  await server.stop();
});

it("in a Cluster", async () => {
  const cluster = await startTestCluster();
  await allow(cluster.servers);
  await useEverything(cluster.url.replace("://", "://app:PASSWORD@"));
  await cluster.stop();
});
