/** The queue contract on the job table of real PostgreSQL servers, two shards. */
import {
  type EffectTables,
  effectTablesSql,
  type QueueUnderTest,
  queueContract,
  type WorkerOptions,
} from "@rungs/contract/queue-contract";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { sql } from "kysely";
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
import { attempt } from "../../src/queue/attempt.ts";
import {
  jobAdmin,
  type NamedHandler,
  type NamedSchedule,
  postgresJobStore,
  postgresQueue,
  queueMigrations,
  type RunningQueue,
} from "../../src/queue/index.ts";

let server: TestPostgres | undefined;

async function open(
  handlers: readonly NamedHandler<undefined>[],
  schedules: readonly NamedSchedule[],
): Promise<QueueUnderTest> {
  server ??= await startTestPostgres();
  const shards = (await Promise.all([0, 1].map((index) => openShard(index)))) as [ShardConnection, ShardConnection];
  const queue = postgresQueue<undefined>({ handlers, schedules, clock: systemClock, random: systemRandom });
  const db = shardedDatabase<EffectTables>({
    shards,
    placement: initialPlacement({ strategy: "hash", shards: 2 }),
    tables: tableRegistry([{ name: "contract", tables: { effects: { shardBy: "owner_id" } } }]),
    messages: queue.messages,
  });
  const workers: RunningQueue[] = [];
  return {
    db,
    admin: jobAdmin(shards),

    async startWorker(options: WorkerOptions = {}) {
      const worker = await queue.start({
        shards,
        home: shards[0],
        context: undefined,
        log: silentLogger,
        pollMs: 50,
        heartbeatMs: 100,
        ...options,
      });
      workers.push(worker);
      return worker;
    },

    async startFrozenWorker(name) {
      const handler = handlers.find((candidate) => candidate.name === name) as NamedHandler<undefined>;
      const workerId = uuidV7(systemClock, systemRandom);
      const claimed = await Promise.all(
        shards.map(async (shard) => {
          const store = await postgresJobStore(shard, () => systemClock.monotonic());
          await store.heartbeat(workerId, 60_000);
          return { store, jobs: await store.claim(workerId, [{ handler: name, slots: 100 }]) };
        }),
      );
      return {
        claimed: claimed.reduce((sum, { jobs }) => sum + jobs.length, 0),
        async thaw() {
          const results = claimed.flatMap(({ store, jobs }) =>
            jobs.map((job) =>
              attempt({
                handler,
                context: undefined,
                job,
                store,
                workerId,
                random: systemRandom,
                stopSignal: new AbortController().signal,
              }),
            ),
          );
          return (await Promise.all(results)).map(({ error }) => error);
        },
      };
    },

    async close() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await db.close();
    },
  };
}

async function openShard(index: number): Promise<ShardConnection> {
  const url = await (server as TestPostgres).createDatabase();
  const shard = openPostgres({ name: `shard ${index}`, address: { url } });
  await migrate({
    db: shard.kysely,
    name: shard.name,
    service: "rungs_queue",
    target: "shards",
    migrations: queueMigrations,
  });
  await sql.raw(effectTablesSql).execute(shard.kysely);
  return shard;
}

queueContract({ name: "the job table in PostgreSQL", open, close: async () => server?.stop() });
