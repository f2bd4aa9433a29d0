/**
 * A bank for the crash test: two shards with accounts and an append-only journal without any constraint, so that a lost,
 * doubled or disordered effect shows. It takes orders in its own database, or in that of a shop, which gets a receipt for each.
 *
 * Run as a program it is one worker: `node crash-bank.ts '{"urls": ["postgres://...", ...]}' bank`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Generated } from "kysely";
import { z } from "zod";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import {
  initialPlacement,
  type ShardConnection,
  shardedDatabase,
  statements,
  tableRegistry,
} from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import { kafkaBroker } from "../../src/queue/drivers/kafka-broker.ts";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import { type Broker, defineEvent, handle, type NamedHandler, postgresQueue } from "../../src/queue/index.ts";

export interface BankTables {
  journal: { owner_id: string; number: number; amount: number; position: Generated<number> };
  receipts: { payer_id: string; number: number; position: Generated<number> };
}

export const bankSql = `create table journal (owner_id uuid not null, number integer not null, amount integer not null,
  position bigint generated always as identity)`;
export const shopSql = `create table receipts (payer_id uuid not null, number integer not null,
  position bigint generated always as identity)`;

/** An order to move cents; numbers count up for each payer from 0. Every 97th is poison. */
export const transferOrdered = defineEvent(
  "transfer.ordered",
  z.object({ payerId: z.uuid(), payeeId: z.uuid(), number: z.int(), amount: z.int() }),
);
/** What came of one, for the shop. */
const transferBooked = defineEvent("transfer.booked", z.object({ payerId: z.uuid(), number: z.int() }));
export const isPoison = (number: number) => number % 97 === 96;

export const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;

const define = statements<BankTables>();
const book = define<{ ownerId: string; number: number; amount: number }>()("crash_book", (q, p) =>
  q.insertInto("journal").values({ owner_id: p.ownerId, number: p.number, amount: p.amount }).returning("number"),
);

const receive = define<{ payerId: string; number: number }>()("crash_receive", (q, p) =>
  q.insertInto("receipts").values({ payer_id: p.payerId, number: p.number }).returning("number"),
);

/** Where a bank's data and messages are. */
export interface BankPlaces {
  /** Of the shards' databases. */
  readonly urls: readonly string[];
  /** Of the shards' databases of the shop; default: there is none. */
  readonly shopUrls?: readonly string[] | undefined;
  /** Of the broker between publishing and handling; default none. */
  readonly brokerUrl?: string | undefined;
}

function brokerAt(url: string): Broker {
  const options = { url, prefix: "bank", partitions: 4 };
  // A dead member's share is not waited for long either.
  return url.startsWith("kafka")
    ? kafkaBroker({ ...options, sessionMs: 2_000, heartbeatMs: 100 })
    : rabbitmqBroker(options);
}

/** Whose database and whose handlers. */
export type Side = "bank" | "shop";

/** Opens one side with its queue; `leaseMs` is short, so that a dead worker's keys are not waited for long. */
export function openSide({ urls, shopUrls, brokerUrl }: BankPlaces, side: Side) {
  const hasShop = shopUrls !== undefined;
  const shards = (side === "bank" ? urls : (shopUrls ?? [])).map((url, index) =>
    openPostgres({ name: `${side} shard ${index}`, address: { url }, pool: { connectionsMax: 8 } }),
  ) as [ShardConnection, ...ShardConnection[]];
  const transfer = handle(
    transferOrdered,
    async ({ payload, once }) => {
      const { payerId, payeeId, number, amount } = payload;
      if (isPoison(number)) throw new Error("poison");
      await once(db.for(payerId), async (tx) => {
        await tx.run(book, { ownerId: payerId, number, amount: -amount });
        if (hasShop) tx.publish(transferBooked, { payerId, number }, { key: payerId });
      });
      // Half of the kills should hit between the two steps.
      await sleep(1);
      await once(db.for(payeeId), (tx) => tx.run(book, { ownerId: payeeId, number: -1, amount }), "credit");
    },
    // A try that its process dies in counts too: of thousands of jobs one is hit three times now and then, but never ten times.
    { concurrency: 20, attemptsMax: 10, backoff: { firstMs: 20, maxMs: 50 } },
  );
  const receipt = handle(
    transferBooked,
    async ({ payload, once }) => {
      await once(db.for(payload.payerId), (tx) => tx.run(receive, payload));
    },
    { concurrency: 20 },
  );
  const handlers: NamedHandler<undefined>[] = [
    { ...transfer, name: "bank.transfer" },
    ...(hasShop ? [{ ...receipt, name: "shop.receipt" }] : []),
  ];
  const broker = brokerUrl === undefined ? undefined : brokerAt(brokerUrl);
  const clocks = { clock: systemClock, random: systemRandom };
  const queue = postgresQueue<undefined>({
    ...{ handlers, ...clocks },
    ...(broker === undefined ? {} : { broker }),
    // The shop's is the app's, the bank a service with one of its own.
    ...(hasShop && side === "bank" ? { database: "bank" } : {}),
    elsewhere: new Set(hasShop ? [side === "bank" ? "shop.receipt" : "bank.transfer"] : []),
  });
  const db = shardedDatabase<BankTables>({
    shards,
    placement: initialPlacement({ strategy: "hash", shards: shards.length }),
    tables: tableRegistry([
      side === "bank"
        ? { name: "bank", tables: { journal: { shardBy: "owner_id" } } }
        : { name: "shop", tables: { receipts: { shardBy: "payer_id" } } },
    ]),
    messages: queue.messages,
  });
  const work = () =>
    queue.start({
      shards,
      home: shards[0],
      context: undefined,
      log: silentLogger,
      pollMs: 50,
      heartbeatMs: 200,
      leaseMs: 1_000,
      relay: { leaseMs: 1_000 },
    });
  return { db, shards, work, close: async () => void (await Promise.all([db.close(), broker?.close()])) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const opened = openSide(JSON.parse(process.argv[2] ?? "") as BankPlaces, process.argv[3] as Side);
  // Ends with the test, however that ends.
  process.on("disconnect", () => process.exit());
  await opened.work();
  process.send?.("works");
}
