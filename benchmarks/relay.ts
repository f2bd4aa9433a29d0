/**
 * What the way from a commit into the broker takes: its latency polled and woken, what an idle relay costs, how fast a backlog drains,
 * and what LISTEN and NOTIFY would cost publishers in place of polling.
 *
 * PostgreSQL with its default durability, RabbitMQ with one quorum member, both on this machine. Ways that are compared take turns.
 * Run: npm run bench:relay -- [--seconds 5] [--rounds 5] [--backlog 50000]
 */
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { startTestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { sql } from "kysely";
import { type Logger, systemClock, systemRandom, uuidV7 } from "rungs";
import { initialPlacement, migrate, type ShardConnection, shardedDatabase, tableRegistry } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { type Broker, defineEvent, outboxWriter, queueMigrations, type Relay, startRelay } from "rungs/queue";
import { rabbitmqBroker } from "rungs/queue/rabbitmq";
import { z } from "zod";
import { quantile } from "./rate.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    rounds: { type: "string", default: "5" },
    backlog: { type: "string", default: "50000" },
  },
});
const [seconds, rounds, backlog] = [Number(values.seconds), Number(values.rounds), Number(values.backlog)];
const event = defineEvent("bench.noted", z.object({ number: z.int(), text: z.string() }));
const subscriptions = [{ event: event.name, handler: "bench.work" }];
const text = "x".repeat(200);
const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

interface System {
  readonly shard: ShardConnection;
  readonly broker: Broker;
  /** Publishes `count` messages in one transaction. */
  publish(count: number): Promise<void>;
  /** Learns of commits. */
  committed: () => void;
}

async function open(server: TestPostgres, brokerUrl: string): Promise<System> {
  const shard = openPostgres({ name: "shard 0", address: { url: await server.createDatabase() } });
  const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
  await migrate({ ...target, migrations: queueMigrations });
  const writer = outboxWriter({ handlersOf: () => ["bench.work"], newId: () => uuidV7(systemClock, systemRandom) });
  const db = shardedDatabase<Record<never, never>>({
    ...{ shards: [shard], placement: initialPlacement({ strategy: "hash", shards: 1 }), tables: tableRegistry([]) },
    messages: { ...writer, committed: () => system.committed() },
  });
  const system: System = {
    shard,
    broker: rabbitmqBroker({ url: brokerUrl }),
    committed: () => {},
    publish: (count) =>
      db.for("0190c7a0-0000-7000-8000-000000000001").transaction(async (tx) => {
        for (let number = 0; number < count; number++) tx.publish(event, { number, text }, { key: `k${number % 50}` });
      }),
  };
  return system;
}

/** Starts the relay; `confirmed` is called with each batch that the broker has confirmed. */
async function relayOf(system: System, confirmed: (ids: readonly string[]) => void = () => {}): Promise<Relay> {
  const { shard, broker } = system;
  const telling: Broker = {
    name: broker.name,
    declare: (all) => broker.declare(all),
    consume: (options) => broker.consume(options),
    backlog: (all) => broker.backlog(all),
    check: () => broker.check(),
    close: () => broker.close(),
    async publish(messages) {
      await broker.publish(messages);
      confirmed(messages.map(({ id }) => id));
    },
  };
  const relay = startRelay({
    ...{ shard: { number: 0, database: shard }, broker: telling, subscriptions },
    ...{ clock: systemClock, random: systemRandom, log: silent },
  });
  while (!relay.stats().isActive) await sleep(10);
  return relay;
}

/** From the commit to the broker's confirm, one message at a time, at odd moments. */
async function latency(system: System): Promise<void> {
  let told: (() => void) | undefined;
  const relay = await relayOf(system, () => told?.());
  const wayOf = { polled: () => {}, woken: () => relay.wake() };
  const took = { polled: [] as number[], woken: [] as number[] };
  const end = performance.now() + seconds * 2_000;
  for (let turn = 0; performance.now() < end; turn++) {
    const way = turn % 2 === 0 ? "polled" : "woken";
    system.committed = wayOf[way];
    const confirmed = new Promise<void>((resolve) => {
      told = resolve;
    });
    await system.publish(1);
    const since = performance.now();
    await confirmed;
    if (turn > 20) took[way].push(performance.now() - since);
    await sleep(20 + systemRandom.next() * 30);
  }
  for (const [way, all] of Object.entries(took)) {
    const of = (share: number) => quantile(all, share).toFixed(1);
    print(`commit to confirm, ${way.padEnd(7)} p50 ${of(0.5)} ms   p99 ${of(0.99)} ms   of ${all.length}`);
  }
  system.committed = () => {};
  await relay.stop();
}

/** CPU time of this process and of the server's, with an idle relay and without. */
async function idle(system: System): Promise<void> {
  const spent = async () => {
    const since = process.cpuUsage();
    const pids = await system.shard.query<{ pid: number }>(undefined, "select pid from pg_stat_activity", []);
    const before = await cpuMs(pids.map(({ pid }) => pid));
    await sleep(seconds * 1_000);
    const own = process.cpuUsage(since);
    const server = (await cpuMs(pids.map(({ pid }) => pid))) - before;
    return { own: (own.user + own.system) / 1_000 / seconds, server: server / seconds };
  };
  const without = await spent();
  const relay = await relayOf(system);
  const count = async () => {
    const asked = "select xact_commit as calls from pg_stat_database where datname = current_database()";
    const [row] = await system.shard.query<{ calls: number }>(undefined, asked, []);
    return row?.calls ?? 0;
  };
  const before = await count();
  const withOne = await spent();
  const calls = (await count()) - before;
  await relay.stop();
  const more = (which: "own" | "server") => (withOne[which] - without[which]).toFixed(1);
  print(
    `an idle relay: ${(calls / seconds).toFixed(0)} statements/s, CPU ${more("own")} ms/s in the process, ${more("server")} ms/s in the server`,
  );
}

async function cpuMs(pids: readonly number[]): Promise<number> {
  const ticks = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
    }),
  );
  // Linux counts in hundredths of a second.
  return ticks.reduce((sum, each) => sum + each, 0) * 10;
}

/** Messages a second, when many wait. */
async function drain(system: System): Promise<void> {
  for (let stored = 0; stored < backlog; stored += 1_000) await system.publish(1_000);
  const since = performance.now();
  const relay = await relayOf(system);
  while (relay.stats().published < backlog) await sleep(10);
  const tookMs = performance.now() - since;
  await relay.stop();
  print(`a backlog of ${backlog}: ${Math.round((backlog / tookMs) * 1_000)} messages/s into the broker`);
}

/** Transactions a second that write one row, without and with a notification, from 16 connections. */
async function notify(system: System): Promise<void> {
  const { kysely } = system.shard;
  await sql`create table notes (id bigint generated always as identity primary key, text text)`.execute(kysely);
  const writing = {
    plain: () => kysely.transaction().execute((tx) => sql`insert into notes (text) values (${text})`.execute(tx)),
    notifying: () =>
      kysely.transaction().execute(async (tx) => {
        await sql`insert into notes (text) values (${text})`.execute(tx);
        await sql`select pg_notify('rungs_outbox', '')`.execute(tx);
      }),
    "asking twice": () =>
      kysely.transaction().execute(async (tx) => {
        await sql`insert into notes (text) values (${text})`.execute(tx);
        await sql`select 1`.execute(tx);
      }),
  };
  const rates: Record<keyof typeof writing, number[]> = { plain: [], notifying: [], "asking twice": [] };
  for (let round = 0; round <= rounds; round++) {
    for (const way of Object.keys(writing) as (keyof typeof writing)[]) {
      const end = performance.now() + 1_000;
      let done = 0;
      const client = async () => {
        for (; performance.now() < end; done++) await writing[way]();
      };
      await Promise.all(Array.from({ length: 16 }, client));
      if (round > 0) rates[way].push(done);
    }
  }
  for (const [way, all] of Object.entries(rates)) print(`${way.padEnd(12)} ${quantile(all, 0.5)} transactions/s`);
  const ratios = rates.notifying.map((rate, round) => rate / (rates["asking twice"][round] ?? Number.NaN));
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(2));
  print(`a notification leaves publishers ${middle} (${low} to ${high}) of the rate of the same without it`);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

const [server, rabbitmq] = await Promise.all([
  startTestPostgres({ settings: { fsync: "on", full_page_writes: "on", shared_buffers: "128MB" } }),
  startTestRabbitmq(),
]);
try {
  print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}, PostgreSQL ${server.version}`);
  const system = await open(server, rabbitmq.url);
  await system.broker.declare(subscriptions);
  await latency(system);
  await idle(system);
  await drain(system);
  await notify(system);
  await system.broker.close();
  await system.shard.close();
} finally {
  await Promise.all([server.stop(), rabbitmq.stop()]);
}
