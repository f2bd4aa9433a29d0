/** What every session store must do, whatever it is made of. Run it against the real server behind each driver. */
import { randomBytes, randomUUID } from "node:crypto";
import { UnavailableError, UnsupportedError } from "rungs";
import { type SessionRecord, type SessionStore, sessionDataBytesMax } from "rungs/session";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** A store on a real server, with what the suite needs to look behind it. */
export interface SessionStoreUnderTest {
  readonly store: SessionStore;
  /** Everything the server holds of sessions, as text with hashes in hexadecimal. */
  dump(): Promise<string>;
  /** Takes the server away for good; the suite's last test does it. */
  takeDown(): Promise<void>;
  /** Frees what is left. */
  close(): Promise<void>;
}

const now = Date.UTC(2030, 0, 1);
const hourMs = 3_600_000;
const at = (hours: number) => new Date(now + hours * hourMs);

/** A session as the policy would make it, at noon of nothing in particular; times are fixed so that no clock is needed. */
export function sampleSession(fields: Partial<SessionRecord> = {}): SessionRecord {
  return {
    tokenHash: randomBytes(32),
    userId: randomUUID(),
    createdAt: at(0),
    lastSeenAt: at(0),
    expiresAt: at(100),
    data: {},
    wrote: 0,
    seen: {},
    revision: 0,
    ...fields,
  };
}

/** Fails unless fields set by many writers at once are all there afterwards. */
export async function expectConcurrentUpdatesKept(store: SessionStore): Promise<void> {
  const session = sampleSession();
  await store.create(session);
  const fields = Array.from({ length: 40 }, (_, index) => [`field${index}`, index] as const);
  await Promise.all(fields.map(([field, value]) => store.update(session.tokenHash, { [field]: value })));
  expect((await store.read(session.tokenHash))?.data).toEqual(Object.fromEntries(fields));
}

/** Fails unless an update that was acknowledged before a rotation took the session away went along with it. */
export async function expectNoUpdateLostByRotation(store: SessionStore): Promise<void> {
  for (let round = 0; round < 20; round++) {
    const old = sampleSession();
    const fresh = sampleSession({ userId: old.userId });
    await store.create(old);
    const updates = Array.from({ length: 4 }, (_, index) => store.update(old.tokenHash, { [`field${index}`]: round }));
    const [carried, ...answers] = await Promise.all([
      store.rotate(old.tokenHash, fresh, { keepsData: true }),
      ...updates,
    ]);
    const acknowledged = answers.flatMap((answer, index) => (answer === undefined ? [] : [`field${index}`]));
    expect(Object.keys(carried ?? {})).toEqual(expect.arrayContaining(acknowledged));
  }
}

/** Fails unless every change of a session, also of many at once, makes a revision of its own, later than those before it. */
export async function expectRevisionsRise(store: SessionStore): Promise<void> {
  const session = sampleSession({ revision: 7 });
  const { tokenHash } = session;
  await store.create(session);
  const revision = async () => (await store.read(tokenHash))?.revision ?? Number.NaN;
  expect(await revision()).toBe(7);
  const made = await Promise.all(
    Array.from({ length: 30 }, async (_, index) => {
      if (index % 3 === 0) return (await store.update(tokenHash, { [`field${index}`]: index }))?.revision;
      return index % 3 === 1 ? store.noteWrite(tokenHash, index) : store.noteSeen(tokenHash, { 0: position(index) });
    }),
  );
  expect(new Set(made).size).toBe(made.length);
  expect(Math.min(...made.map(Number))).toBeGreaterThan(7);
  expect(await revision()).toBe(Math.max(...made.map(Number)));
  await store.touch(tokenHash, at(1), at(0));
  expect(await revision()).toBeGreaterThan(Math.max(...made.map(Number)));
  // What it has already it has in the revision given, and in those before perhaps not.
  const before = await revision();
  expect(await store.noteWrite(tokenHash, 1)).toBeGreaterThanOrEqual(before);
  expect(await store.noteSeen(tokenHash, { 0: position(1) })).toBeGreaterThanOrEqual(before);
  const next = sampleSession();
  await store.rotate(tokenHash, next, { keepsData: true });
  expect((await store.read(next.tokenHash))?.revision).toBe(0);
  expect(await store.noteWrite(tokenHash, 99)).toBeUndefined();
  expect(await store.noteSeen(tokenHash, { 0: position(99) })).toBeUndefined();
}

/** How far a database had got, as the sessions of an app note it. */
const position = (lsn: number) => `00000001${lsn.toString(16).padStart(16, "0")}`;

/** Fails unless of many notes at once the latest of each shard is kept. */
export async function expectLatestSeenKept(store: SessionStore): Promise<void> {
  const session = sampleSession({ seen: { 0: position(7), 1: position(500) } });
  await store.create(session);
  const notes = Array.from({ length: 40 }, (_, index) => ({
    0: position((index * 23) % 40),
    [1 + (index % 3)]: position(100 + index),
  }));
  await Promise.all(notes.map((seen) => store.noteSeen(session.tokenHash, seen)));
  const latest = { 0: position(39), 1: position(500), 2: position(137), 3: position(138) };
  expect((await store.read(session.tokenHash))?.seen).toEqual(latest);
}

/** The suite. `makeStore` opens an empty store. */
export function sessionStoreContract(options: {
  readonly name: string;
  readonly makeStore: () => Promise<SessionStoreUnderTest>;
}): void {
  describe(`session store contract: ${options.name}`, () => {
    let subject: SessionStoreUnderTest;
    let store: SessionStore;
    beforeAll(async () => {
      subject = await options.makeStore();
      store = subject.store;
    });
    afterAll(() => subject?.close());

    readingAndWriting(() => store);
    updating(() => store);
    rotating(() => store);
    ending(() => store);

    it("keeps the hash and nothing that opens a session", async () => {
      const session = sampleSession();
      await store.create(session);
      expect(await subject.dump()).toContain(session.tokenHash.toString("hex"));
    });

    it("raises UnavailableError from every method when the server is gone, and never says there is no session", async () => {
      const session = sampleSession();
      await store.create(session);
      await subject.takeDown();
      const sweep = { expiredAt: at(0), idleSince: at(0), idleExpiresBy: at(0), sessionsMax: 1 };
      const calls = {
        create: () => store.create(sampleSession()),
        read: () => store.read(session.tokenHash),
        touch: () => store.touch(session.tokenHash, at(2), at(1)),
        update: () => store.update(session.tokenHash, { a: 1 }),
        rotate: () => store.rotate(session.tokenHash, sampleSession(), { keepsData: true }),
        noteWrite: () => store.noteWrite(session.tokenHash, 1),
        noteSeen: () => store.noteSeen(session.tokenHash, { 0: position(1) }),
        revoke: () => store.revoke(session.tokenHash),
        revokeAllOf: () => store.revokeAllOf(String(session.userId)),
        ...(store.capabilities.expiresByItself ? {} : { sweep: () => store.sweep(sweep) }),
      };
      for (const [method, call] of Object.entries(calls)) {
        await expect(call(), method).rejects.toBeInstanceOf(UnavailableError);
      }
    });
  });
}

function readingAndWriting(store: () => SessionStore): void {
  it("gives back a session as it was created", async () => {
    const data = { text: "ü \"'\\ <b>", number: 1.5, list: [1, null, { deep: true }], empty: {} };
    const seen = { 0: position(9), 1023: `ffffffff${"f".repeat(16)}` };
    const session = sampleSession({ data, seen, revision: 2 ** 47, lastSeenAt: at(1), expiresAt: new Date(now + 1) });
    await store().create(session);
    expect(await store().read(session.tokenHash)).toEqual(session);
  });

  it("keeps a session without a user", async () => {
    const session = sampleSession({ userId: null });
    await store().create(session);
    expect((await store().read(session.tokenHash))?.userId).toBeNull();
  });

  it("tells its states apart by revisions that rise", () => expectRevisionsRise(store()));

  it("gives undefined for a hash it does not know", async () => {
    expect(await store().read(randomBytes(32))).toBeUndefined();
  });

  it("moves the last use forward and never back", async () => {
    const session = sampleSession({ lastSeenAt: at(5) });
    await store().create(session);
    await store().touch(session.tokenHash, at(9), at(8));
    expect((await store().read(session.tokenHash))?.lastSeenAt).toEqual(at(9));
    await store().touch(session.tokenHash, at(7), at(99));
    expect((await store().read(session.tokenHash))?.lastSeenAt).toEqual(at(9));
  });

  it("does not note a use when a recent one is noted already", async () => {
    const session = sampleSession({ lastSeenAt: at(5) });
    await store().create(session);
    await store().touch(session.tokenHash, at(6), at(4));
    expect((await store().read(session.tokenHash))?.lastSeenAt).toEqual(at(5));
  });

  it("raises the number of a session's newest change, never lowers it, and carries it over as the policy says", async () => {
    const session = sampleSession({ wrote: 1_800_000_000_000_001 });
    await store().create(session);
    await store().noteWrite(session.tokenHash, 1_800_000_000_000_007);
    await store().noteWrite(session.tokenHash, 1_800_000_000_000_003);
    expect((await store().read(session.tokenHash))?.wrote).toBe(1_800_000_000_000_007);
    const next = sampleSession({ wrote: 1_800_000_000_000_009, data: { a: 1 } });
    expect(await store().rotate(session.tokenHash, next, { keepsData: true })).toEqual({ a: 1 });
    expect(await store().read(next.tokenHash)).toEqual(next);
    await store().noteWrite(session.tokenHash, 1_800_000_000_000_011);
    expect(await store().read(session.tokenHash)).toBeUndefined();
  });

  it("keeps the latest of what a session has seen of each shard, also when many note at once", () =>
    expectLatestSeenKept(store()));

  it("keeps what was seen of 1,024 shards", async () => {
    const session = sampleSession();
    await store().create(session);
    const seen = Object.fromEntries(Array.from({ length: 1_024 }, (_, shard) => [shard, position(shard)]));
    await store().noteSeen(session.tokenHash, seen);
    expect((await store().read(session.tokenHash))?.seen).toEqual(seen);
  });

  it("takes a later timeline for later, whatever the place in the log", async () => {
    const session = sampleSession({ seen: { 0: position(0xffff) } });
    await store().create(session);
    await store().noteSeen(session.tokenHash, { 0: "000000020000000000000001" });
    await store().noteSeen(session.tokenHash, { 0: position(0xfffff) });
    expect((await store().read(session.tokenHash))?.seen).toEqual({ 0: "000000020000000000000001" });
  });

  it("brings no session back by noting its use or updating it", async () => {
    const session = sampleSession();
    await store().create(session);
    await store().revoke(session.tokenHash);
    await store().touch(session.tokenHash, at(2), at(1));
    await store().noteSeen(session.tokenHash, { 0: position(1) });
    expect(await store().update(session.tokenHash, { a: 1 })).toBeUndefined();
    expect(await store().read(session.tokenHash)).toBeUndefined();
  });
}

function updating(store: () => SessionStore): void {
  it("merges an update by field, null removing one, and gives the whole", async () => {
    const session = sampleSession({ data: { a: 1, b: { kept: true }, c: "old" } });
    await store().create(session);
    expect((await store().update(session.tokenHash, { a: null, c: "new", d: [1] }))?.data).toEqual({
      b: { kept: true },
      c: "new",
      d: [1],
    });
    expect((await store().read(session.tokenHash))?.data).toEqual({ b: { kept: true }, c: "new", d: [1] });
  });

  it("takes an empty update and fields with awkward names", async () => {
    const session = sampleSession({ data: { a: 1 } });
    await store().create(session);
    const update = async (patch: SessionRecord["data"]) => (await store().update(session.tokenHash, patch))?.data;
    expect(await update({})).toEqual({ a: 1 });
    const awkward = { "": 1, "a.b": 2, '"{},': 3, $1: 4 };
    expect(await update(awkward)).toEqual({ a: 1, ...awkward });
    const removal = Object.fromEntries(Object.keys(awkward).map((field) => [field, null]));
    expect(await update(removal)).toEqual({ a: 1 });
  });

  it("loses none of many updates at once", () => expectConcurrentUpdatesKept(store()));

  it("refuses data over the bound and keeps what was there", async () => {
    const large = { large: "x".repeat(sessionDataBytesMax) };
    const session = sampleSession({ data: { a: 1 } });
    await store().create(session);
    await expect(store().update(session.tokenHash, large)).rejects.toBeInstanceOf(UnsupportedError);
    await expect(store().create(sampleSession({ data: large }))).rejects.toMatchObject({
      code: "SESSION_DATA_TOO_LARGE",
    });
    expect((await store().read(session.tokenHash))?.data).toEqual({ a: 1 });
  });
}

function rotating(store: () => SessionStore): void {
  it("puts the new session in place of the old one, with its data when told so", async () => {
    const old = sampleSession({ userId: null, data: { cart: 3, mark: "old" } });
    const fresh = sampleSession({ data: { mark: "new" } });
    await store().create(old);
    expect(await store().rotate(old.tokenHash, fresh, { keepsData: true })).toEqual({ cart: 3, mark: "new" });
    expect(await store().read(old.tokenHash)).toBeUndefined();
    expect(await store().read(fresh.tokenHash)).toEqual({ ...fresh, data: { cart: 3, mark: "new" } });
  });

  it("leaves the old data behind when told so", async () => {
    const old = sampleSession({ data: { private: true } });
    const fresh = sampleSession();
    await store().create(old);
    expect(await store().rotate(old.tokenHash, fresh, { keepsData: false })).toEqual({});
    expect(await store().read(old.tokenHash)).toBeUndefined();
    expect((await store().read(fresh.tokenHash))?.data).toEqual({});
  });

  it("carries over what the old session has seen, with its data or without", async () => {
    for (const keepsData of [true, false]) {
      const old = sampleSession({ seen: { 0: position(5), 1: position(9) } });
      const fresh = sampleSession({ seen: { 1: position(7), 2: position(3) } });
      await store().create(old);
      await store().rotate(old.tokenHash, fresh, { keepsData });
      expect((await store().read(fresh.tokenHash))?.seen).toEqual({ 0: position(5), 1: position(9), 2: position(3) });
    }
  });

  it("makes the new session even when the old one is gone", async () => {
    const fresh = sampleSession();
    expect(await store().rotate(randomBytes(32), fresh, { keepsData: true })).toEqual({});
    expect(await store().read(fresh.tokenHash)).toEqual(fresh);
  });

  it("hands the data of one session to one successor only when two rotate at once", async () => {
    const old = sampleSession({ data: { once: true } });
    await store().create(old);
    const successors = [sampleSession(), sampleSession()];
    const data = await Promise.all(
      successors.map((fresh) => store().rotate(old.tokenHash, fresh, { keepsData: true })),
    );
    expect(data.filter((fields) => fields["once"] === true)).toHaveLength(1);
    expect(await store().read(old.tokenHash)).toBeUndefined();
  });

  it("loses no acknowledged update to a rotation", () => expectNoUpdateLostByRotation(store()));
}

function ending(store: () => SessionStore): void {
  it("revokes one session and says whether there was one", async () => {
    const session = sampleSession();
    await store().create(session);
    expect(await store().revoke(session.tokenHash)).toBe(true);
    expect(await store().revoke(session.tokenHash)).toBe(false);
    expect(await store().read(session.tokenHash)).toBeUndefined();
  });

  it("revokes all sessions of a user, of nobody else, and but for the one kept", async () => {
    const userId = randomUUID();
    const own = [sampleSession({ userId }), sampleSession({ userId }), sampleSession({ userId })] as const;
    const others = [sampleSession(), sampleSession({ userId: null })];
    for (const session of [...own, ...others]) await store().create(session);
    expect(await store().revokeAllOf(userId, own[1].tokenHash)).toBe(2);
    expect(await store().read(own[0].tokenHash)).toBeUndefined();
    expect(await store().read(own[1].tokenHash)).toBeDefined();
    expect(await store().revokeAllOf(userId)).toBe(1);
    expect(await store().read(own[1].tokenHash)).toBeUndefined();
    for (const session of others) expect(await store().read(session.tokenHash)).toBeDefined();
  });

  it("sweeps what expired or idled, within its bound, and nothing that lives", async () => {
    if (store().capabilities.expiresByItself) {
      const sweep = { expiredAt: at(1e6), idleSince: at(1e6), idleExpiresBy: at(1e6), sessionsMax: 10 };
      expect(await store().sweep(sweep)).toBe(0);
      return;
    }
    // Far in the past, so that the suite's other sessions are all alive by comparison.
    const ended = [
      ...Array.from({ length: 5 }, () => sampleSession({ expiresAt: at(-1_000) })),
      ...Array.from({ length: 4 }, () => sampleSession({ lastSeenAt: at(-2_000), expiresAt: at(-900) })),
    ];
    const live = [
      sampleSession({ expiresAt: new Date(at(-1_000).getTime() + 1) }),
      sampleSession({ lastSeenAt: new Date(at(-1_500).getTime() + 1), expiresAt: at(-900) }),
    ];
    for (const session of [...ended, ...live]) await store().create(session);
    const sweep = { expiredAt: at(-1_000), idleSince: at(-1_500), idleExpiresBy: at(-800), sessionsMax: 3 };
    const counts = await Promise.all([store().sweep(sweep), store().sweep(sweep)]);
    for (let call = 0; call < 10; call++) counts.push(await store().sweep(sweep));
    expect(Math.max(...counts)).toBeLessThanOrEqual(3);
    expect(counts.reduce((sum, count) => sum + count)).toBe(ended.length);
    for (const session of ended) expect(await store().read(session.tokenHash)).toBeUndefined();
    for (const session of live) expect(await store().read(session.tokenHash)).toBeDefined();
  });
}
