import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { Clock } from "../../src/kernel/clock.ts";
import { ConfigError, UnavailableError } from "../../src/kernel/errors.ts";
import { createSessions, hashToken, type Sessions } from "../../src/session/sessions.ts";
import { openSessionDatabase } from "./session-database.ts";

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;

/** A clock that moves only when told. */
function handClock(): Clock & { advance(ms: number): void } {
  let time = Date.UTC(2030, 0, 1);
  return {
    now: () => time,
    monotonic: () => time,
    advance(ms) {
      time += ms;
    },
  };
}

describe("sessions", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  let sessions: Sessions;
  let clock: ReturnType<typeof handClock>;
  beforeAll(async () => {
    database = await openSessionDatabase();
  });
  afterAll(() => database?.close());
  beforeEach(async () => {
    await database.home.query(undefined, "truncate rungs_sessions", []);
    database.queries.length = 0;
    clock = handClock();
    sessions = createSessions({ store: database.store, clock });
  });

  it("start one that its token loads, with user and data", async () => {
    const userId = randomUUID();
    const session = await sessions.start(userId, { theme: "dark" });
    expect(session.token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(await sessions.load(session.token)).toEqual(session);
    expect(session).toMatchObject({ userId, data: { theme: "dark" } });
  });

  it("end for nobody because a copy of theirs has not heard of their last use", async () => {
    const { token } = await sessions.start(randomUUID());
    const old = await database.store.read(hashToken(token));
    clock.advance(29 * dayMs);
    await sessions.load(token);
    await vi.waitFor(async () =>
      expect((await database.store.read(hashToken(token)))?.lastSeenAt).not.toEqual(old?.lastSeenAt),
    );
    clock.advance(2 * dayMs);
    const near = createSessions({
      ...{ clock, idleMs: 30 * dayMs },
      store: {
        ...database.store,
        read: async (hash, { leastRevision } = {}) => (leastRevision === undefined ? database.store.read(hash) : old),
      },
      seen: { loaded() {}, started() {}, changed() {}, leastRevision: () => 0 },
    });
    expect(await near.load(token)).toBeDefined();
  });

  it("never store the token, in whatever form", async () => {
    const { token } = await sessions.start(randomUUID(), { note: "n" });
    const dump = await database.dump();
    expect(dump).toContain(hashToken(token).toString("hex"));
    const bytes = Buffer.from(token, "base64url");
    for (const form of [token, bytes.toString("hex"), bytes.toString("base64"), Buffer.from(token).toString("hex")]) {
      expect(dump).not.toContain(form);
    }
  });

  it("load with one query, and with none for what cannot be a token", async () => {
    const { token } = await sessions.start(randomUUID());
    database.queries.length = 0;
    await sessions.load(token);
    expect(database.queries).toEqual(["rungs_session_read"]);
    for (const bad of [
      "",
      "x",
      `${token}x`,
      token.slice(1),
      `${token.slice(1)}\0`,
      `${token.slice(1)}ü`,
      "a".repeat(1e6),
    ]) {
      expect(await sessions.load(bad)).toBeUndefined();
      expect(await sessions.revoke(bad)).toBe(false);
      expect(await sessions.update(bad, { a: 1 })).toBeUndefined();
    }
    expect(database.queries).toHaveLength(1);
  });

  it("end when unused for the idle time, to the millisecond", async () => {
    const { token } = await sessions.start(randomUUID());
    clock.advance(30 * dayMs);
    expect(await sessions.load(token)).toBeUndefined();
    clock.advance(-1);
    expect(await sessions.load(token)).toBeDefined();
  });

  it("live on while used, up to the absolute end", async () => {
    const { token } = await sessions.start(randomUUID());
    const seen = async () => (await database.store.read(hashToken(token)))?.lastSeenAt.getTime();
    for (let day = 0; day < 80; day += 20) {
      clock.advance(20 * dayMs);
      expect(await sessions.load(token)).toBeDefined();
      await vi.waitFor(async () => expect(await seen()).toBe(clock.now()));
    }
    clock.advance(10 * dayMs - 1);
    expect(await sessions.load(token)).toBeDefined();
    clock.advance(1);
    expect(await sessions.load(token)).toBeUndefined();
  });

  it("note their use at most every five minutes, once however many read at once", async () => {
    const { token } = await sessions.start(randomUUID());
    const touches = () => database.queries.filter((name) => name === "rungs_session_touch").length;
    clock.advance(5 * minuteMs - 1);
    await sessions.load(token);
    expect(touches()).toBe(0);
    clock.advance(1);
    await Promise.all(Array.from({ length: 30 }, () => sessions.load(token)));
    await vi.waitFor(async () =>
      expect((await database.store.read(hashToken(token)))?.lastSeenAt.getTime()).toBe(clock.now()),
    );
    // Loads that saw the old note after the first touch had ended may send one more; the store lets it change nothing.
    expect(touches()).toBeLessThan(5);
    const before = touches();
    await sessions.load(token);
    expect(touches()).toBe(before);
  });

  it("rotate at sign-in: the planted token opens nothing, the anonymous data comes along", async () => {
    const planted = await sessions.start(null, { cart: 2 });
    const userId = randomUUID();
    const session = await sessions.rotate(planted.token, userId);
    expect(session.token).not.toBe(planted.token);
    expect(await sessions.load(planted.token)).toBeUndefined();
    expect(await sessions.load(session.token)).toMatchObject({ userId, data: { cart: 2 } });
  });

  it("rotate without handing one user's data to another, nor an ended session's to anyone", async () => {
    const userId = randomUUID();
    const first = await sessions.start(userId, { private: true });
    const same = await sessions.rotate(first.token, userId);
    expect(same.data).toEqual({ private: true });
    const other = await sessions.rotate(same.token, randomUUID());
    expect(other.data).toEqual({});
    expect(await sessions.load(same.token)).toBeUndefined();

    const ended = await sessions.start(null, { cart: 2 });
    clock.advance(30 * dayMs);
    expect((await sessions.rotate(ended.token, userId)).data).toEqual({});
  });

  it("rotate to a full new life, and start one where there was none", async () => {
    const userId = randomUUID();
    const old = await sessions.start(userId);
    clock.advance(10 * dayMs);
    const fresh = await sessions.rotate(old.token, userId);
    expect(fresh.expiresAt.getTime()).toBe(clock.now() + 90 * dayMs);
    for (const token of ["", "nonsense", "A".repeat(43)]) {
      const session = await sessions.rotate(token, userId);
      expect(await sessions.load(session.token)).toMatchObject({ userId });
    }
  });

  it("are revoked one and all, but for the one kept", async () => {
    const userId = randomUUID();
    const [phone, laptop, tablet] = [
      await sessions.start(userId),
      await sessions.start(userId),
      await sessions.start(userId),
    ];
    const stranger = await sessions.start(randomUUID());
    expect(await sessions.revoke(phone.token)).toBe(true);
    expect(await sessions.revoke(phone.token)).toBe(false);
    expect(await sessions.revokeAll(userId, laptop.token)).toBe(1);
    expect(await sessions.load(tablet.token)).toBeUndefined();
    expect(await sessions.load(laptop.token)).toBeDefined();
    expect(await sessions.revokeAll(userId)).toBe(1);
    expect(await sessions.load(laptop.token)).toBeUndefined();
    expect(await sessions.load(stranger.token)).toBeDefined();
  });

  it("update by field through the token", async () => {
    const { token } = await sessions.start(randomUUID(), { a: 1 });
    await Promise.all([sessions.update(token, { b: 2 }), sessions.update(token, { c: 3 })]);
    expect((await sessions.load(token))?.data).toEqual({ a: 1, b: 2, c: 3 });
  });

  it("sweep everything ended in batches, and stop when told", async () => {
    await database.home.query(
      undefined,
      `insert into rungs_sessions (token_hash, user_id, created_at, last_seen_at, expires_at)
       select sha256(i::text::bytea), null, $1, $1, $2 from generate_series(1, 2500) i`,
      [new Date(clock.now()), new Date(clock.now() + 90 * dayMs)],
    );
    const live = await sessions.start(randomUUID());
    expect(await sessions.sweep()).toBe(0);
    clock.advance(29 * dayMs);
    await sessions.load(live.token);
    await vi.waitFor(async () =>
      expect((await database.store.read(hashToken(live.token)))?.lastSeenAt.getTime()).toBe(clock.now()),
    );
    clock.advance(dayMs);
    expect(await sessions.sweep(AbortSignal.abort())).toBe(0);
    expect(await sessions.sweep()).toBe(2_500);
    expect(await sessions.load(live.token)).toBeDefined();
  });

  it("refuse times that contradict each other", () => {
    const { store } = database;
    expect(() => createSessions({ store, idleMs: 10, absoluteMs: 5, touchEveryMs: 1 })).toThrow(ConfigError);
    expect(() => createSessions({ store, idleMs: 10, touchEveryMs: 10 })).toThrow("touchEveryMs < idleMs");
    expect(() => createSessions({ store, idleMs: Number.NaN })).toThrow(ConfigError);
  });
});

describe("sessions during an outage of the store", () => {
  it("raise UnavailableError instead of signing anybody out, and a lost note of use harms nobody", async () => {
    const database = await openSessionDatabase();
    try {
      const clock = handClock();
      const warnings: string[] = [];
      const log = {
        debug() {},
        info() {},
        error() {},
        warn: (_: object, message: string) => void warnings.push(message),
      };
      const touchless = {
        ...database.store,
        touch: () => Promise.reject(new UnavailableError("OVERLOADED", "planted", { canRetry: true })),
      };
      const session = await createSessions({ store: database.store, clock }).start(randomUUID());
      clock.advance(10 * minuteMs);
      expect(await createSessions({ store: touchless, clock, log }).load(session.token)).toBeDefined();
      await vi.waitFor(() => expect(warnings).toHaveLength(1));

      await database.stopServer();
      const sessions = createSessions({ store: database.store, clock });
      for (const call of [
        () => sessions.load(session.token),
        () => sessions.start(randomUUID()),
        () => sessions.rotate(session.token, randomUUID()),
        () => sessions.revoke(session.token),
        () => sessions.revokeAll(randomUUID()),
        () => sessions.update(session.token, { a: 1 }),
        () => sessions.sweep(),
      ]) {
        await expect(call()).rejects.toBeInstanceOf(UnavailableError);
      }
    } finally {
      await database.close();
    }
  });
});
