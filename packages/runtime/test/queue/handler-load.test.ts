/** What handlers have to do: the figures, how they are counted, and what they cost. */
import { until } from "@rungs/contract/queue-contract";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { meterLoad } from "../../src/queue/drivers/postgres-handler-load.ts";
import { type HandlerCount, type HandlerLoad, nextLoad, processesFor } from "../../src/queue/handler-load.ts";
import { defineEvent, type HandlerStats, handle } from "../../src/queue/index.ts";
import { openQueueDatabase, type QueueDatabase } from "./processes-of-queue.ts";

/** Counts every 5 s for 5 min of a handler that gets `perS` messages, all but `left` a second of which are tried, each in `ms`. */
function loadAfter({ perS, ms, left = 0 }: { perS: number; ms: number; left?: number }): HandlerLoad {
  let load: HandlerLoad | undefined;
  for (let seconds = 0; seconds <= 300; seconds += 5) {
    const delivered = seconds * (perS - left);
    const count: HandlerCount = {
      ...{ handler: "a.work", waiting: (perS * ms) / 1_000 + seconds * left, oldestAgeMs: null },
      ...{ delivered, done: delivered, busyMs: delivered * ms, atMs: seconds * 1_000 },
    };
    load = nextLoad(load, count);
  }
  return load as HandlerLoad;
}

describe("the figures", () => {
  it("come to the rates that there are, and to the processes that keep each seven tenths busy", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2_000 }),
        fc.integer({ min: 1, max: 2_000 }),
        fc.integer({ min: 1, max: 50 }),
        (perS, ms, concurrency) => {
          const load = loadAfter({ perS, ms });
          expect(load.arrivalsPerS / perS).toBeCloseTo(1, 2);
          expect(load.donePerS / perS).toBeCloseTo(1, 2);
          expect(load.msPerTry).toBeCloseTo(ms, 5);
          const exact = (perS * ms) / 1_000 / concurrency / 0.7;
          const wanted = processesFor(load, { concurrency });
          expect(wanted).toBeGreaterThanOrEqual(Math.max(1, Math.floor(exact * 0.99)));
          expect(wanted).toBeLessThanOrEqual(Math.ceil(exact * 1.01) + 1);
          expect(processesFor(load, { concurrency, partitions: 4 })).toBe(Math.min(4, wanted));
        },
      ),
      { numRuns: 50 },
    );
  });

  it("ask for more while less is done than comes, so that what waits is worked off within a minute", () => {
    const even = loadAfter({ perS: 100, ms: 50 });
    const behind = loadAfter({ perS: 100, ms: 50, left: 20 });
    expect(behind.waiting).toBe(6_005);
    expect(behind.drainMs).toBeCloseTo((6_005 / 80) * 1_000, -2);
    expect(processesFor(even, { concurrency: 1 })).toBe(8);
    // 5 at work for what comes, and 5 for the 6,000 that wait: 6,000 · 0.05 s / 60 s.
    expect(processesFor(behind, { concurrency: 1 })).toBe(15);
  });

  it("say that nothing drains while nothing is done", () => {
    const count = { handler: "a", oldestAgeMs: 5, delivered: 0, done: 0, busyMs: 0 };
    const first = nextLoad(undefined, { ...count, waiting: 10, atMs: 0 });
    const second = nextLoad(first, { ...count, waiting: 10, atMs: 5_000 });
    expect(second).toMatchObject({ drainMs: null, msPerTry: null, donePerS: 0, arrivalsPerS: 0 });
    expect(processesFor(second, { concurrency: 10 })).toBe(1);
    expect(nextLoad(second, { ...count, waiting: 0, atMs: 10_000 }).drainMs).toBe(0);
  });
});

describe("the count", () => {
  const noted = defineEvent("thing.noted", z.object({ number: z.int() }));
  let database: QueueDatabase;
  beforeAll(async () => {
    database = await openQueueDatabase();
  });
  afterAll(() => database?.close());

  const meter = (handler: string, stats: () => readonly HandlerStats[] = () => [idleOf(handler)]) =>
    meterLoad({
      ...{ home: shardOf(database), shards: [shardOf(database)], subscriptions: [{ handler, event: noted.name }] },
      ...{ broker: undefined, stats, clock: systemClock, log: silentLogger, everyMs: 50 },
    });

  it("is made once for several processes, of what all of them did", async () => {
    const did = { ...idleOf("a.sum"), delivered: 10, done: 9, busyMs: 500 };
    const meters = [1, 2, 3].map(() => meter("a.sum", () => [did]));
    try {
      await until(() => meters.every((each) => each.load()[0]?.delivered === 30));
      expect(meters[0]?.load()[0]).toMatchObject({ done: 27, busyMs: 1_500, waiting: 0, oldestAgeMs: null });
    } finally {
      await Promise.all(meters.map((each) => each.stop()));
    }
  });

  it("has what is due, at work or behind others of its key, and not what is due later or dead", async () => {
    const add = (handler: string, state: number, more: { key?: string; due?: string } = {}) =>
      database.sql(
        `insert into rungs_jobs (job_id, handler, event, key, payload, priority, state, run_at, published_at)
         values (gen_random_uuid(), $1, 'thing.noted', $2, '{}', 1, $3, clock_timestamp() + $4::interval, clock_timestamp())`,
        [handler, more.key ?? null, state, more.due ?? "-1 minute"],
      );
    await add("a.some", 0);
    await add("a.some", 0, { key: "k" });
    await add("a.some", 1, { key: "k" });
    await add("a.some", 0, { due: "1 hour" });
    await add("a.some", 2, { key: "l", due: "1 hour" });
    await add("a.other", 0);
    const counting = meter("a.some");
    try {
      await until(() => counting.load().length === 1);
      const [load] = counting.load();
      expect(load?.waiting).toBe(3);
      expect(load?.oldestAgeMs).toBeGreaterThan(59_000);
      expect(load?.oldestAgeMs).toBeLessThan(90_000);
    } finally {
      await counting.stop();
    }
  });

  it("of many jobs is an estimate that costs no more than that of a few", async () => {
    await database.sql(`insert into rungs_jobs (job_id, handler, event, payload, priority, state, run_at, published_at)
      select gen_random_uuid(), case when n % 4 = 0 then 'a.many' else 'a.most' end, 'thing.noted', '{}', 1, 0, now(), now()
      from generate_series(1, 80000) n`);
    await database.sql("analyze rungs_jobs");
    const since = performance.now();
    const rows = await database.sql<{ handler_name: string; waiting: number }>(
      "select * from rungs_waiting(array['a.many', 'a.most'])",
    );
    const tookMs = performance.now() - since;
    expect(rows[0]?.waiting).toBeGreaterThan(15_000);
    expect(rows[0]?.waiting).toBeLessThan(25_000);
    expect(rows[1]?.waiting).toBeGreaterThan(50_000);
    expect(rows[1]?.waiting).toBeLessThan(70_000);
    expect(tookMs).toBeLessThan(2_000);
    await database.sql("truncate rungs_jobs");
  });

  it("comes from the handlers at work, and ends in what a scaler is told", async () => {
    const gate = Promise.withResolvers<void>();
    const process = await database.process([
      { ...handle(noted, () => gate.promise, { concurrency: 2 }), name: "a.slow" },
    ]);
    for (let number = 0; number < 20; number++) await process.publish(noted, { number });
    const running = await process.start();
    await until(() => running.load().handlers[0]?.waiting === 20);
    expect(running.load().wantedProcesses).toBe(1);
    gate.resolve();
    await until(() => running.load().handlers[0]?.waiting === 0);
    expect(running.load().handlers[0]).toMatchObject({ handler: "a.slow", done: 20, delivered: 20, drainMs: 0 });
  });
});

function idleOf(handler: string): HandlerStats {
  const none = {
    running: 0,
    claimed: 0,
    done: 0,
    putOff: 0,
    retried: 0,
    dead: 0,
    waitedMs: 0,
    delivered: 0,
    busyMs: 0,
  };
  return { handler, ...none };
}

function shardOf(database: QueueDatabase) {
  return {
    name: "shard 0",
    query: <R>(_: string | undefined, text: string, values: unknown[]) => database.sql<R>(text, values),
  };
}
