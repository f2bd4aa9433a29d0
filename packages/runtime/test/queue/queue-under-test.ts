/** Queues on two shards of a real PostgreSQL, with or without a broker between them and their handlers. */
import {
  type EffectTables,
  effectTablesSql,
  type QueueUnderTest,
  until,
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
import { brokerStore } from "../../src/queue/broker-store.ts";
import { postgresParking } from "../../src/queue/drivers/postgres-parking.ts";
import {
  type Broker,
  type ClaimedJob,
  type JobStore,
  jobAdmin,
  type NamedHandler,
  type NamedSchedule,
  postgresJobStore,
  postgresQueue,
  queueMigrations,
  type RunningQueue,
  startRelay,
} from "../../src/queue/index.ts";

/** Opens queues on one server of PostgreSQL, each on databases of its own. */
export interface TestQueues {
  open(handlers: readonly NamedHandler<undefined>[], schedules: readonly NamedSchedule[]): Promise<QueueUnderTest>;
  close(): Promise<void>;
}

/** What a frozen worker had got hold of, and from where. */
interface Frozen {
  readonly store: JobStore;
  readonly jobs: readonly ClaimedJob[];
  /** As if its machine were gone. */
  cutOff(): Promise<void>;
}

/** `brokerOf`: makes one more client of the same broker; default none, the job tables carry all. */
export function testQueues(brokerOf?: (queue: number) => Broker | Promise<Broker>): TestQueues {
  let server: TestPostgres | undefined;
  let opened = 0;
  return {
    async open(handlers, schedules) {
      server ??= await startTestPostgres();
      const shards = (await Promise.all([0, 1].map((index) => openShard(server as TestPostgres, index)))) as [
        ShardConnection,
        ShardConnection,
      ];
      const number = opened++;
      const brokers: Broker[] = [];
      const connect = async () => {
        if (brokerOf === undefined) return undefined;
        const broker = await brokerOf(number);
        brokers.push(broker);
        return broker;
      };
      const ownBroker = await connect();
      const base = { handlers, schedules, clock: systemClock, random: systemRandom };
      const queueOn = (broker: Broker | undefined) =>
        postgresQueue<undefined>({ ...base, ...(broker === undefined ? {} : { broker }) });
      // Each worker is as a process of its own, with its own connections to the broker.
      const workers: { readonly running: RunningQueue; committed(shard: string): void }[] = [];
      const publisher = queueOn(ownBroker);
      const db = shardedDatabase<EffectTables>({
        shards,
        placement: initialPlacement({ strategy: "hash", shards: 2 }),
        tables: tableRegistry([{ name: "contract", tables: { effects: { shardBy: "owner_id" } } }]),
        messages: {
          ...publisher.messages,
          committed: (shard) => {
            for (const worker of workers) worker.committed(shard);
          },
        },
      });
      return {
        db,
        admin: jobAdmin(shards, ownBroker === undefined ? {} : { broker: ownBroker }),

        async startWorker(options: WorkerOptions = {}) {
          const queue = queueOn(await connect());
          const running = await queue.start({
            ...{ shards, home: shards[0], context: undefined, log: silentLogger, pollMs: 50, heartbeatMs: 100 },
            ...options,
          });
          workers.push({ running, committed: queue.messages.committed });
          return running;
        },

        isIdle: () => workers.every(({ running }) => running.stats().every(({ claimed }) => claimed === 0)),

        async startFrozenWorker(name, wanted) {
          const handler = handlers.find((candidate) => candidate.name === name) as NamedHandler<undefined>;
          const workerId = uuidV7(systemClock, systemRandom);
          const broker = await connect();
          const held =
            broker === undefined
              ? await claimFromTables(shards, name, workerId)
              : [await claimFromBroker({ broker, shards, handler, wanted })];
          return {
            claimed: held.reduce((sum, { jobs }) => sum + jobs.length, 0),
            async thaw() {
              const stopSignal = new AbortController().signal;
              const results = held.flatMap(({ store, jobs }) =>
                jobs.map((job) =>
                  attempt({ handler, context: undefined, job, store, workerId, random: systemRandom, stopSignal }),
                ),
              );
              return (await Promise.all(results)).map(({ error }) => error);
            },
            cutOff: async () => void (await Promise.all(held.map((each) => each.cutOff()))),
          };
        },

        async close() {
          await Promise.all(workers.map(({ running }) => running.stop()));
          await Promise.all(brokers.map((broker) => broker.close()));
          await db.close();
        },
      };
    },
    close: async () => server?.stop(),
  };
}

async function claimFromTables(
  shards: readonly ShardConnection[],
  handler: string,
  workerId: string,
): Promise<Frozen[]> {
  return Promise.all(
    shards.map(async (shard) => {
      const store = await postgresJobStore(shard, () => systemClock.monotonic());
      await store.heartbeat(workerId, 60_000);
      return { store, jobs: await store.claim(workerId, [{ handler, slots: 100 }]), cutOff: async () => {} };
    }),
  );
}

/** Has what was published relayed, and takes it as a consumer that then says nothing more. */
async function claimFromBroker(options: {
  readonly broker: Broker;
  readonly shards: readonly ShardConnection[];
  readonly handler: NamedHandler<undefined>;
  readonly wanted: number;
}): Promise<Frozen> {
  const { broker, shards, handler, wanted } = options;
  const subscription = { handler: handler.name, event: handler.event.name };
  const store = brokerStore({
    ...{ name: "frozen", parking: postgresParking(shards), clock: systemClock },
    onReady: () => {},
    onParked: () => {},
  });
  await broker.declare([subscription]);
  const consumer = await broker.consume({
    subscriptions: [{ ...subscription, room: 100 }],
    deliver: (delivery) => store.deliver(delivery),
    graceMs: 100,
  });
  const relays = shards.map((database, number) =>
    startRelay({
      ...{ shard: { number, database }, broker, subscriptions: [subscription] },
      ...{ clock: systemClock, random: systemRandom, log: silentLogger },
    }),
  );
  const jobs: ClaimedJob[] = [];
  const claim = async () => {
    jobs.push(...(await store.claim("frozen", [{ handler: handler.name, slots: 100 }])));
    return jobs.length === wanted;
  };
  await until(claim);
  await Promise.all(relays.map((relay) => relay.stop()));
  return { store, jobs, cutOff: () => consumer.close() };
}

async function openShard(server: TestPostgres, index: number): Promise<ShardConnection> {
  const url = await server.createDatabase();
  const name = `shard ${index}`;
  const shard = openPostgres({ name, address: { url } });
  await migrate({
    db: shard.kysely,
    name,
    service: "rungs_queue",
    target: "shards",
    migrations: queueMigrations,
  });
  await sql.raw(effectTablesSql).execute(shard.kysely);
  return shard;
}
