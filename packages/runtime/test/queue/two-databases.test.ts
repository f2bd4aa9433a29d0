/** Two databases joined by a broker: a shop's, as the app's, and one that a bank has of its own. */
import { until as untilWithin } from "@rungs/contract/queue-contract";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
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
import { UnavailableError } from "../../src/kernel/errors.ts";
import type { PublishOptions } from "../../src/kernel/event.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import {
  defineEvent,
  handle,
  jobAdmin,
  type NamedHandler,
  postgresQueue,
  queueMigrations,
} from "../../src/queue/index.ts";

const ordered = defineEvent("thing.ordered", z.object({ number: z.int() }));
const shipped = defineEvent("thing.shipped", z.object({ number: z.int() }));

/** On a machine that does much else beside. */
const until = (condition: () => boolean | Promise<boolean>) => untilWithin(condition, 30_000);

type Work = (number: number, attempt: number) => void | Promise<void>;
/** What the handlers do in the test that runs. */
let atBank: Work;
let atShop: Work;

const quick = { attemptsMax: 3, backoff: { firstMs: 50, maxMs: 50 } };
const bankHandler: NamedHandler<undefined> = {
  ...handle(ordered, async ({ payload, attempt }) => atBank(payload.number, attempt), { ...quick, concurrency: 1 }),
  name: "bank.charge",
};
const shopHandler: NamedHandler<undefined> = {
  ...handle(ordered, async ({ payload, attempt }) => atShop(payload.number, attempt), quick),
  name: "shop.note",
};
const shipping: NamedHandler<undefined> = {
  ...handle(shipped, async ({ payload, attempt }) => atBank(payload.number, attempt), quick),
  name: "bank.ship",
};

let postgres: TestPostgres;
let rabbitmq: TestRabbitmq;
let apps = 0;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  [postgres, rabbitmq] = await Promise.all([startTestPostgres(), startTestRabbitmq()]);
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(async () => {
  await rabbitmq?.stop();
  await postgres?.stop();
});

/** One database with one process on it. `own`: prefix of its handlers' names. */
async function openDatabase(
  own: "shop" | "bank",
  {
    handlers,
    shards: count,
    prefix,
  }: { readonly handlers: readonly NamedHandler<undefined>[]; readonly shards: number; readonly prefix: string },
) {
  const shards: ShardConnection[] = [];
  for (let index = 0; index < count; index++) {
    const name = `${own} shard ${index}`;
    const shard = openPostgres({ name, address: { url: await postgres.createDatabase() } });
    await migrate({ db: shard.kysely, name, service: "rungs_queue", target: "shards", migrations: queueMigrations });
    shards.push(shard);
  }
  const all = shards as [ShardConnection, ...ShardConnection[]];
  const broker = rabbitmqBroker({ url: rabbitmq.url, prefix, partitions: 2 });
  const queue = postgresQueue<undefined>({
    ...{ handlers, broker, clock: systemClock, random: systemRandom },
    ...(own === "shop" ? {} : { database: own }),
    elsewhere: new Set(handlers.map(({ name }) => name).filter((name) => !name.startsWith(`${own}.`))),
  });
  const db = shardedDatabase<Record<never, never>>({
    shards: all,
    placement: initialPlacement({ strategy: "hash", shards: count }),
    tables: tableRegistry([]),
    messages: queue.messages,
  });
  closing.push(() => Promise.all([db.close(), broker.close()]));
  const running = await queue.start({
    ...{ shards: all, home: all[0], context: undefined, log: silentLogger, pollMs: 50, heartbeatMs: 100 },
    only: handlers.map(({ name }) => name).filter((name) => name.startsWith(`${own}.`)),
  });
  closing.push(() => running.stop());
  const jobs = async () =>
    (await Promise.all(all.map((shard) => shard.query(undefined, "table rungs_jobs", [])))).flat();
  return { db, running, shards: all, broker, jobs };
}

async function open(handlers: readonly NamedHandler<undefined>[]) {
  const prefix = `two-${apps++}`;
  const shop = await openDatabase("shop", { handlers, prefix, shards: 2 });
  const bank = await openDatabase("bank", { handlers, prefix, shards: 1 });
  const admin = jobAdmin([...shop.shards, ...bank.shards], {
    broker: shop.broker,
    homes: [bank.shards[0]],
    homeOf: (handler) => (handler.startsWith("bank.") ? bank.shards[0] : undefined),
  });
  const order = (number: number, options?: PublishOptions) =>
    shop.db
      .for(options?.key ?? uuidV7(systemClock, systemRandom))
      .transaction(async (tx) => tx.publish(ordered, { number }, options));
  const countsOf = async (handler: string) => (await admin.counts()).find((each) => each.handler === handler);
  return { shop, bank, admin, order, countsOf };
}

describe("a message of one database for a handler in another", () => {
  it("keeps the order of its key through failures, and waits there and not where it is from", async () => {
    const seen: string[] = [];
    let isMended = false;
    atShop = () => {};
    atBank = (number, attempt) => {
      seen.push(`${number}.${attempt}`);
      if (number === 2 && !isMended) throw new Error("not yet");
    };
    const { shop, bank, admin, order, countsOf } = await open([bankHandler, shopHandler]);
    for (let number = 1; number <= 5; number++) await order(number, { key: "a" });
    await until(() => seen.length === 7);
    expect(seen).toEqual(["1.1", "2.1", "2.2", "2.3", "3.1", "4.1", "5.1"]);
    await until(async () => (await countsOf("bank.charge"))?.dead === 1);
    const { jobs } = await admin.list({ state: "dead", limit: 10 });
    expect(jobs.map(({ shard, handler, key }) => [shard, handler, key])).toEqual([
      ["bank shard 0", "bank.charge", "a"],
    ]);
    isMended = true;
    expect(await admin.retry({ ids: [jobs[0]?.id as string], limit: 1 })).toBe(1);
    await until(() => seen.at(-1) === "2.1");
    await until(async () => (await bank.jobs()).length === 0);
    expect(await shop.jobs()).toEqual([]);
  }, 60_000);

  it("is as late as it was published to be, and waits while its handler is paused there", async () => {
    const seen: { readonly at: "bank" | "shop"; readonly number: number; readonly time: number }[] = [];
    atShop = (number) => void seen.push({ at: "shop", number, time: Date.now() });
    atBank = (number) => void seen.push({ at: "bank", number, time: Date.now() });
    const numbersAt = (place: string) => seen.filter(({ at }) => at === place).map(({ number }) => number);
    const { bank, admin, order, countsOf } = await open([bankHandler, shopHandler]);
    await admin.pause("bank.charge");
    await until(() => bank.running.paused().includes("bank.charge"));
    const started = Date.now();
    await order(1, { delayMs: 1_500 });
    await order(2, { delayMs: 1_500, key: "a" });
    await order(3, { key: "a" });
    await order(4, { priority: "low" });
    await order(5, { priority: "high" });
    await until(() => numbersAt("shop").length === 5);
    expect(numbersAt("bank")).toEqual([]);
    expect((await countsOf("bank.charge"))?.isPaused).toBe(true);
    expect(await admin.resume("bank.charge")).toBe(true);
    await until(() => numbersAt("bank").length === 5);
    for (const { number, time } of seen) if (number <= 2) expect(time - started).toBeGreaterThanOrEqual(1_450);
  }, 60_000);

  it("waits in the job table there from when it arrives until it is due, without holding up its key", async () => {
    const seen: number[] = [];
    atShop = () => {};
    atBank = (number) => void seen.push(number);
    const { shop, bank, admin, order, countsOf } = await open([bankHandler]);
    await order(1, { delayMs: 3_600_000, key: "a" });
    await order(2, { key: "a" });
    await order(3, { delayMs: 3_600_000, priority: "high" });
    await until(async () => (await countsOf("bank.charge"))?.scheduled === 2);
    await until(() => seen.length === 1);
    expect(seen).toEqual([2]);
    await until(async () => (await bank.jobs()).length === 2);
    expect(await shop.jobs()).toEqual([]);
    expect((await admin.list({ limit: 10 })).jobs.map(({ priority }) => priority).sort()).toEqual(["high", "normal"]);
    expect(await admin.retry({ handler: "bank.charge", limit: 10 })).toBe(2);
    await until(() => seen.length === 3);
    expect(await admin.drop({ handler: "bank.charge", limit: 10 })).toBe(0);
  }, 60_000);

  it("is relayed also where no process has a handler, and goes both ways", async () => {
    const seen: number[] = [];
    atBank = (number) => void seen.push(number);
    const { shop, bank } = await open([shipping]);
    // The shop has no handler at all, and its processes relay.
    await shop.db.home.transaction(async (tx) => tx.publish(shipped, { number: 1 }));
    await bank.db.home.transaction(async (tx) => tx.publish(shipped, { number: 2 }));
    await until(() => seen.length === 2);
    expect(seen.sort()).toEqual([1, 2]);
    expect(shop.running.relays().map(({ shard }) => shard)).toEqual(["shop shard 0", "shop shard 1"]);
  }, 60_000);
});

describe("a handler whose messages find no room in the outbox", () => {
  it("is tried again later, and that counts as no try", async () => {
    const tries: number[] = [];
    atBank = (_number, attempt) => {
      tries.push(attempt);
      if (tries.length > 2) return;
      throw new UnavailableError("OUTBOX_FULL", "The outbox of shard 0 is full.", { canRetry: true });
    };
    const { bank } = await open([shipping]);
    // Once through the broker and twice from the job table.
    await bank.db.home.transaction(async (tx) => tx.publish(shipped, { number: 1 }));
    await until(() => tries.length === 3);
    expect(tries).toEqual([1, 1, 1]);
    await until(async () => (await bank.jobs()).length === 0);
  }, 60_000);
});
