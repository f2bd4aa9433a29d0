/** One worker over several stores: they share each handler's room without keeping it from each other. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { z } from "zod";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import {
  initialPlacement,
  migrate,
  type ShardConnection,
  shardedDatabase,
  tableRegistry,
} from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import {
  defineEvent,
  handle,
  type NamedHandler,
  postgresQueue,
  queueMigrations,
  type RunningQueue,
} from "../../src/queue/index.ts";

const noted = defineEvent("thing.noted", z.object({ shard: z.int() }));
const pollMs = 200;
let server: TestPostgres;
let shards: [ShardConnection, ShardConnection, ShardConnection];
let running: RunningQueue | undefined;
let claims = 0;
/** Claims whose answer is lost, as when the connection breaks after the commit. */
let claimsToLose = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
beforeEach(async () => {
  claims = 0;
  claimsToLose = 0;
  shards = (await Promise.all([0, 1, 2].map((index) => openShard(index)))) as typeof shards;
});
afterEach(async () => {
  await running?.stop();
  for (const shard of shards) await shard.close();
});
afterAll(() => server.stop());

async function openShard(index: number): Promise<ShardConnection> {
  const shard = openPostgres({ name: `shard ${index}`, address: { url: await server.createDatabase() } });
  const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
  await migrate({ ...target, migrations: queueMigrations });
  return {
    ...shard,
    async query<R>(name: string | undefined, sql: string, values: unknown[]) {
      const isClaim = name === "rungs_claim";
      if (isClaim) claims++;
      const rows = await shard.query<R>(name, sql, values);
      if (!isClaim || rows.length === 0 || claimsToLose === 0) return rows;
      claimsToLose--;
      throw new Error("the connection broke");
    },
  };
}

async function start(
  handlers: readonly NamedHandler<undefined>[],
  everyMs = pollMs,
  mayClaim: (storeName: string) => boolean = () => true,
) {
  const queue = postgresQueue<undefined>({ handlers, clock: systemClock, random: systemRandom });
  const around = { shards, home: shards[0], context: undefined, log: silentLogger };
  running = await queue.start({ ...around, pollMs: everyMs, mayClaim });
  const dbs = shards.map((shard) =>
    shardedDatabase<Record<never, never>>({
      shards: [shard],
      placement: initialPlacement({ strategy: "hash", shards: 1 }),
      tables: tableRegistry([]),
      messages: queue.messages,
    }),
  );
  return (event: typeof noted, shard: number) =>
    dbs[shard]?.for("0190c7a0-0000-7000-8000-000000000001").transaction(async (tx) => tx.publish(event, { shard }));
}

it("an idle worker only looks as often as it was told", async () => {
  await start([{ ...handle(noted, async () => {}), name: "work" }]);
  await expect.poll(() => claims).toBeGreaterThan(3);
  const [before, since] = [claims, performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 5 * pollMs));
  const looks = ((performance.now() - since) / pollMs + 1) * shards.length;
  // A store that found the room taken by another's look may look once more.
  expect(claims - before).toBeLessThanOrEqual(2 * looks);
});

it("a job on one store starts as soon as the handler's only place, taken by another store's job, is free", async () => {
  const gate = Promise.withResolvers<void>();
  const started: number[] = [];
  const work = handle(
    noted,
    async ({ payload }) => {
      started.push(payload.shard);
      if (payload.shard === 0) await gate.promise;
    },
    { concurrency: 1 },
  );
  // Looking would not find it in time: it has to be told.
  const publish = await start([{ ...work, name: "work" }], 5_000);
  await publish(noted, 0);
  await expect.poll(() => started, { timeout: 10_000 }).toEqual([0]);
  await publish(noted, 2);
  const before = claims;
  await new Promise((resolve) => setTimeout(resolve, 2 * pollMs));
  expect(claims - before).toBe(0);
  expect(started).toEqual([0]);
  const since = performance.now();
  gate.resolve();
  await expect.poll(() => started, { interval: 5, timeout: 4_000 }).toEqual([0, 2]);
  expect(performance.now() - since).toBeLessThan(2_000);
});

it("a handler without room on one store keeps neither the stores looking nor other handlers' jobs waiting", async () => {
  const other = defineEvent("thing.other", z.object({ shard: z.int() }));
  const gate = Promise.withResolvers<void>();
  const started: number[] = [];
  const publish = await start([
    { ...handle(noted, () => gate.promise, { concurrency: 1 }), name: "slow" },
    { ...handle(other, async ({ payload }) => void started.push(payload.shard)), name: "quick" },
  ]);
  await publish(noted, 0);
  await expect.poll(() => running?.stats().find(({ handler }) => handler === "slow")?.running).toBe(1);
  const [before, since] = [claims, performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 5 * pollMs));
  expect(claims - before).toBeLessThanOrEqual(2 * ((performance.now() - since) / pollMs + 1) * shards.length);
  for (const shard of [2, 1, 0]) {
    await publish(other, shard);
    await expect.poll(() => started.at(-1), { interval: 5, timeout: 2_000 }).toBe(shard);
  }
  gate.resolve();
});

it("a store in constant use keeps no handler's room from the others", async () => {
  const names = Array.from({ length: 10 }, (_, index) => `thing.of${index}`);
  const events = names.map((name) => defineEvent(name, z.object({ shard: z.int() })));
  const started: number[] = [];
  const handlers = events.map((event, index) => ({
    ...handle(event, async ({ payload }) => {
      if (payload.shard !== 1) started.push(index);
    }),
    name: `work${index}`,
  }));
  const publish = await start(handlers);
  const stop = new AbortController();
  const busy = [0, 3, 6].map(async (index) => {
    while (!stop.signal.aborted) await publish(events[index] as typeof noted, 1);
  });
  const since = performance.now();
  for (let round = 0; round < 20; round++) {
    for (const shard of [0, 2]) await publish(events[9] as typeof noted, shard);
    await expect.poll(() => started.length, { interval: 2, timeout: 10_000 }).toBe(2 * (round + 1));
  }
  const tookMs = performance.now() - since;
  stop.abort();
  await Promise.all(busy);
  expect(tookMs).toBeLessThan(4_000);
});

it("a claim whose answer was lost leaves no job with a worker that does not know of it", async () => {
  const attempts: number[] = [];
  claimsToLose = 3;
  const publish = await start([{ ...handle(noted, async ({ attempt }) => void attempts.push(attempt)), name: "work" }]);
  await publish(noted, 0);
  await expect.poll(() => attempts, { timeout: 5_000 }).toEqual([1]);
  expect(claimsToLose).toBe(0);
});

it("a worker that stops right after it lost a claim's answer leaves the job to others", async () => {
  const done: number[] = [];
  claimsToLose = 1;
  const handlers = [{ ...handle(noted, async ({ payload }) => void done.push(payload.shard)), name: "work" }];
  const publish = await start(handlers);
  await publish(noted, 0);
  await expect.poll(() => claimsToLose).toBe(0);
  await running?.stop();
  if (done.length === 0) await start(handlers);
  await expect.poll(() => done, { timeout: 5_000 }).toEqual([0]);
});

it("a failure whose text the database cannot store holds up nothing", async () => {
  const done: number[] = [];
  const publish = await start([
    {
      ...handle(
        noted,
        async ({ payload }) => {
          if (payload.shard === 0) throw new Error("Unexpected token '\0'");
          done.push(payload.shard);
        },
        { attemptsMax: 2, backoff: { firstMs: 10 } },
      ),
      name: "work",
    },
  ]);
  await publish(noted, 0);
  const reasons = () =>
    shards[0]
      .query<{ error: string }>(undefined, "select error from rungs_dead_jobs", [])
      .then((rows) => rows.map(({ error }) => error));
  await expect.poll(reasons, { timeout: 5_000 }).toEqual(["Unexpected token '\uFFFD'"]);
  for (const shard of [1, 2]) await publish(noted, shard);
  await expect.poll(() => done.sort(), { timeout: 10_000 }).toEqual([1, 2]);
});

it("a store that is others' to claim from keeps its jobs, also those of a claim whose answer was lost", async () => {
  const started: number[] = [];
  let isOurs = false;
  const publish = await start(
    [{ ...handle(noted, async ({ payload }) => void started.push(payload.shard)), name: "note" }],
    pollMs,
    // And ours for the one claim that is lost.
    (store) => store !== "shard 1" || isOurs || claimsToLose > 0,
  );
  for (const shard of [1, 0]) await publish(noted, shard);
  await expect.poll(() => started, { timeout: 10_000 }).toEqual([0]);
  claimsToLose = 1;
  await expect.poll(() => claimsToLose, { timeout: 10_000 }).toBe(0);
  const isFree = async () => {
    const [job] = await shards[1].query<{ isFree: boolean }>(
      undefined,
      `select worker_id is null as "isFree" from rungs_jobs`,
      [],
    );
    return job?.isFree;
  };
  await expect.poll(isFree, { timeout: 10_000 }).toBe(true);
  isOurs = true;
  await expect.poll(() => started, { timeout: 10_000 }).toEqual([0, 1]);
});
