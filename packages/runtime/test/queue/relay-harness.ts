/** For tests of the relay: a real PostgreSQL, a real RabbitMQ, relays here and in processes of their own, and what reaches a handler. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import type { Logger } from "../../src/kernel/log.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import type { Broker, BrokerMessage, Subscription } from "../../src/queue/broker.ts";
import { type Relay, type RelayOptions, startRelay } from "../../src/queue/drivers/postgres-relay.ts";
import { type OutboxShard, openOutboxShard, subscriptions } from "./outbox-shard.ts";
import { openBroker, type RelayProcessOptions } from "./relay-process.ts";

const program = fileURLToPath(new URL("relay-process.ts", import.meta.url));
export const accounts = 20;
export const leaseMs = 1_000;

/** What each test has: a shard and names in RabbitMQ of its own. */
interface RelayTest {
  rabbitmq: TestRabbitmq;
  /** To RabbitMQ, for relays of this process. */
  way: UnreliableWay;
  prefix: string;
  books: OutboxShard;
  /** Not by that way. */
  watching: Broker;
  /** Of one handler, in the order of delivery. */
  delivered: BrokerMessage[];
  logged: string[];
}

/** Starts the servers for the tests of a file. */
export function relayHarness() {
  const test = { delivered: [], logged: [] } as unknown as RelayTest;
  const relays = new Set<Relay>();
  const children = new Set<ChildProcess>();
  let postgres: TestPostgres;
  let broker: Broker;
  let url: string;
  let tests = 0;

  beforeAll(async () => {
    [postgres, test.rabbitmq] = await Promise.all([startTestPostgres(), startTestRabbitmq()]);
    test.way = await openUnreliableWay({ port: test.rabbitmq.port });
  }, 60_000);
  beforeEach(async () => {
    url = await postgres.createDatabase();
    test.books = await openOutboxShard(url, accounts);
    test.prefix = `test${++tests}`;
    [test.delivered, test.logged] = [[], []];
    const through = new URL(test.rabbitmq.url);
    through.port = String(test.way.port);
    broker = openBroker(through.href, test.prefix);
    await broker.declare(subscriptions);
    test.watching = openBroker(test.rabbitmq.url, test.prefix);
    await test.watching.consume({
      subscriptions: [{ ...(subscriptions[0] as Subscription), room: 1_000 }],
      deliver(delivery) {
        if (!delivery.begin()) return;
        test.delivered.push(delivery.message);
        delivery.ack();
      },
    });
  });
  afterEach(async () => {
    for (const child of children) child.kill("SIGKILL");
    await Promise.all([...relays].map((relay) => relay.stop()));
    relays.clear();
    await Promise.all([broker.close(), test.watching.close()]);
    await test.books.close();
  });
  afterAll(async () => {
    await test.way?.cut();
    await Promise.all([postgres?.stop(), test.rabbitmq?.stop()]);
  });

  const note = (_: object, message: string) => void test.logged.push(message);
  const log: Logger = { debug() {}, info: note, warn: note, error: note };

  const start = (options: Partial<RelayOptions> = {}): Relay => {
    const shard = { number: 0, database: test.books.shard };
    const parts = { clock: systemClock, random: systemRandom, log, leaseMs };
    const relay = startRelay({ shard, broker, subscriptions, ...parts, ...options });
    relays.add(relay);
    return relay;
  };

  const startProcess = async (options: Partial<RelayProcessOptions> = {}): Promise<ChildProcess> => {
    const { rabbitmq, prefix } = test;
    const all: RelayProcessOptions = { database: url, broker: rabbitmq.url, prefix, leaseMs, ...options };
    const child = fork(program, [JSON.stringify(all)], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    children.add(child);
    child.once("exit", () => children.delete(child));
    // It may say first that it stands by.
    while ((await once(child, "message"))[0] !== "active");
    return child;
  };

  const left = async () => (await test.books.shard.query(undefined, "select 1 from rungs_outbox", [])).length;

  /** What each account's messages say, in the order in which they first came, and how many came again. */
  const received = () => {
    const seen = new Set<string>();
    const numbers = new Map<string, number[]>();
    for (const { id, key, payload } of test.delivered) {
      if (seen.has(id)) continue;
      seen.add(id);
      numbers.set(key as string, [...(numbers.get(key as string) ?? []), (payload as { number: number }).number]);
    }
    return { numbers, repeated: test.delivered.length - seen.size };
  };

  /** Every message that was committed has come, of each account in order. */
  const expectAllInOrder = async (timeout?: number) => {
    const asked = "select owner_id, count from accounts";
    const rows = await test.books.shard.query<{ owner_id: string; count: number }>(undefined, asked, []);
    const total = rows.reduce((sum, { count }) => sum + count, 0);
    await until(() => new Set(test.delivered.map(({ id }) => id)).size === total, timeout);
    const { numbers } = received();
    for (const { owner_id: key, count } of rows) {
      expect(numbers.get(key) ?? [], key).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    }
    await until(async () => (await left()) === 0);
  };

  return { test, relays, start, startProcess, left, received, expectAllInOrder };
}

export const until = (condition: () => unknown | Promise<unknown>, timeout = 15_000) =>
  expect.poll(async () => Boolean(await condition()), { timeout, interval: 10 }).toBe(true);

export const isActive = (relay: Relay) => until(() => relay.stats().isActive);
