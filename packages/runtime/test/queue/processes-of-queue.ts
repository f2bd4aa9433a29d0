/** One shard of a real PostgreSQL, and as many processes on it as a test wants, each with handlers of its own. */
import { startTestPostgres } from "@rungs/contract/test-postgres";
import type { Transaction } from "kysely";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { initialPlacement, migrate, shardedDatabase, tableRegistry } from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import type { EventType, PublishOptions } from "../../src/kernel/event.ts";
import { type Logger, silentLogger } from "../../src/kernel/log.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import {
  type Broker,
  type JobAdmin,
  jobAdmin,
  type NamedHandler,
  postgresQueue,
  queueMigrations,
  type RunningQueue,
} from "../../src/queue/index.ts";

/** A process: what it publishes waits until {@link TestProcess.start} of one that handles it. */
export interface TestProcess {
  publish<P>(event: EventType<P>, payload: P, options?: PublishOptions): Promise<void>;
  start(): Promise<RunningQueue>;
}

export interface QueueDatabase {
  readonly admin: JobAdmin;
  process(handlers: readonly NamedHandler<undefined>[], log?: Logger): Promise<TestProcess>;
  sql<R>(text: string, values?: unknown[]): Promise<R[]>;
  /** For the effects of handlers. */
  transaction<R>(work: (tx: Transaction<unknown>) => Promise<R>): Promise<R>;
  close(): Promise<void>;
}

/** `brokerOf`: makes one more client of the same broker; default none. */
export async function openQueueDatabase(brokerOf?: () => Broker | Promise<Broker>): Promise<QueueDatabase> {
  const server = await startTestPostgres();
  const shard = openPostgres({ name: "shard 0", address: { url: server.connectionString } });
  const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
  await migrate({ ...target, migrations: queueMigrations });
  const brokers: Broker[] = [];
  const connect = async () => {
    const broker = await brokerOf?.();
    if (broker !== undefined) brokers.push(broker);
    return broker;
  };
  const ownBroker = await connect();
  const running: RunningQueue[] = [];
  return {
    admin: jobAdmin([shard], ownBroker === undefined ? {} : { broker: ownBroker }),

    async process(handlers, log = silentLogger) {
      const broker = await connect();
      const queue = postgresQueue<undefined>({
        ...{ handlers, clock: systemClock, random: systemRandom },
        ...(broker === undefined ? {} : { broker }),
      });
      const db = shardedDatabase<Record<never, never>>({
        shards: [shard],
        placement: initialPlacement({ strategy: "hash", shards: 1 }),
        tables: tableRegistry([]),
        messages: queue.messages,
      });
      return {
        publish: (event, payload, options) =>
          db.for(uuidV7(systemClock, systemRandom)).transaction(async (tx) => tx.publish(event, payload, options)),
        async start() {
          const start = { shards: [shard], home: shard, context: undefined, log, pollMs: 50, heartbeatMs: 100 };
          const started = await queue.start(start);
          running.push(started);
          return started;
        },
      };
    },

    sql: (text, values = []) => shard.query(undefined, text, values),
    transaction: (work) => shard.kysely.transaction().execute(work),

    async close() {
      await Promise.all(running.map((each) => each.stop()));
      await Promise.all(brokers.map((broker) => broker.close()));
      await shard.close();
      await server.stop();
    },
  };
}
