/** What an operator's tool leaves behind when it dies at the worst moment. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { afterAll, beforeAll, expect, it } from "vitest";
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
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import { postgresQueue } from "../../src/queue/drivers/postgres-queue.ts";
import { defineEvent, handle, jobAdmin, queueMigrations } from "../../src/queue/index.ts";

let server: TestPostgres;
let shard: ShardConnection;

beforeAll(async () => {
  server = await startTestPostgres();
  shard = openPostgres({ name: "shard 0", address: { url: server.connectionString } });
  await migrate({
    ...{ db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" },
    migrations: queueMigrations,
  });
});
afterAll(async () => {
  await shard?.close();
  await server?.stop();
});

it("a key goes on although the tool that dropped its first job died before it could let the next one go", async () => {
  const noted = defineEvent("thing.noted", z.object({ number: z.int() }));
  const seen: number[] = [];
  const queue = postgresQueue<undefined>({
    handlers: [
      {
        ...handle(
          noted,
          async ({ payload }) => {
            if (payload.number === 0) throw new Error("again");
            seen.push(payload.number);
          },
          { backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } },
        ),
        name: "work",
      },
    ],
    clock: systemClock,
    random: systemRandom,
  });
  const db = shardedDatabase<Record<never, never>>({
    shards: [shard],
    placement: initialPlacement({ strategy: "hash", shards: 1 }),
    tables: tableRegistry([]),
    messages: queue.messages,
  });
  await db.for(uuidV7(systemClock, systemRandom)).transaction(async (tx) => {
    for (const number of [0, 1]) tx.publish(noted, { number }, { key: "a" });
  });
  const start = { shards: [shard], home: shard, context: undefined, log: silentLogger };
  const worker = await queue.start({ ...start, pollMs: 20, heartbeatMs: 50, leaseMs: 500 });
  try {
    const admin = jobAdmin([shard]);
    const counts = async () => (await admin.counts())[0];
    await until(async () => (await counts())?.retrying === 1 && (await counts())?.waiting === 1);

    const dying = jobAdmin([
      {
        name: shard.name,
        query(name, sql, values) {
          if (sql.includes("rungs_unblock")) throw new Error("killed");
          return shard.query(name, sql, values);
        },
      },
    ]);
    await expect(dying.drop({ handler: "work", state: "retrying", limit: 1 })).rejects.toThrow("killed");
    expect(await counts()).toMatchObject({ waiting: 1, retrying: 0 });
    expect(seen).toEqual([]);

    // Two minutes later, by the server's clock.
    await shard.query(
      undefined,
      "update rungs_workers set seen_at = seen_at - interval '5 minutes' where seen_at > now()",
      [],
    );
    await until(() => seen.length === 1);
    const left = await shard.query(
      "",
      "select worker_id from rungs_workers where seen_at < now() - interval '1 minute'",
      [],
    );
    expect(left).toEqual([]);
  } finally {
    await worker.stop();
  }
});

async function until(condition: () => boolean | Promise<boolean>, limitMs = 10_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after ${limitMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
