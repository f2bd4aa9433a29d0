/** Sessions read from a real Redis replica while it is fresh, lags, stands still, freezes, goes back and becomes the master. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { sampleSession } from "@rungs/contract/session-store-contract";
import { startTestRedis, startTestSentinels, type TestRedis } from "@rungs/contract/test-redis";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { until } from "@rungs/contract/until";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type NearSessions, openNearSessions } from "../../src/app/open/near-sessions.ts";
import { createLifecycle, type Lifecycle } from "../../src/kernel/lifecycle.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import type { SessionStore } from "../../src/session/session-store.ts";
import { hashToken } from "../../src/session/sessions.ts";

const staleMsMax = 2_000;

/** One web process: the near store, and the same sessions as another process changes them. */
async function startProcess(masterUrl: string, replicaUrl: string) {
  const lifecycle = createLifecycle({ log: silentLogger });
  const redis = await openRedis({ url: masterUrl });
  lifecycle.started("redis", () => redis.close());
  const master = await redisSessionStore({ redis });
  const shared = { url: replicaUrl, ca: undefined, prefix: undefined, log: silentLogger };
  const near = await openNearSessions({ ...shared, store: master, redis, lifecycle });
  return { lifecycle, redis, master, near };
}

const isFresh = (near: NearSessions) => near.age.ageMs() <= staleMsMax;

/** What one read adds to the figures. */
async function askedOf(near: NearSessions, work: () => Promise<unknown>): Promise<string[]> {
  const before: Record<string, number> = { ...near.store.stats() };
  await work();
  return Object.entries(near.store.stats()).flatMap(([kind, count]) => (count > (before[kind] ?? 0) ? [kind] : []));
}

describe("sessions with a replica near by", () => {
  let server: TestRedis;
  let replica: TestRedis;
  let link: UnreliableWay;
  let lifecycle: Lifecycle;
  let redis: Redis;
  let master: SessionStore;
  let near: NearSessions;

  beforeAll(async () => {
    server = await startTestRedis();
    link = await openUnreliableWay({ port: server.port });
    replica = await startTestRedis({ settings: { replicaof: `127.0.0.1 ${link.port}`, "repl-timeout": "3600" } });
  });
  afterAll(async () => {
    await link?.cut();
    await Promise.all([server?.stop(), replica?.stop()]);
  });
  beforeEach(async () => {
    ({ lifecycle, redis, master, near } = await startProcess(server.url, replica.url));
    await until("the replica is fresh", async () => isFresh(near));
  });
  afterEach(async () => {
    link.silence(false);
    replica.freeze(false);
    await lifecycle.stop();
  });

  const read = (hash: Buffer, leastRevision?: number) => near.store.read(hash, { leastRevision });
  async function copied(hash: Buffer): Promise<void> {
    const key = `rungs:session:${hash.toString("hex")}`;
    await until("the replica has the session", async () => (await replica.cli("exists", key)) === "1");
  }

  it("are read there by whoever proves what was told last, and the master hears nothing of it", async () => {
    const session = sampleSession({ data: { a: 1 } });
    await master.create(session);
    await copied(session.tokenHash);
    const stats = () => server.cli("info", "commandstats");
    const calls = async () => Number(/cmdstat_hgetall:calls=(\d+)/.exec(await stats())?.[1] ?? 0);
    const before = await calls();
    for (let turn = 0; turn < 20; turn++) expect(await read(session.tokenHash, 0)).toEqual(session);
    expect([near.store.stats().near, await calls()]).toEqual([20, before]);
    expect(await askedOf(near, () => read(session.tokenHash))).toEqual(["unproved"]);
    expect(await calls()).toBe(before + 1);
  });

  it("say there whose they are, also when nothing is proved, and where they are changed when they are not there", async () => {
    const token = "any text will do";
    const session = sampleSession({ tokenHash: hashToken(token) });
    await master.create(session);
    await copied(session.tokenHash);
    near.store.changedElsewhere(token);
    const commands = redis.stats().commands;
    for (let turn = 0; turn < 50; turn++) expect(await near.store.ownerOf(token)).toBe(session.userId);
    // The heartbeat goes on.
    expect(redis.stats().commands - commands).toBeLessThan(25);
    link.silence(true);
    const other = sampleSession({ tokenHash: hashToken("other") });
    await master.create(other);
    expect(await near.store.ownerOf("other")).toBe(other.userId);
    expect(await near.store.ownerOf("nobody's")).toBeUndefined();
  });

  it("are read where they are changed while the replica has not heard of the change", async () => {
    const session = sampleSession({ data: { a: 0 } });
    await master.create(session);
    await copied(session.tokenHash);
    link.silence(true);
    const changed = await master.update(session.tokenHash, { a: 1 });
    // Another process's change, of which this one's clients know, or know nothing.
    expect(
      await askedOf(near, async () =>
        expect((await read(session.tokenHash, changed?.revision))?.data).toEqual({ a: 1 }),
      ),
    ).toEqual(["older"]);
    expect(await askedOf(near, async () => expect((await read(session.tokenHash, 0))?.data).toEqual({ a: 0 }))).toEqual(
      ["near"],
    );
    // This process's own.
    const own = (await near.store.update(session.tokenHash, { a: 2 }))?.revision;
    expect(await askedOf(near, async () => expect((await read(session.tokenHash, 0))?.data).toEqual({ a: 2 }))).toEqual(
      ["changed"],
    );
    link.silence(false);
    await until(
      "the replica has it",
      async () => (await askedOf(near, () => read(session.tokenHash, own)))[0] === "near",
    );
    expect((await read(session.tokenHash, own))?.data).toEqual({ a: 2 });
  });

  it("that are new or of a lagging replica's future are never missing", async () => {
    link.silence(true);
    const session = sampleSession();
    await master.create(session);
    expect(await askedOf(near, async () => expect(await read(session.tokenHash, 0)).toEqual(session))).toEqual([
      "absent",
    ]);
  });

  it("that somebody else revoked are read for two seconds at most, and their user's not at all by the process that ended them", async () => {
    const userId = randomUUID();
    const sessions = [sampleSession(), sampleSession({ userId }), sampleSession({ userId })] as const;
    for (const session of sessions) await master.create(session);
    for (const session of sessions) await copied(session.tokenHash);
    link.silence(true);
    await master.revoke(sessions[0].tokenHash);
    const revokedAt = performance.now();
    await near.store.revokeAllOf(userId, sessions[1].tokenHash);
    expect(await read(sessions[2].tokenHash, 0)).toBeUndefined();
    expect(await read(sessions[1].tokenHash, 0)).toEqual(sessions[1]);
    let lastSeenAt = 0;
    await until("the revoked one is gone", async () => {
      const at = performance.now();
      if ((await read(sessions[0].tokenHash, 0)) === undefined) return true;
      lastSeenAt = at;
      return false;
    });
    expect(lastSeenAt - revokedAt).toBeLessThan(staleMsMax);
    expect(near.store.stats().stale).toBeGreaterThan(0);
    link.silence(false);
    await until("the replica is fresh again", async () => isFresh(near));
    expect(await read(sessions[0].tokenHash, 0)).toBeUndefined();
  });

  it("are read from a replica that is half a second behind, and not from one that is three", async () => {
    const session = sampleSession();
    await master.create(session);
    await copied(session.tokenHash);
    link.delay(500);
    await until("it is behind and in use", async () => near.age.ageMs() > 500 && isFresh(near));
    expect(await askedOf(near, () => read(session.tokenHash, 0))).toEqual(["near"]);
    link.delay(3_000);
    await until("it is too far behind", async () => !isFresh(near));
    await sleep(1_000);
    expect(await askedOf(near, () => read(session.tokenHash, 0))).toEqual(["stale"]);
    // What is on its way late must not be overtaken.
    await link.cut();
    link.delay(0);
    await link.open();
  });

  it("cost a third of a second once when the replica freezes, and are read there again when it thaws", async () => {
    const session = sampleSession();
    await master.create(session);
    await copied(session.tokenHash);
    replica.freeze(true);
    const found = await Promise.all(Array.from({ length: 50 }, () => read(session.tokenHash, 0)));
    for (const record of found) expect(record).toEqual(session);
    const since = performance.now();
    for (let turn = 0; turn < 20; turn++) expect(await read(session.tokenHash, 0)).toEqual(session);
    // Would each wait for the copy, it were six seconds.
    expect(performance.now() - since).toBeLessThan(4_500);
    expect(near.store.stats().unreachable).toBeGreaterThan(0);
    replica.freeze(false);
    await until(
      "it is in use again",
      async () => (await askedOf(near, () => read(session.tokenHash, 0)))[0] === "near",
    );
  });

  it("are all there while the replica is killed, and start without it", async () => {
    const session = sampleSession();
    await master.create(session);
    await copied(session.tokenHash);
    await replica.kill();
    expect(await read(session.tokenHash, 0)).toEqual(session);
    const late = await startProcess(server.url, replica.url);
    expect(await late.near.store.read(session.tokenHash, { leastRevision: 0 })).toEqual(session);
    await replica.restart();
    for (const each of [near, late.near]) {
      const ask = () => each.store.read(session.tokenHash, { leastRevision: 0 });
      await until("it is in use again", async () => (await askedOf(each, ask))[0] === "near");
    }
    await late.lifecycle.stop();
  });

  it("that were revoked do not come back with a replica that was started from an old file", async () => {
    const session = sampleSession();
    await master.create(session);
    await copied(session.tokenHash);
    await replica.cli("save");
    await master.revoke(session.tokenHash);
    const key = `rungs:session:${session.tokenHash.toString("hex")}`;
    await until("the replica has heard of it", async () => (await replica.cli("exists", key)) === "0");
    link.silence(true);
    await replica.kill();
    await replica.restart();
    expect(await replica.cli("exists", key)).toBe("1");
    for (let turn = 0; turn < 30; turn++) {
      expect(await read(session.tokenHash, 0)).toBeUndefined();
      await sleep(20);
    }
    link.silence(false);
    await until("it is in use again", async () => isFresh(near));
    expect(await read(session.tokenHash, 0)).toBeUndefined();
  });

  it("are nowhere while the master is away and the replica is no longer fresh: nobody is signed out", async () => {
    const session = sampleSession();
    await master.create(session);
    await copied(session.tokenHash);
    server.freeze(true);
    const answers = new Set<string>();
    await until("the replica is no longer believed", async () => {
      const answer = await read(session.tokenHash, 0).then(
        (record) => (record === undefined ? "signed out" : "there"),
        (error: { readonly code: string }) => error.code,
      );
      answers.add(answer);
      return answer === "SESSION_STORE_UNREACHABLE";
    });
    server.freeze(false);
    expect([...answers]).not.toContain("signed out");
    await until(
      "all is as before",
      async () =>
        (await redis.check().then(
          () => true,
          () => false,
        )) && isFresh(near),
    );
    expect(await read(session.tokenHash, 0)).toEqual(session);
  });
});

describe("sessions with a replica near by, when the master fails over", () => {
  it("sign nobody out, end who was revoked, and are read near by again, wherever the master is then", async () => {
    const sentinels = await startTestSentinels({ downMs: 1_000 });
    const processes = await Promise.all(sentinels.servers.map(({ url }) => startProcess(sentinels.url, url)));
    const [first] = processes as [Awaited<ReturnType<typeof startProcess>>];
    const session = sampleSession({ data: { a: 0 } });
    await first.master.create(session);
    const ask = (near: NearSessions, leastRevision: number) => near.store.read(session.tokenHash, { leastRevision });
    for (const { near } of processes) {
      await until("it is read near by", async () => (await askedOf(near, () => ask(near, 0)))[0] === "near");
    }
    const old = await sentinels.master();
    await old.kill();
    await until("another master is named", async () => (await sentinels.master()).port !== old.port);
    await until("the process writes to it", async () =>
      first.near.store.update(session.tokenHash, { a: 1 }).then(
        (updated) => updated !== undefined,
        () => false,
      ),
    );
    const { revision = Number.NaN, data } = (await first.master.read(session.tokenHash)) ?? {};
    expect(data).toEqual({ a: 1 });
    for (const [index, { near }] of processes.entries()) {
      // One that still looks for the new master may say that it cannot tell, and never that there is no such session.
      const seen = async () => (await ask(near, revision).catch(() => ({ data })))?.data;
      await until("it is read near by again", async () => {
        expect(await seen()).toEqual({ a: 1 });
        // Where the old master was there is none to read from.
        return (
          sentinels.servers[index] === old ||
          (await askedOf(near, () => ask(near, revision).catch(() => undefined)))[0] === "near"
        );
      });
    }
    for (const { lifecycle } of processes) await lifecycle.stop();
    await sentinels.stop();
  }, 60_000);
});
