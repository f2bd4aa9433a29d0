/**
 * Workers killed and frozen, and the broker killed, frozen and cut off, at random, while money is moved: each effect exactly once, in
 * the order of its key, to the cent. `CRASH_JOBS=20000 CRASH_ROUNDS=60 CRASH_SEED=1` runs it longer, and repeats a run.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startTestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { startTestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { openUnreliableWay } from "@rungs/contract/unreliable-proxy";
import { until } from "@rungs/contract/until";
import { sql } from "kysely";
import { describe, expect, it } from "vitest";
import { migrate } from "../../src/database/index.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import { jobAdmin, queueMigrations } from "../../src/queue/index.ts";
import {
  type BankPlaces,
  bankSql,
  isPoison,
  openSide,
  ownerAt,
  type Side,
  shopSql,
  transferOrdered,
} from "./crash-bank.ts";

const program = fileURLToPath(new URL("crash-bank.ts", import.meta.url));
const owners = 100;
/** Orders given before the first fault. */
const beforeTrouble = 40;
const timeoutMs = Number(process.env["CRASH_SECONDS"] ?? 240) * 1_000;

/** What carries the messages, and what can be done to it. */
interface Carrier {
  readonly brokerUrl?: string;
  /** Each does its worst and resolves when it is over. */
  readonly faults: Readonly<Record<string, () => Promise<void>>>;
  stop(): Promise<void>;
}

interface Course {
  readonly name: string;
  readonly transfers: number;
  readonly rounds: number;
  /** Whether orders come from another database than the bank's, and receipts go back to it. */
  readonly hasShop?: boolean;
  readonly start: () => Promise<Carrier>;
}

const courses: Course[] = [
  {
    name: "the job table",
    transfers: 6_000,
    rounds: 30,
    start: async () => ({ faults: {}, stop: async () => {} }),
  },
  { name: "RabbitMQ", transfers: 2_000, rounds: 8, start: startRabbitmq },
  { name: "RabbitMQ between two databases", transfers: 2_000, rounds: 10, hasShop: true, start: startRabbitmq },
  {
    name: "Kafka",
    transfers: 4_000,
    rounds: 6,
    async start() {
      const server = await startTestKafka();
      return {
        brokerUrl: server.url,
        faults: {
          "the broker is killed": () => server.restart(),
          "the broker is frozen": async () => {
            server.freeze(true);
            await sleep(1_500);
            server.freeze(false);
          },
        },
        stop: () => server.stop(),
      };
    },
  },
];

async function startRabbitmq(): Promise<Carrier> {
  const server = await startTestRabbitmq();
  const way = await openUnreliableWay({ port: server.port });
  return {
    brokerUrl: server.url.replace(`:${server.port}`, `:${way.port}`),
    faults: {
      "the broker is killed": () => server.restart(),
      "the broker is frozen": async () => {
        server.freeze(true);
        await sleep(1_500);
        server.freeze(false);
      },
      "the broker is cut off": async () => {
        await way.cut();
        await sleep(500);
        await way.open();
      },
    },
    async stop() {
      await way.cut();
      await server.stop();
    },
  };
}

const numberOf = (variable: string, fallback: number) => Number(process.env[variable] ?? fallback);
const withoutKafka = whyNoKafka();

describe.each(courses)("$name, through trouble", ({ name, start, ...course }) => {
  const transfers = numberOf("CRASH_JOBS", course.transfers);
  const rounds = numberOf("CRASH_ROUNDS", course.rounds);
  const missing = name === "Kafka" ? withoutKafka : undefined;

  it.skipIf(missing !== undefined)(
    `moves each of ${transfers} amounts once and in order${missing === undefined ? "" : `: ${missing}`}`,
    async () => {
      const seed = numberOf("CRASH_SEED", Date.now() % 2 ** 31);
      console.info(`${name}: CRASH_SEED=${seed}`);
      const random = seededRandom(seed);
      const pick = (below: number) => Math.floor(random.next() * below);
      const [server, carrier] = await Promise.all([startTestPostgres(), start()]);
      const twoDatabases = async () => [await server.createDatabase(), await server.createDatabase()];
      const shopUrls = course.hasShop === true ? await twoDatabases() : undefined;
      const places: BankPlaces = { urls: await twoDatabases(), shopUrls, brokerUrl: carrier.brokerUrl };
      const bank = openSide(places, "bank");
      const shop = shopUrls === undefined ? undefined : openSide(places, "shop");
      const workers = startWorkers(places);
      try {
        await prepare(bank, bankSql);
        if (shop !== undefined) await prepare(shop, shopSql);
        await Promise.all([
          workers.add("bank"),
          workers.add("bank"),
          workers.add(shop === undefined ? "bank" : "shop"),
        ]);
        const numbers = Array.from({ length: owners }, () => 0);
        const orders = shop ?? bank;
        // RabbitMQ that is killed while it makes a queue may be left with one that takes nothing: docs/operating/rabbitmq.md.
        await publishAll({ orders, numbers, transfers: beforeTrouble, pick });
        await until("the first messages are on their way", async () => (await outboxRows(orders)) === 0, timeoutMs / 4);
        const publishing = publishAll({ orders, numbers, transfers: transfers - beforeTrouble, pick });
        const faults: Carrier["faults"] = {
          ...carrier.faults,
          "a worker is killed": () => workers.replace(pick),
          ...(carrier.brokerUrl === undefined ? {} : { "a worker is frozen": () => workers.freezeOne(pick, 2_500) }),
        };
        for (let round = 0; round < rounds; round++) {
          await sleep(pick(200));
          const [what, act] = Object.entries(faults)[pick(Object.keys(faults).length)] as [string, () => Promise<void>];
          if (carrier.brokerUrl !== undefined) console.info(`${round}: ${what}`);
          await act();
        }
        await publishing;
        await expectBalance({ bank, shop }, numbers, transfers);
      } finally {
        workers.kill();
        await Promise.all([bank.close(), shop?.close()]);
        await Promise.all([server.stop(), carrier.stop()]);
      }
    },
    timeoutMs,
  );
});

type Opened = ReturnType<typeof openSide>;

async function prepare({ shards }: Opened, tables: string): Promise<void> {
  for (const shard of shards) {
    const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
    await migrate({ ...target, migrations: queueMigrations });
    await sql.raw(tables).execute(shard.kysely);
  }
}

async function publishAll(options: {
  /** Where they are given. */
  readonly orders: Opened;
  /** By owner: how many orders they gave so far. */
  readonly numbers: number[];
  readonly transfers: number;
  readonly pick: (below: number) => number;
}): Promise<void> {
  const { orders, numbers, transfers, pick } = options;
  let published = 0;
  while (published < transfers) {
    const payer = pick(owners);
    const payerId = ownerAt(payer);
    const count = Math.min(1 + pick(20), transfers - published);
    await orders.db.for(payerId).transaction(async (tx) => {
      for (let index = 0; index < count; index++) {
        const number = numbers[payer] ?? 0;
        numbers[payer] = number + 1;
        const order = { payerId, payeeId: ownerAt(pick(owners)), number, amount: 1 + pick(500) };
        tx.publish(transferOrdered, order, { key: payerId });
      }
    });
    published += count;
    // Spread over the kills.
    await sleep(2);
  }
}

async function outboxRows({ shards }: Opened): Promise<number> {
  const tables = await Promise.all(shards.map((shard) => shard.query(undefined, "table rungs_outbox", [])));
  return tables.flat().length;
}

async function expectBalance(
  { bank, shop }: { readonly bank: Opened; readonly shop: Opened | undefined },
  numbers: readonly number[],
  transfers: number,
): Promise<void> {
  const poisoned = numbers.reduce((sum, count) => sum + Math.floor(count / 97), 0);
  const shards = [...bank.shards, ...(shop?.shards ?? [])];
  const admin = jobAdmin(shards);
  const receipts = async () =>
    (await shop?.db.everywhere<{ payer_id: string; number: number; position: number }>((shard) =>
      shard.selectFrom("receipts").selectAll().orderBy("position").execute(),
    )) ?? [];
  const left = async () => {
    const outboxes = (await outboxRows(bank)) + (shop === undefined ? 0 : await outboxRows(shop));
    const live = (await admin.counts()).map(
      ({ ready, running, waiting, scheduled, retrying }) => ready + running + waiting + scheduled + retrying,
    );
    const credits = await bank.db.everywhere<{ count: string }>((shard) =>
      shard
        .selectFrom("journal")
        .select((eb) => eb.fn.countAll<string>().as("count"))
        .where("amount", ">", 0)
        .execute(),
    );
    const missing = transfers - poisoned - credits.reduce((sum, { count }) => sum + Number(count), 0);
    const unreceived = shop === undefined ? 0 : transfers - poisoned - (await receipts()).length;
    return { outboxes, jobs: live.reduce((sum, count) => sum + count, 0), missing, unreceived };
  };
  const nothing = { outboxes: 0, jobs: 0, missing: 0, unreceived: 0 };
  await expect.poll(left, { timeout: timeoutMs / 2, interval: 200 }).toEqual(nothing);
  // Whatever was under way twice has had the time to show.
  await sleep(500);
  expect(await left()).toEqual(nothing);

  // Each died of its own fault, and none of the deaths of its workers.
  const buried = await Promise.all(
    bank.shards.map((shard) => shard.query<{ error: string }>(undefined, "select error from rungs_dead_jobs", [])),
  );
  expect(buried.flat().map(({ error }) => error)).toEqual(Array(poisoned).fill(expect.stringContaining("poison")));
  const rows = await bank.db.everywhere<{ owner_id: string; number: number; amount: number; position: number }>(
    (shard) => shard.selectFrom("journal").selectAll().orderBy("position").execute(),
  );
  expect(rows.reduce((sum, { amount }) => sum + amount, 0)).toBe(0);
  expect(rows.filter(({ amount }) => amount > 0)).toHaveLength(transfers - poisoned);
  for (const [payer, count] of numbers.entries()) {
    const paid = rows.filter(({ owner_id, amount }) => owner_id === ownerAt(payer) && amount < 0);
    const expected = Array.from({ length: count }, (_, number) => number).filter((number) => !isPoison(number));
    expect(paid.map(({ number }) => number)).toEqual(expected);
  }
  if (shop === undefined) return;
  const received = Map.groupBy(await receipts(), ({ payer_id }) => payer_id);
  for (const [payer, count] of numbers.entries()) {
    const expected = Array.from({ length: count }, (_, number) => number).filter((number) => !isPoison(number));
    expect((received.get(ownerAt(payer)) ?? []).map(({ number }) => number)).toEqual(expected);
  }
  // What failed at the bank is parked there, and not where it was ordered.
  const parked = await Promise.all(
    (shop.shards ?? []).map((shard) => shard.query(undefined, "table rungs_dead_jobs", [])),
  );
  expect(parked.flat()).toEqual([]);
}

/** Workers as processes of their own. */
function startWorkers(places: BankPlaces) {
  const workers = new Map<ChildProcess, Side>();
  const add = async (side: Side) => {
    const child = fork(program, [JSON.stringify(places), side], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    workers.set(child, side);
    child.once("exit", () => workers.delete(child));
    await once(child, "message");
  };
  const any = (pick: (below: number) => number) => [...workers][pick(workers.size)] ?? [];
  return {
    add,
    async replace(pick: (below: number) => number) {
      const [worker, side = "bank"] = any(pick);
      worker?.kill("SIGKILL");
      await add(side);
    },
    async freezeOne(pick: (below: number) => number, ms: number) {
      const [worker] = any(pick);
      worker?.kill("SIGSTOP");
      await sleep(ms);
      worker?.kill("SIGCONT");
    },
    kill() {
      for (const child of workers.keys()) child.kill("SIGKILL");
    },
  };
}
