import { randomBytes } from "node:crypto";
import { sampleSession } from "@rungs/contract/session-store-contract";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import type { ShardConnection } from "../../src/database/index.ts";
import { migrate } from "../../src/database/migrate.ts";
import { openRedis } from "../../src/redis/redis.ts";
import {
  databaseSessionRevocations,
  sessionRevocationMigrations,
} from "../../src/session/drivers/database-session-revocations.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import type { SessionRevocations } from "../../src/session/session-revocations.ts";

let postgres: TestPostgres;
let home: ShardConnection;
let server: TestRedis;
beforeAll(async () => {
  postgres = await startTestPostgres();
  home = openPostgres({ name: "home", address: { url: postgres.connectionString }, pool: { connectionsMax: 4 } });
  await migrate({
    ...{ db: home.kysely, name: "home", service: "rungs_session_revocations", target: "home" },
    migrations: sessionRevocationMigrations,
  });
  server = await startTestRedis();
});
afterAll(async () => {
  await home?.close();
  await postgres?.stop();
  await server?.stop();
});

async function all(revocations: SessionRevocations, batchMax: number): Promise<string[][]> {
  const batches: string[][] = [];
  for await (const batch of revocations.noted(batchMax)) batches.push(batch.map((hash) => hash.toString("hex")));
  return batches;
}

describe("the record of revoked sessions", () => {
  it("gives what was noted, each once, in bounded batches, and forgets what is old", async () => {
    const revocations = databaseSessionRevocations({ database: home });
    const hashes = Array.from({ length: 7 }, () => randomBytes(32));
    await revocations.note(hashes);
    await revocations.note(hashes.slice(0, 3));
    await revocations.note([]);
    const batches = await all(revocations, 3);
    expect(batches.map((batch) => batch.length)).toEqual([3, 3, 1]);
    expect(batches.flat().sort()).toEqual(hashes.map((hash) => hash.toString("hex")).sort());
    const old = hashes.slice(0, 2);
    await home.query(
      undefined,
      "update rungs_session_revocations set revoked_at = now() - interval '25 hours' where token_hash = any($1)",
      [old],
    );
    expect((await all(revocations, 100)).flat()).toHaveLength(5);
    expect(await revocations.sweep()).toBe(2);
    expect(await revocations.sweep()).toBe(0);
    expect((await all(revocations, 100)).flat()).toHaveLength(5);
  });

  it("has what it holds revoked in a Redis that is opened, before the store is used", async () => {
    const redis = await openRedis({ url: server.url });
    const [session, other] = [sampleSession(), sampleSession()];
    const unaware = await redisSessionStore({ redis });
    await unaware.create(session);
    await unaware.create(other);
    const revocations = databaseSessionRevocations({ database: home });
    await revocations.note([session.tokenHash]);
    const store = await redisSessionStore({ redis, revocations });
    expect(await store.read(session.tokenHash)).toBeUndefined();
    expect(await store.read(other.tokenHash)).toBeDefined();
    await redis.close();
  });

  it("notes each end of a session but its own expiry: sign-outs, all of a user, and the old one of a sign-in", async () => {
    const redis = await openRedis({ url: server.url });
    const revocations = databaseSessionRevocations({ database: home });
    const store = await redisSessionStore({ redis, revocations });
    const userId = "0190c0de-0000-7000-8000-00000000000a";
    const made = () => sampleSession({ userId });
    const [left, old, kept, gone] = [made(), made(), made(), made()];
    const next = made();
    for (const session of [left, old, kept, gone]) await store.create(session);
    await store.revoke(left.tokenHash);
    await store.rotate(old.tokenHash, next, { keepsData: true });
    expect(await store.revokeAllOf(userId, kept.tokenHash)).toBe(2);
    const noted = (await all(revocations, 100)).flat();
    for (const session of [left, old, next, gone]) expect(noted).toContain(session.tokenHash.toString("hex"));
    expect(noted).not.toContain(kept.tokenHash.toString("hex"));
    // A token nobody has costs the database nothing.
    await store.revoke(randomBytes(32));
    expect((await all(revocations, 100)).flat()).toHaveLength(noted.length);
    await redis.close();
  });

  it("keeps a sign-out from being acknowledged when it cannot note it, though the session ends", async () => {
    const redis = await openRedis({ url: server.url });
    let isAway = false;
    const revocations = databaseSessionRevocations({
      database: {
        query: (name, sql, values) =>
          isAway ? Promise.reject(new Error("the database is away")) : home.query(name, sql, values),
      },
    });
    const store = await redisSessionStore({ redis, revocations });
    const session = sampleSession();
    await store.create(session);
    isAway = true;
    await expect(store.revoke(session.tokenHash)).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    expect(await store.read(session.tokenHash)).toBeUndefined();
    await redis.close();
  });

  it("shuts Redis, after a lost connection, until the database can say what was revoked", async () => {
    const redis = await openRedis({ url: server.url, commandMs: 300 });
    let isAway = false;
    const revocations = databaseSessionRevocations({
      database: {
        query: (name, sql, values) =>
          isAway ? Promise.reject(new Error("the database is away")) : home.query(name, sql, values),
      },
    });
    const store = await redisSessionStore({ redis, revocations });
    isAway = true;
    await server.restart();
    for (let turn = 0; turn < 3; turn++) {
      await expect(store.read(randomBytes(32))).rejects.toMatchObject({ code: "SESSION_STORE_UNREACHABLE" });
    }
    isAway = false;
    await until("it is open again", async () => (await store.read(randomBytes(32))) === undefined);
    await redis.close();
  });
});
