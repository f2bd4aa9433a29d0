/** What transactions write for the broker, and what the job table keeps of what the broker delivered. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { CompiledQuery } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { migrate } from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import { unloadOutboxes } from "../../src/queue/drivers/outbox-unloading.ts";
import { postgresOutbox } from "../../src/queue/drivers/postgres-outbox.ts";
import { jobAdmin, postgresJobStore, publication, queueMigrations } from "../../src/queue/index.ts";
import {
  closed,
  counted,
  handlers,
  type OutboxShard,
  openOutboxShard,
  ownerAt,
  setCount,
  subscriptions,
} from "./outbox-shard.ts";

let server: TestPostgres;
let books: OutboxShard;

beforeAll(async () => {
  server = await startTestPostgres();
});
beforeEach(async () => {
  books = await openOutboxShard(await server.createDatabase(), 3);
});
afterEach(() => books.close());
afterAll(() => server.stop());

const query = <R>(sql: string, values: unknown[] = []) => books.shard.query<R>(undefined, sql, values);
const waiting = () =>
  query<{ event: string; key: string | null; version: number; payload: { number: number } }>(
    "select event, key, version, payload from rungs_outbox order by sequence",
  );
const jobs = () =>
  query<{ handler: string; key: string | null; priority: number; state: number; version: number; payload: unknown }>(
    "select handler, key, priority, state, version, payload from rungs_jobs order by sequence",
  );
const newId = () => uuidV7(systemClock, systemRandom);

describe("a transaction with a broker", () => {
  it("writes one row a message, whatever the number of handlers, and jobs for what the broker does not carry", async () => {
    await books.db.for(ownerAt(0)).transaction(async (tx) => {
      tx.publish(counted, { key: "a", number: 0 }, { key: "a" });
      tx.publish(counted, { key: "", number: 1 });
      tx.publish(counted, { key: "a", number: 2 }, { key: "a", priority: "low" });
      tx.publish(counted, { key: "", number: 3 }, { priority: "high" });
      tx.publish(counted, { key: "a", number: 4 }, { key: "a", delayMs: 60_000 });
    });
    expect(await waiting()).toMatchObject([
      { event: counted.name, key: "a", version: 3, payload: { number: 0 } },
      { event: counted.name, key: null, version: 3, payload: { number: 1 } },
      { event: counted.name, key: "a", version: 3, payload: { number: 2 } },
    ]);
    expect(await jobs()).toMatchObject([
      ...handlers.map((handler) => ({ handler, key: null, priority: 0, state: 0, payload: { number: 3 } })),
      ...handlers.map((handler) => ({ handler, key: "a", priority: 1, state: 2, version: 3, payload: { number: 4 } })),
    ]);
  });

  it("that is rolled back leaves nothing", async () => {
    const failing = books.count(0, async () => {
      throw new Error("no");
    });
    await expect(failing).rejects.toThrow("no");
    expect(await waiting()).toEqual([]);
  });

  it("of one statement writes both kinds if the statement gave a row, and none if not", async () => {
    const effects = {
      publish: [
        publication(counted, { key: "a", number: 1 }, { key: "a" }),
        publication(counted, { key: "", number: 2 }, { delayMs: 60_000 }),
      ],
    };
    const onlyJobs = { publish: [publication(counted, { key: "", number: 3 }, { priority: "low" })] };
    await books.db.for(ownerAt(9)).run(setCount, { ownerId: ownerAt(9), count: 5 }, effects);
    await books.db.for(ownerAt(9)).run(setCount, { ownerId: ownerAt(9), count: 5 }, onlyJobs);
    expect([await waiting(), await jobs()]).toEqual([[], []]);
    await books.db.for(ownerAt(0)).run(setCount, { ownerId: ownerAt(0), count: 5 }, effects);
    await books.db.for(ownerAt(0)).run(setCount, { ownerId: ownerAt(0), count: 5 }, onlyJobs);
    expect(await waiting()).toMatchObject([{ payload: { number: 1 } }]);
    const numbers = (await jobs()).map(({ payload }) => (payload as { number: number }).number);
    expect(numbers).toEqual([2, 2, 3, 3]);
  });
});

describe("a full outbox", () => {
  it("refuses messages for the broker, with the data they came with, and lets them in again when there is room", async () => {
    const outbox = postgresOutbox(books.shard);
    const text = "x".repeat(200);
    for (let round = 0; round < 5; round++) {
      await books.db.for(ownerAt(1)).transaction(async (tx) => {
        for (let number = 0; number < 300; number++) tx.publish(counted, { key: "b", number, text }, { key: "b" });
      });
    }
    const bytesMax = 200_000;
    const figures = await outbox.measure(bytesMax);
    expect(figures).toMatchObject({ messages: 1_500, isFull: true });
    const [stored] = await query<{ bytes: number }>("select pg_table_size('rungs_outbox') as bytes");
    expect(figures.bytes / (stored?.bytes ?? 0)).toBeGreaterThan(0.7);
    expect(figures.bytes / (stored?.bytes ?? 0)).toBeLessThan(1.5);

    const refused = { code: "OUTBOX_FULL", canRetry: true };
    await expect(books.count(0)).rejects.toMatchObject(refused);
    const effects = { publish: [publication(counted, { key: "a", number: 1 }, { key: "a" })] };
    const write = { ownerId: ownerAt(0), count: 5 };
    await expect(books.db.for(ownerAt(0)).run(setCount, write, effects)).rejects.toMatchObject(refused);
    expect(await query("select 1 from accounts where count > 0")).toEqual([]);
    await books.db.for(ownerAt(0)).run(setCount, write);
    const later = { publish: [publication(counted, { key: "", number: 1 }, { delayMs: 1 })] };
    await books.db.for(ownerAt(0)).run(setCount, write, later);

    await query("delete from rungs_outbox where sequence > 400");
    expect(await outbox.measure(figures.bytes / 3.9)).toMatchObject({ messages: 400, isFull: true });
    await query("delete from rungs_outbox where sequence > 300");
    expect(await outbox.measure(figures.bytes / 3.9)).toMatchObject({ messages: 300, isFull: false });
    expect(await books.count(0)).toBe(6);
  });

  it("gives its disk space back once it is empty, but waits for nobody", async () => {
    const outbox = postgresOutbox(books.shard);
    await books.db.for(ownerAt(1)).transaction(async (tx) => {
      for (let number = 0; number < 1_000; number++) tx.publish(counted, { key: "b", number }, { key: "b" });
    });
    expect(await outbox.shrink()).toBe(false);
    await query("delete from rungs_outbox");
    const { promise: isReleased, resolve: release } = Promise.withResolvers<void>();
    const { promise: isHeld, resolve: hold } = Promise.withResolvers<void>();
    const reader = books.shard.kysely.transaction().execute(async (tx) => {
      await tx.selectFrom("rungs_outbox" as never).execute();
      hold();
      await isReleased;
    });
    await isHeld;
    expect(await outbox.shrink()).toBe(false);
    release();
    await reader;
    expect((await outbox.measure(1e9)).tableBytes).toBeGreaterThan(100_000);
    expect(await outbox.shrink()).toBe(true);
    expect((await outbox.measure(1e9)).tableBytes).toBeLessThan(50_000);
    expect(await books.count(0)).toBe(1);
    expect(await waiting()).toHaveLength(1);
  });
});

describe("what the broker delivered and is parked", () => {
  interface Parked {
    readonly id: string;
    readonly handler: string;
    readonly key: string | null;
    readonly delayMs?: number;
    readonly error?: string;
    readonly isDead?: boolean;
    readonly publishedMs?: number;
  }
  const park = (parked: readonly Parked[]) =>
    query(
      "select rungs_park($1, $2, $3, $4::int2[], $5, $6::json[], $7::float8[], $8::int4[], $9::float8[], $10, $11, $12, $13)",
      [
        parked.map(({ id }) => id),
        parked.map(({ handler }) => handler),
        parked.map(() => counted.name),
        parked.map(() => 3),
        parked.map(({ key }) => key),
        parked.map(() => JSON.stringify({ key: "a", number: 7 })),
        parked.map(({ publishedMs = Date.now() }) => publishedMs),
        parked.map(() => 1),
        parked.map(({ delayMs = 0 }) => delayMs),
        parked.map(({ error = null }) => error),
        parked.map(({ isDead = false }) => isDead),
        parked.map(() => 1),
        parked.map(() => null),
      ],
    );
  const blocked = async (pairs: readonly (readonly [handler: string, key: string])[]) => {
    const sql = "select rungs_blocked($1, $2) as blocked";
    const [row] = await query<{ blocked: boolean[] }>(sql, [pairs.map(([h]) => h), pairs.map(([, key]) => key)]);
    return row?.blocked;
  };
  const claim = async (workerId: string, handler: string) => {
    const store = await postgresJobStore(books.shard, () => systemClock.monotonic());
    await store.heartbeat(workerId, 60_000);
    return { store, jobs: await store.claim(workerId, [{ handler, slots: 10 }]) };
  };

  it("runs in order of its key after its wait, once, and blocks what comes behind", async () => {
    const [work, audit] = handlers as [string, string];
    const ids = [newId(), newId(), newId()] as const;
    const first = { id: ids[0], handler: work, key: "a", delayMs: 150, error: "failed" };
    await park([
      first,
      { id: ids[1], handler: work, key: "a" },
      { id: ids[2], handler: work, key: "b" },
      { id: ids[2], handler: audit, key: "c", isDead: true, error: "poison" },
    ]);
    // The broker delivers again what it was not told about.
    await park([
      { ...first, delayMs: 0 },
      { id: ids[2], handler: audit, key: "c", isDead: true },
    ]);
    expect(
      await blocked([
        [work, "a"],
        [audit, "a"],
        [work, "b"],
        [audit, "c"],
        [work, "z"],
      ]),
    ).toEqual([...[true, false, true, false, false]]);
    expect(await blocked([])).toEqual([]);
    const worker = newId();
    const { store, jobs: claimed } = await claim(worker, work);
    expect(claimed).toMatchObject([{ jobId: ids[2], key: "b", attempt: 2 }]);
    const ran: string[] = [];
    await expect
      .poll(async () => {
        for (const job of await store.claim(worker, [{ handler: work, slots: 10 }])) {
          ran.push(job.jobId);
          await store.settle(worker, [{ job, outcome: { kind: "done" } }]);
        }
        return ran.length;
      })
      .toBe(2);
    expect(ran).toEqual([ids[0], ids[1]]);
    expect(await jobAdmin([books.shard]).list({ state: "dead", limit: 10 })).toMatchObject({
      jobs: [{ id: ids[2], handler: audit, attempts: 1, lastError: "poison" }],
    });
  });

  it("makes no effect that the broker's delivery made, even one that is just committing", async () => {
    const [work] = handlers as [string];
    const id = newId();
    await park([{ id, handler: work, key: null }]);
    const {
      store,
      jobs: [job],
    } = await claim(newId(), work);
    if (job === undefined) throw new Error("nothing claimed");
    const [holder] = await query<{ worker_id: string }>("select worker_id from rungs_jobs");
    const workerId = holder?.worker_id as string;
    const verdicts: string[] = [];
    const { promise: isNoted, resolve: note } = Promise.withResolvers<void>();
    const { promise: mayCommit, resolve: commit } = Promise.withResolvers<void>();
    const byBroker = books.db.for(ownerAt(0)).transaction(async (tx) => {
      const sql = "select rungs_once(null, null, 0, 0, $1, $2, '') as verdict";
      const noted = CompiledQuery.raw(sql, [id, work]) as CompiledQuery<{ verdict: string }>;
      const { rows } = await tx.kysely.withoutPlugins().executeQuery(noted);
      verdicts.push(rows[0]?.verdict ?? "");
      note();
      await mayCommit;
    });
    await isNoted;
    const byJob = books.db.for(ownerAt(0)).transaction((tx) => store.once(tx, workerId, job, ""));
    await expect
      .poll(() => query("select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%rungs_once%'"))
      .toHaveLength(1);
    commit();
    await byBroker;
    expect([...verdicts, await byJob]).toEqual(["first", "repeated"]);
    const other = () => books.db.for(ownerAt(0)).transaction((tx) => store.once(tx, workerId, job, "other"));
    expect([await other(), await other()]).toEqual(["first", "repeated"]);
    const late = { ...job, attempt: 9 };
    expect(await books.db.for(ownerAt(0)).transaction((tx) => store.once(tx, workerId, late, "late"))).toBe("lost");
    expect(await jobAdmin([books.shard]).show(id)).toMatchObject([{ steps: ["other"] }]);
  });

  it("keeps its version and its way when it dies and when it is tried again", async () => {
    const [work] = handlers as [string];
    const id = newId();
    await park([{ id, handler: work, key: "a" }]);
    const workerId = newId();
    const { store, jobs: claimed } = await claim(workerId, work);
    await store.settle(
      workerId,
      claimed.map((job) => ({ job, outcome: { kind: "dead", error: "no" } })),
    );
    const carried = (table: string) => query(`select version, via_broker from ${table}`);
    expect(await carried("rungs_dead_jobs")).toEqual([{ version: 3, via_broker: true }]);
    const admin = jobAdmin([books.shard]);
    expect(await admin.retry({ state: "dead", limit: 10 })).toBe(1);
    expect(await carried("rungs_dead_jobs")).toEqual([]);
    expect(await carried("rungs_jobs")).toEqual([{ version: 3, via_broker: true }]);
  });

  it("and what still waits in the outbox keeps its steps from being forgotten", async () => {
    const store = await postgresJobStore(books.shard, () => systemClock.monotonic());
    expect(await store.oldestPublished()).toBeUndefined();
    await books.count(0);
    await query("update rungs_outbox set published_at = published_at - interval '3 days'");
    const ageMs = async () => Date.now() - ((await store.oldestPublished())?.getTime() ?? 0);
    expect((await ageMs()) / 86_400_000).toBeCloseTo(3, 1);
    await park([{ id: newId(), handler: "books.count", key: null, publishedMs: Date.now() - 5 * 86_400_000 }]);
    expect((await ageMs()) / 86_400_000).toBeCloseTo(5, 1);
    await park([
      { id: newId(), handler: "books.count", key: null, publishedMs: Date.now() - 9 * 86_400_000, isDead: true },
    ]);
    expect((await ageMs()) / 86_400_000).toBeCloseTo(9, 1);
  });
});

it("what is left for a broker that is gone becomes jobs, in order and once, but for events that nobody handles", async () => {
  for (let round = 0; round < 30; round++) await books.count(round % 2);
  await books.db.for(ownerAt(0)).transaction(async (tx) => tx.publish(closed, { number: 1 }, { key: "a" }));
  const stored: string[] = [];
  const parts = {
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    stored: (name: string) => stored.push(name),
  };
  const stop = unloadOutboxes({ shards: [books.shard], subscriptions, ...parts });
  await expect.poll(async () => (await waiting()).map(({ event }) => event), { timeout: 5_000 }).toEqual([closed.name]);
  await stop();
  expect(stored).toContain(books.shard.name);
  const left = await jobs();
  expect(left).toHaveLength(60);
  for (const handler of handlers) {
    for (const owner of [0, 1]) {
      const own = left.filter((job) => job.handler === handler && job.key === ownerAt(owner));
      const numbers = own.map(({ payload }) => (payload as { number: number }).number);
      expect(numbers).toEqual(Array.from({ length: 15 }, (_, index) => index + 1));
    }
  }
});

it("the tables go back to what they were without a broker, and forward again, with their jobs", async () => {
  const target = {
    ...{ db: books.shard.kysely, name: books.shard.name, service: "rungs_queue", target: "shards" as const },
    migrations: queueMigrations,
  };
  const later = [publication(counted, { key: "", number: 1 }, { delayMs: 60_000 })];
  await books.db.for(ownerAt(0)).run(setCount, { ownerId: ownerAt(0), count: 1 }, { publish: later });
  expect(await migrate({ ...target, to: "0001_jobs" })).toEqual(["0004_delivery", "0003_operation", "0002_broker"]);
  const columns = () =>
    query<{ column_name: string }>(
      "select column_name from information_schema.columns where table_name = 'rungs_jobs'",
    );
  expect((await columns()).map(({ column_name }) => column_name)).not.toContain("via_broker");
  expect(await query("select 1 from rungs_jobs")).toHaveLength(2);
  await migrate(target);
  expect((await columns()).map(({ column_name }) => column_name)).toContain("via_broker");
  expect(await books.count(0)).toBe(2);
});
