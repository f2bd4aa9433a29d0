/** A queue on two real shards whose one handler gives up until it is mended; its workers run in the test's process. */
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { sql } from "kysely";
import { systemClock, systemRandom, uuidV7 } from "rungs";
import {
  initialPlacement,
  migrate,
  openPlacement,
  placementMigrations,
  type ShardConnection,
  shardedDatabase,
  tableRegistry,
} from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { defineEvent, handle, type PublishOptions, postgresQueue, queueMigrations } from "rungs/queue";
import type { Broker } from "rungs/queue/broker";
import { z } from "zod";

const placed = defineEvent(
  "order.placed",
  z.object({ number: z.int(), note: z.string(), card: z.string().meta({ sensitive: true }) }),
);

export interface Orders {
  /** What the command line needs to find the databases. */
  readonly environment: Readonly<Record<string, string>>;
  /** Numbers of the orders that were shipped. */
  readonly shipped: readonly number[];
  publish(order: { number: number; note?: string }, options?: PublishOptions): Promise<void>;
  /** From now on orders are shipped. */
  mend(): void;
  startWorker(): Promise<void>;
  /** Whether the worker that was started last knows that its handler is paused. */
  isPaused(): boolean;
  /** SQL on the first shard. */
  sql<R>(text: string): Promise<R[]>;
  /** Runs `work` while nobody else can read the jobs of the first shard. */
  locked(work: () => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/** A broker for the orders, and its address for the command line. */
export interface OrderBroker {
  readonly url: string;
  connect(): Broker;
}

/** Starts the server and makes the queue; its messages go through the broker, if there is one. */
export async function openOrders(through?: OrderBroker): Promise<Orders> {
  const server = await startTestPostgres();
  const urls = [await server.createDatabase(), await server.createDatabase()];
  const shards = urls.map((url, index) => openPostgres({ name: `shard ${index}`, address: { url } })) as [
    ShardConnection,
    ShardConnection,
  ];
  for (const { kysely: db, name } of shards) {
    await migrate({ db, name, service: "rungs", target: "home", migrations: placementMigrations });
    await migrate({ db, name, service: "rungs", target: "shards", migrations: placementMigrations });
    await migrate({ db, name, service: "rungs_queue", target: "shards", migrations: queueMigrations });
  }
  await openPlacement(shards[0].kysely, shards, { strategy: "hash" });
  const shipped: number[] = [];
  let isMended = false;
  const ship = handle(placed, async ({ payload, giveUp }) => {
    if (!isMended) giveUp("out of stock\u001B[2J");
    shipped.push(payload.number);
  });
  const broker = through?.connect();
  const queue = postgresQueue<undefined>({
    ...(broker === undefined ? {} : { broker }),
    handlers: [{ ...ship, name: "orders.ship" }],
    clock: systemClock,
    random: systemRandom,
  });
  const db = shardedDatabase<Record<never, never>>({
    shards,
    placement: initialPlacement({ strategy: "hash", shards: 2 }),
    tables: tableRegistry([]),
    messages: queue.messages,
  });
  const stops: (() => Promise<void>)[] = [];
  let paused: () => readonly string[] = () => [];
  return {
    environment: { DATABASE_URL: urls.join(","), ...(through === undefined ? {} : { QUEUE_URL: through.url }) },
    shipped,
    publish: ({ number, note = "-" }, options) =>
      db.for(uuidV7(systemClock, systemRandom)).transaction(async (tx) => {
        tx.publish(placed, { number, note, card: "4242-secret" }, options);
      }),
    mend() {
      isMended = true;
    },
    async startWorker() {
      const log = { debug() {}, info() {}, warn() {}, error() {} };
      const worker = await queue.start({
        ...{ shards, home: shards[0], context: undefined, log },
        ...{ pollMs: 50, heartbeatMs: 100 },
      });
      stops.push(() => worker.stop());
      paused = () => worker.paused();
    },
    isPaused: () => paused().length > 0,
    locked: (work) =>
      shards[0].kysely.transaction().execute(async (tx) => {
        await sql`lock table rungs_jobs`.execute(tx);
        await work();
      }),
    sql: (text) => shards[0].query(undefined, text, []),
    async close() {
      await Promise.all(stops.map((stop) => stop()));
      await broker?.close();
      await db.close();
      await server.stop();
    },
  };
}

/** Waits, with real time because another process is in play; fails after 10 s. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after 10 s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
