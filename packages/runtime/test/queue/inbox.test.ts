/** How long it is remembered that a step was made: as long as anybody can ask. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { migrate, type ShardConnection } from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { forgetOldSteps } from "../../src/queue/drivers/postgres-queue.ts";
import { postgresJobStore, queueMigrations } from "../../src/queue/index.ts";

const hourMs = 3_600_000;
const message = "0190c7a0-0000-7000-8000-000000000001";
let server: TestPostgres;
let shards: ShardConnection[];

beforeAll(async () => {
  server = await startTestPostgres();
  shards = await Promise.all(
    [0, 1].map(async (index) => {
      const shard = openPostgres({ name: `shard ${index}`, address: { url: await server.createDatabase() } });
      const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
      await migrate({ ...target, migrations: queueMigrations });
      return shard;
    }),
  );
});
afterAll(async () => {
  for (const shard of shards) await shard.close();
  await server.stop();
});

it("a step on another shard is forgotten a day later, but never while its job can come back", async () => {
  const [first, second] = shards as [ShardConnection, ShardConnection];
  await first.query(
    undefined,
    `insert into rungs_dead_jobs (job_id, handler, event, payload, priority, published_at, attempts, steps)
     values ($1, 'work', 'thing.noted', '{}', 1, now() - interval '50 hours', 20, '{}')`,
    [message],
  );
  await second.query(
    undefined,
    "insert into rungs_inbox (job_id, handler, step, noted_at) values ($1, 'work', '', now() - interval '49 hours')",
    [message],
  );
  const stores = await Promise.all(shards.map((shard) => postgresJobStore(shard, () => systemClock.monotonic())));
  const remembered = async () => (await second.query(undefined, "select 1 from rungs_inbox", [])).length;
  const dayAgo = () => new Date(systemClock.now() - 24 * hourMs);
  await forgetOldSteps(stores, dayAgo());
  expect(await remembered()).toBe(1);
  await first.query(undefined, "delete from rungs_dead_jobs", []);
  await forgetOldSteps(stores, new Date(systemClock.now() - 72 * hourMs));
  expect(await remembered()).toBe(1);
  await forgetOldSteps(stores, dayAgo());
  expect(await remembered()).toBe(0);
});
