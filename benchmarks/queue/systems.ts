/** Ways to run jobs, behind one small interface: Rungs' job table, alone and before a broker, graphile-worker, pg-boss and BullMQ. */

import { Queue, Worker } from "bullmq";
import { Logger as GraphileLogger, makeWorkerUtils, run as runGraphile } from "graphile-worker";
import { Redis } from "ioredis";
import pg from "pg";
import { PgBoss } from "pg-boss";
import { type Logger, systemClock, systemRandom } from "rungs";
import { initialPlacement, migrate, type ShardConnection, shardedDatabase, tableRegistry } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { type Broker, defineEvent, handle, postgresQueue, queueMigrations, type RunningQueue } from "rungs/queue";
import { z } from "zod";

/** What a job carries: its number, and when adding it began, on this process's monotonic clock. */
export interface Payload {
  readonly number: number;
  readonly addedAtMs: number;
}

/** How each system is set up to do the same. */
export interface JobSystem {
  readonly name: string;
  /** The PostgreSQL it runs on, if it does. */
  readonly database?: string;
  /** One job, durable as the system's default says once the promise resolves. */
  add(payload: Payload): Promise<void>;
  /** Many jobs, by the system's bulk call; `wait`: for a handler that no worker runs. */
  addMany(payloads: readonly Payload[], kind: "run" | "wait"): Promise<void>;
  /** Runs the handler of "run" jobs in this process, {@link concurrency} at a time. */
  startWorker(handler: (payload: Payload) => Promise<void>): Promise<void>;
  stopWorker(): Promise<void>;
  close(): Promise<void>;
}

const pollMs = 500;
const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
/** Jobs handled at the same time, in every system. */
export const concurrency = 20;

/** Rungs on a database of its own, with the broker that carries its messages if one does. */
export async function rungsJobs(url: string, broker?: Broker): Promise<JobSystem> {
  const shard: ShardConnection = openPostgres({ name: "shard 0", address: { url } });
  await migrate({
    db: shard.kysely,
    name: shard.name,
    service: "rungs_queue",
    target: "shards",
    migrations: queueMigrations,
  });
  const schema = z.object({ number: z.int(), addedAtMs: z.number() });
  const [run, wait] = [defineEvent("bench.run", schema), defineEvent("bench.wait", schema)];
  let handler: (payload: Payload) => Promise<void> = async () => {};
  const queue = postgresQueue<undefined>({
    ...(broker === undefined ? {} : { broker }),
    handlers: [
      { ...handle(run, ({ payload }) => handler(payload), { concurrency }), name: "bench.run" },
      { ...handle(wait, async () => {}), name: "bench.wait" },
    ],
    clock: systemClock,
    random: systemRandom,
  });
  const db = shardedDatabase<Record<string, never>>({
    shards: [shard],
    placement: initialPlacement({ strategy: "hash", shards: 1 }),
    tables: tableRegistry([]),
    messages: queue.messages,
  });
  const home = db.for("0190c7a0-0000-7000-8000-000000000001");
  let running: RunningQueue | undefined;
  return {
    name: broker === undefined ? "rungs" : `rungs, ${broker.name}`,
    database: url,
    add: (payload) => home.transaction(async (tx) => tx.publish(run, payload)),
    addMany: (payloads, kind) =>
      home.transaction(async (tx) => {
        for (const payload of payloads) tx.publish(kind === "run" ? run : wait, payload);
      }),
    async startWorker(work) {
      handler = work;
      const shared = { shards: [shard], home: shard, context: undefined, log: silentLogger, pollMs };
      running = await queue.start({ ...shared, only: ["bench.run"] });
    },
    async stopWorker() {
      await running?.stop();
    },
    async close() {
      await broker?.close();
      await db.close();
    },
  };
}

/** graphile-worker with the batching that its documentation gives for speed. */
export async function graphileJobs(url: string): Promise<JobSystem> {
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  pool.on("error", () => {});
  const logger = new GraphileLogger(() => () => {});
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  await utils.migrate();
  let runner: Awaited<ReturnType<typeof runGraphile>> | undefined;
  return {
    name: "graphile-worker",
    database: url,
    async add(payload) {
      await utils.addJob("run", payload);
    },
    async addMany(payloads, kind) {
      await utils.addJobs(payloads.map((payload) => ({ identifier: kind, payload })));
    },
    async startWorker(work) {
      runner = await runGraphile({
        pgPool: pool,
        logger,
        noHandleSignals: true,
        taskList: { run: (payload) => work(payload as Payload) },
        preset: {
          worker: {
            concurrentJobs: concurrency,
            pollInterval: pollMs,
            localQueue: { size: concurrency * 2 },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0,
          },
        },
      } as Parameters<typeof runGraphile>[0]);
    },
    async stopWorker() {
      await runner?.stop();
    },
    async close() {
      await utils.release();
      await pool.end();
    },
  };
}

/** pg-boss, woken by LISTEN/NOTIFY and fetching in batches. */
export async function pgBossJobs(url: string): Promise<JobSystem> {
  const boss = new PgBoss({ connectionString: url, max: 20, useListenNotify: true });
  boss.on("error", (error) => process.stderr.write(`pg-boss: ${error.message}\n`));
  await boss.start();
  await boss.createQueue("run", { notify: true });
  await boss.createQueue("wait");
  return {
    name: "pg-boss",
    database: url,
    async add(payload) {
      await boss.send("run", payload);
    },
    async addMany(payloads, kind) {
      await boss.insert(
        kind,
        payloads.map((data) => ({ data })),
      );
    },
    async startWorker(work) {
      await boss.work<Payload>(
        "run",
        { batchSize: concurrency, burstWhenBatchFull: true, pollingIntervalSeconds: pollMs / 1_000 },
        async (jobs) => void (await Promise.all(jobs.map(({ data }) => work(data)))),
      );
    },
    async stopWorker() {
      await boss.offWork("run");
    },
    async close() {
      await boss.stop({ graceful: false });
    },
  };
}

/** BullMQ on a Redis that appends to its log and syncs each second. */
export async function bullJobs(port: number): Promise<JobSystem> {
  const connection = () => new Redis({ port, host: "127.0.0.1", maxRetriesPerRequest: null });
  const options = { removeOnComplete: true, removeOnFail: true };
  const connections = [connection(), connection(), connection()] as const;
  const queues = {
    run: new Queue<Payload>("run", { connection: connections[0], defaultJobOptions: options }),
    wait: new Queue<Payload>("wait", { connection: connections[1], defaultJobOptions: options }),
  };
  let worker: Worker<Payload> | undefined;
  return {
    name: "bullmq",
    async add(payload) {
      await queues.run.add("run", payload);
    },
    async addMany(payloads, kind) {
      await queues[kind].addBulk(payloads.map((data) => ({ name: kind, data })));
    },
    async startWorker(work) {
      worker = new Worker<Payload>("run", ({ data }) => work(data), { connection: connections[2], concurrency });
      await worker.waitUntilReady();
    },
    async stopWorker() {
      await worker?.close();
    },
    async close() {
      await Promise.all([queues.run.close(), queues.wait.close()]);
      for (const each of connections) each.disconnect();
    },
  };
}
