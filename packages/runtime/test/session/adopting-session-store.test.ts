/** Sessions that move from the database to Redis while they are used. */
import { sampleSession, sessionStoreContract } from "@rungs/contract/session-store-contract";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { type AdoptiveSessionStore, adoptingSessionStore } from "../../src/session/adopting-session-store.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import type { SessionStore } from "../../src/session/session-store.ts";
import { openSessionDatabase } from "./session-database.ts";

sessionStoreContract({
  name: "Redis after the database",
  async makeStore() {
    const database = await openSessionDatabase();
    const server = await startTestRedis();
    const redis = await openRedis({ url: server.url, commandMs: 500 });
    const store = adoptingSessionStore({
      ...{ store: await redisSessionStore({ redis }), previous: database.store },
      hasPrevious: () => true,
    });
    return {
      // Sessions of this suite are made in Redis; those that the sweep is tried on lie in the database.
      store: { ...store, create: (record) => (isSwept(record.expiresAt) ? database.store : store).create(record) },
      dump: async () => `${await database.dump()}\n${await server.cli("--scan")}`,
      takeDown: async () => void (await Promise.all([server.kill(), database.stopServer()])),
      async close() {
        await redis.close();
        await database.close();
        await server.stop();
      },
    };
  },
});

const isSwept = (expiresAt: Date) => expiresAt.getTime() < Date.UTC(2030, 0, 1);

describe("a session of the database", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  let server: TestRedis;
  let redis: Redis;
  let fresh: AdoptiveSessionStore;
  let both: SessionStore;
  beforeAll(async () => {
    database = await openSessionDatabase();
    server = await startTestRedis();
    redis = await openRedis({ url: server.url });
    fresh = await redisSessionStore({ redis });
    both = adoptingSessionStore({ store: fresh, previous: database.store, hasPrevious: () => true });
  });
  afterAll(async () => {
    await redis?.close();
    await database?.close();
    await server?.stop();
  });

  it("moves as it is, once, however many ask for it at once, and nobody finds it missing", async () => {
    const session = sampleSession({ data: { theme: "dark", list: [1] } });
    await database.store.create(session);
    const seen = await Promise.all(Array.from({ length: 30 }, () => both.read(session.tokenHash)));
    for (const record of seen) expect(record).toEqual(session);
    expect(await database.store.read(session.tokenHash)).toBeUndefined();
    expect(await fresh.read(session.tokenHash)).toEqual(session);
    expect(await both.revokeAllOf(String(session.userId))).toBe(1);
  });

  it("loses no change that is made while it moves", async () => {
    const session = sampleSession({ data: { a: 0 } });
    await database.store.create(session);
    const names = Array.from({ length: 20 }, (_, index) => `field${index}`);
    await Promise.all(
      names.flatMap((name) => [both.update(session.tokenHash, { [name]: 1 }), both.read(session.tokenHash)]),
    );
    expect(Object.keys((await both.read(session.tokenHash))?.data ?? {}).sort()).toEqual(["a", ...names].sort());
  });

  it("is rotated and revoked wherever it lies", async () => {
    const userId = "0190c0de-0000-7000-8000-00000000000b";
    const [one, two, three] = [
      sampleSession({ userId }),
      sampleSession({ userId, data: { a: 1 } }),
      sampleSession({ userId }),
    ];
    for (const session of [one, two, three]) await database.store.create(session);
    expect(await both.revoke(one.tokenHash)).toBe(true);
    const next = sampleSession({ userId });
    expect(await both.rotate(two.tokenHash, next, { keepsData: true })).toEqual({ a: 1 });
    expect(await both.read(two.tokenHash)).toBeUndefined();
    expect(await both.revokeAllOf(userId, next.tokenHash)).toBe(1);
    for (const session of [one, two, three]) expect(await both.read(session.tokenHash)).toBeUndefined();
    expect(await both.read(next.tokenHash)).toBeDefined();
  });

  it("is not brought back by one who read it before it was moved and revoked", async () => {
    const session = sampleSession();
    await database.store.create(session);
    const late = adoptingSessionStore({
      store: fresh,
      hasPrevious: () => true,
      previous: {
        ...database.store,
        async read(tokenHash) {
          const record = await database.store.read(tokenHash);
          await both.read(tokenHash);
          await both.revoke(tokenHash);
          return record;
        },
      },
    });
    expect(await late.read(session.tokenHash)).toBeUndefined();
    expect(await both.read(session.tokenHash)).toBeUndefined();
  });
});
