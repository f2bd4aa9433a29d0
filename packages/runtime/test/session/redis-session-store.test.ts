import { sampleSession, sessionStoreContract } from "@rungs/contract/session-store-contract";
import { makeTestCertificates, startTestCluster, startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import type { SessionStore } from "../../src/session/session-store.ts";

/** Everything sessions are made of, as text. */
async function dumpOf(servers: readonly TestRedis[]): Promise<string> {
  return (await Promise.all(servers.map((server) => server.cli("--scan")))).join("\n");
}

async function subjectOf(servers: readonly TestRedis[], redis: Redis, end: () => Promise<unknown>) {
  return {
    store: await redisSessionStore({ redis }),
    dump: () => dumpOf(servers),
    takeDown: async () => void (await Promise.all(servers.map((server) => server.kill()))),
    async close() {
      await redis.close();
      await Promise.all(servers.map((server) => server.stop()));
      await end();
    },
  };
}

sessionStoreContract({
  name: "Redis, one server",
  async makeStore() {
    const server = await startTestRedis();
    return subjectOf([server], await openRedis({ url: server.url, commandMs: 500 }), async () => {});
  },
});

sessionStoreContract({
  name: "Redis over TLS, with a user that may do no more than is needed",
  async makeStore() {
    const { ca, settings, cliFlags, remove } = await makeTestCertificates();
    const commands =
      "-@all +ping +hello +eval +evalsha +hget +hgetall +hset +hdel +del +exists +pexpireat +time +zadd +zrem +zrange +zrevrange +zremrangebyscore";
    const server = await startTestRedis({
      settings: { ...settings, user: `app on >p@ss:w/rd ~rungs:* ${commands}\ndefault on >admin ~* +@all` },
      cliFlags: [...cliFlags, "-a", "admin", "--no-auth-warning"],
    });
    const url = `rediss://app:${encodeURIComponent("p@ss:w/rd")}@127.0.0.1:${server.port}`;
    return subjectOf([server], await openRedis({ url, ca, commandMs: 500 }), remove);
  },
});

sessionStoreContract({
  name: "Redis Cluster of three masters",
  async makeStore() {
    const cluster = await startTestCluster();
    return subjectOf(cluster.servers, await openRedis({ url: cluster.url, commandMs: 500 }), async () => {});
  },
});

describe("sessions in Redis", () => {
  let server: TestRedis;
  let redis: Redis;
  let store: SessionStore;
  beforeAll(async () => {
    server = await startTestRedis();
    redis = await openRedis({ url: server.url });
    store = await redisSessionStore({ redis, prefix: "site-a:", idleMs: 60_000 });
  });
  afterAll(async () => {
    await redis?.close();
    await server?.stop();
  });

  const keyOf = ({ tokenHash }: { readonly tokenHash: Buffer }) => `site-a:session:${tokenHash.toString("hex")}`;
  const expiryOf = async (session: { readonly tokenHash: Buffer }) =>
    Number(await server.cli("pexpiretime", keyOf(session)));
  const hourMs = 3_600_000;

  it("vanish an hour after their idle end or their absolute end, whichever is first", async () => {
    const session = sampleSession();
    const seen = session.lastSeenAt.getTime();
    await store.create(session);
    expect(await expiryOf(session)).toBe(seen + 60_000 + hourMs);
    await store.touch(session.tokenHash, new Date(seen + 30_000), new Date(seen));
    expect(await expiryOf(session)).toBe(seen + 90_000 + hourMs);
    const last = session.expiresAt.getTime() - 10_000;
    await store.touch(session.tokenHash, new Date(last), new Date(last - 1));
    expect(await expiryOf(session)).toBe(session.expiresAt.getTime() + hourMs);
  });

  it("of two sites with different prefixes are apart", async () => {
    const other = await redisSessionStore({ redis, prefix: "site-b:" });
    const session = sampleSession();
    await store.create(session);
    expect(await other.read(session.tokenHash)).toBeUndefined();
    expect(await other.revokeAllOf(String(session.userId))).toBe(0);
    expect(await store.read(session.tokenHash)).toBeDefined();
  });

  it("leave the list of a user when they end, and ended ones are dropped from it at the next sign-in", async () => {
    const userId = "0190c0de-0000-7000-8000-000000000001";
    const list = async () =>
      (await server.cli("zrange", `site-a:user:${userId}`, "0", "-1")).split("\n").filter(Boolean);
    const [old, live, rotated] = [sampleSession({ userId }), sampleSession({ userId }), sampleSession({ userId })];
    await server.cli("zadd", `site-a:user:${userId}`, "1000", "00".repeat(32));
    await store.create(old);
    expect(await list()).toEqual([old.tokenHash.toString("hex")]);
    await store.create(live);
    await store.rotate(old.tokenHash, rotated, { keepsData: false });
    await store.revoke(live.tokenHash);
    expect(await list()).toEqual([rotated.tokenHash.toString("hex")]);
  });

  it("are found again by a server that has forgotten its scripts", async () => {
    await server.cli("script", "flush");
    const session = sampleSession();
    await store.create(session);
    expect((await store.update(session.tokenHash, { a: 1 }))?.data).toEqual({ a: 1 });
  });

  it("have revisions that are later than those of changes which a fail-over lost", async () => {
    const session = sampleSession();
    await store.create(session);
    await store.update(session.tokenHash, { a: 1 });
    // A copy of the last moment but one, with its master's further changes lost, takes over.
    const copy = await server.cli("hgetall", keyOf(session));
    const lost = await Promise.all(Array.from({ length: 50 }, () => store.update(session.tokenHash, { a: 2 })));
    await server.cli("hset", keyOf(session), ...copy.split("\n"));
    const last = Math.max(...lost.map((each) => each?.revision ?? Number.NaN));
    await until("as much time has passed as 50 changes in one millisecond take up", async () => Date.now() > last);
    expect((await store.update(session.tokenHash, { a: 3 }))?.revision).toBeGreaterThan(last);
  });
});
