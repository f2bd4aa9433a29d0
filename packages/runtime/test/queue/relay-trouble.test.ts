/** The relay between a real PostgreSQL and a real RabbitMQ: what it does when messages do not get through. */
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { describe, expect, it } from "vitest";
import { closed, counted, ownerAt } from "./outbox-shard.ts";
import { isActive, relayHarness, until } from "./relay-harness.ts";
import { openBroker } from "./relay-process.ts";

const { test, relays, start, left, expectAllInOrder } = relayHarness();

describe("while the broker cannot be reached", () => {
  it("transactions commit, nothing is lost, and the log says so once and once again at the end", async () => {
    const relay = start();
    await isActive(relay);
    await test.books.count(0);
    await until(() => test.delivered.length === 1);
    await test.way.cut();
    for (let round = 0; round < 500; round++) await test.books.count(round % 5);
    await until(() => relay.stats().failures >= 2);
    await until(() => relay.stats().outbox?.messages === 500);
    expect(relay.stats().outbox?.oldestAgeMs).toBeGreaterThan(100);
    await test.way.open();
    await expectAllInOrder();
    const told = (message: string) => test.logged.filter((entry) => entry === message).length;
    expect(told("messages are not relayed now: they wait in the outbox")).toBe(1);
    expect(told("messages are relayed again")).toBe(1);
  }, 30_000);

  it("a full outbox refuses messages with their data until there is room, and no message that it took is lost", async () => {
    const relay = start({ bytesMax: 50_000 });
    await isActive(relay);
    await test.way.cut();
    const refusal = async () => {
      for (let round = 0; round < 20_000; round++) await test.books.count(round % 5);
    };
    await expect(refusal()).rejects.toMatchObject({ code: "OUTBOX_FULL", canRetry: true });
    expect(test.logged).toContain("the outbox is full: publishing is refused until the relay has made room");
    await test.way.open();
    await until(() =>
      test.books.count(0).then(
        () => true,
        () => false,
      ),
    );
    await expectAllInOrder();
    await until(() => test.logged.includes("the outbox has room again: publishing goes on"));
  }, 30_000);

  it("another relay, which reaches it, is let have its place", async () => {
    const cutOff = start();
    await isActive(cutOff);
    await test.way.cut();
    await test.books.count(0);
    await until(() => cutOff.stats().failures > 0);
    const reaching = openBroker(test.rabbitmq.url, test.prefix);
    const other = start({ broker: reaching });
    try {
      await expectAllInOrder();
      expect([cutOff.stats().isActive, other.stats().isActive]).toEqual([false, true]);
    } finally {
      await test.way.open();
      relays.delete(other);
      await other.stop();
      await reaching.close();
    }
  });
});

it("messages of an event that nobody takes wait, and hold up no others, until somebody does", async () => {
  const relay = start();
  await isActive(relay);
  for (let round = 0; round < 10; round++) {
    await test.books.count(round % 5);
    await test.books.db.for(ownerAt(0)).transaction(async (tx) => tx.publish(closed, { number: round }, { key: "a" }));
  }
  // Those in one batch with the first that nobody took have come twice.
  await until(() => new Set(test.delivered.map(({ id }) => id)).size === 10);
  await until(async () => (await left()) === 10);
  const complaint = "nobody takes this event: its messages wait in the outbox";
  await until(() => relay.stats().batches > 3);
  expect(test.logged.filter((entry) => entry === complaint)).toHaveLength(1);
  const subscription = { event: closed.name, handler: "test.books.close" };
  await test.watching.declare([subscription]);
  const numbers: number[] = [];
  await test.watching.consume({
    subscriptions: [{ ...subscription, room: 100 }],
    deliver(delivery) {
      if (!delivery.begin()) return;
      numbers.push((delivery.message.payload as { number: number }).number);
      delivery.ack();
    },
  });
  await until(() => numbers.length === 10);
  expect(numbers).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await expectAllInOrder();
});

it("reads do not wade through rows that a long transaction keeps from being removed", async () => {
  const { promise: isOver, resolve: end } = Promise.withResolvers<void>();
  const { promise: isHeld, resolve: hold } = Promise.withResolvers<void>();
  const long = test.books.shard.kysely.transaction().execute(async (tx) => {
    await sql`select pg_current_xact_id()`.execute(tx);
    hold();
    await isOver;
  });
  await isHeld;
  const relay = start();
  const messages = 6_000;
  await test.books.db.for(ownerAt(0)).transaction(async (tx) => {
    for (let number = 1; number <= messages; number++) tx.publish(counted, { key: "", number });
  });
  await until(async () => relay.stats().published === messages && (await left()) === 0);
  const floor = async () => {
    const [row] = await test.books.shard.query<{ floor: number }>(undefined, "select floor from rungs_relay", []);
    return row?.floor ?? 0;
  };
  await until(async () => (await floor()) > messages, 5_000);
  const read = async () => {
    const [row] = await test.books.shard.query<{ blocks: number }>(
      undefined,
      "select idx_blks_hit + heap_blks_hit as blocks from pg_statio_user_tables where relname = 'rungs_outbox'",
      [],
    );
    return row?.blocks ?? 0;
  };
  // The server adds its figures up once a second.
  await sleep(1_200);
  const before = await read();
  await sleep(2_000);
  // A read of everything takes more than a hundred blocks, and there are fifty a second.
  expect((await read()) - before).toBeLessThan(5_000);
  end();
  await long;
}, 30_000);
