/** Handlers paused and resumed by an operator, and put back in time. */
import { until } from "@rungs/contract/queue-contract";
import { startTestKafka, type TestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { sql } from "kysely";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { kafkaBroker } from "../../src/queue/drivers/kafka-broker.ts";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import { type Broker, defineEvent, handle, type NamedHandler } from "../../src/queue/index.ts";
import { openQueueDatabase, type QueueDatabase } from "./processes-of-queue.ts";

const noted = defineEvent("thing.noted", z.object({ number: z.int() }));
const missing = whyNoKafka();

let rabbitmq: Promise<TestRabbitmq> | undefined;
let kafka: Promise<TestKafka> | undefined;
afterAll(async () => {
  await (await rabbitmq)?.stop();
  await (await kafka)?.stop();
});

let apps = 0;
const overTables = async (): Promise<undefined> => undefined;
const overRabbitmq = async (): Promise<Broker> => {
  rabbitmq ??= startTestRabbitmq();
  return rabbitmqBroker({ url: (await rabbitmq).url, prefix: `pauses-${apps}`, partitions: 2 });
};
const overKafka = async (): Promise<Broker> => {
  kafka ??= startTestKafka();
  const times = { sessionMs: 2_000, heartbeatMs: 100 };
  return kafkaBroker({ url: (await kafka).url, prefix: `pauses-${apps}`, partitions: 2, ...times });
};

type Work = (number: number, by: { readonly handler: string }) => Promise<void>;

function handlers(names: readonly string[], work: Work, concurrency = 10): NamedHandler<undefined>[] {
  return names.map((name) => ({
    ...handle(noted, ({ payload }) => work(payload.number, { handler: name }), { concurrency }),
    name,
  }));
}

async function withDatabase(
  brokerOf: () => Promise<Broker | undefined>,
  use: (database: QueueDatabase) => Promise<void>,
): Promise<void> {
  apps++;
  const isBrokered = brokerOf !== overTables;
  const database = await openQueueDatabase(isBrokered ? (brokerOf as () => Promise<Broker>) : undefined);
  try {
    await use(database);
  } finally {
    await database.close();
  }
}

const stateOf = async ({ admin }: QueueDatabase, handler: string) =>
  (await admin.counts()).find((counts) => counts.handler === handler);

describe.each([
  ["the job table", overTables],
  ["RabbitMQ", overRabbitmq],
  ...(missing === undefined ? ([["Kafka", overKafka]] as const) : []),
] as const)("a paused handler, over %s", (_, brokerOf) => {
  it("begins nothing in any process, also after restarts, while others go on; and goes on where it was", async () => {
    await withDatabase(brokerOf, async (database) => {
      const seen: string[] = [];
      const both = handlers(["a.slow", "a.other"], async (number, { handler }) => {
        seen.push(`${handler} ${number}`);
      });
      const processes = await Promise.all([database.process(both), database.process(both)]);
      const [one] = processes as [(typeof processes)[0], (typeof processes)[0]];
      const running = await Promise.all(processes.map((each) => each.start()));
      await one.publish(noted, { number: 0 }, { key: "a" });
      await until(() => seen.length === 2);

      expect(await database.admin.pause("a.slow")).toBe(true);
      expect(await database.admin.pause("a.slow")).toBe(false);
      expect(await stateOf(database, "a.slow")).toMatchObject({ isPaused: true });
      await until(() => running.every((each) => each.paused().includes("a.slow")));
      for (let number = 1; number <= 5; number++) await one.publish(noted, { number }, { key: "a" });
      await until(() => seen.length === 7);
      await running[0]?.stop();
      const again = await (await database.process(both)).start();
      expect(again.paused()).toEqual(["a.slow"]);
      for (let number = 6; number <= 8; number++) await one.publish(noted, { number }, { key: "a" });
      await until(() => seen.length === 10);
      await until(async () => (await stateOf(database, "a.slow"))?.ready === 8);
      expect(seen.filter((each) => each.startsWith("a.slow"))).toEqual(["a.slow 0"]);

      expect(await database.admin.resume("a.slow")).toBe(true);
      expect(await database.admin.resume("a.slow")).toBe(false);
      await until(() => seen.length === 18);
      const numbers = Array.from({ length: 9 }, (_, number) => `a.slow ${number}`);
      expect(seen.filter((each) => each.startsWith("a.slow"))).toEqual(numbers);
      await until(async () => (await stateOf(database, "a.slow")) === undefined);
    });
  }, 30_000);

  it("ends what runs, and hands back what was claimed ahead without counting a try", async () => {
    await withDatabase(brokerOf, async (database) => {
      const begun: number[] = [];
      const ended: number[] = [];
      const gate = Promise.withResolvers<void>();
      const slow = handlers(
        ["a.slow"],
        async (number) => {
          if (number < 0) return;
          begun.push(number);
          await gate.promise;
          ended.push(number);
        },
        2,
      );
      const process = await database.process(slow);
      const running = await process.start();
      // Short ones, so that the next ones are claimed ahead.
      for (let number = -30; number < 0; number++) await process.publish(noted, { number });
      await until(() => running.stats().every(({ done }) => done === 30));
      for (let number = 0; number < 8; number++) await process.publish(noted, { number });
      await until(() => begun.length === 2 && running.stats().every(({ claimed }) => claimed > 2));
      await database.admin.pause("a.slow");
      await until(() => running.paused().length === 1 && running.stats().every(({ claimed }) => claimed === 2));
      gate.resolve();
      await until(() => running.stats().every(({ claimed }) => claimed === 0));
      expect(ended).toHaveLength(2);
      expect(begun).toHaveLength(2);
      await until(async () => (await stateOf(database, "a.slow"))?.ready === 6);
      const attempts = await database.sql<{ most: number | null }>("select max(attempts) as most from rungs_jobs");
      expect(attempts[0]?.most ?? 0).toBe(0);
      await database.admin.resume("a.slow");
      await until(() => ended.length === 8);
      expect(new Set(ended).size).toBe(8);
    });
  }, 30_000);
});

it("names of no handler are refused with those there are, but what is paused can always be resumed", async () => {
  await withDatabase(overTables, async (database) => {
    const process = await database.process(handlers(["a.slow"], async () => {}));
    await (await process.start()).stop();
    const unknown = { code: "HANDLER_UNKNOWN", known: ["a.slow"] };
    await expect(database.admin.pause("a.slwo")).rejects.toMatchObject(unknown);
    await expect(database.admin.resume("a.slwo")).rejects.toMatchObject(unknown);
    await expect(database.admin.replay("a.slwo", { from: new Date() })).rejects.toMatchObject(unknown);
    await database.admin.pause("a.slow");
    await database.sql("update rungs_events set handlers = '{}'");
    expect(await stateOf(database, "a.slow")).toMatchObject({ isPaused: true, ready: 0 });
    expect(await database.admin.resume("a.slow")).toBe(true);
  });
});

it("where messages are forgotten once they are done, a replay is refused", async () => {
  for (const brokerOf of [overTables, overRabbitmq]) {
    await withDatabase(brokerOf, async (database) => {
      await (await (await database.process(handlers(["a.slow"], async () => {}))).start()).stop();
      const refused = database.admin.replay("a.slow", { from: new Date() });
      await expect(refused).rejects.toMatchObject({ code: "CAPABILITY_MISSING" });
    });
  }
});

describe.skipIf(missing !== undefined)(`a replay of Kafka's${missing === undefined ? "" : `: ${missing}`}`, () => {
  it("needs the handler paused, makes no effect twice, and all of them for a handler of a new name", async () => {
    await withDatabase(overKafka, async (database) => {
      await database.sql("create table effects (handler text, number integer)");
      const calls: string[] = [];
      const writing = (name: string): NamedHandler<undefined> => ({
        ...handle(noted, async ({ payload, once }) => {
          calls.push(`${name} ${payload.number}`);
          await once(database, async (tx) => {
            await sql`insert into effects values (${name}, ${payload.number})`.execute(tx);
          });
        }),
        name,
      });
      const effectsOf = async (name: string) => {
        const text = "select number from effects where handler = $1 order by number";
        return (await database.sql<{ number: number }>(text, [name])).map(({ number }) => number);
      };
      const from = new Date(Date.now() - 1_000);
      const first = await database.process([writing("a.index")]);
      const running = await first.start();
      for (let number = 0; number < 5; number++) await first.publish(noted, { number }, { key: "a" });
      await until(async () => (await effectsOf("a.index")).length === 5);

      await expect(database.admin.replay("a.index", { from })).rejects.toMatchObject({ code: "HANDLER_AT_WORK" });
      const longAgo = { from: new Date(Date.now() - 25 * 3_600_000) };
      await expect(database.admin.replay("a.index", longAgo)).rejects.toMatchObject({ code: "REPLAY_REPEATS" });
      await database.admin.pause("a.index");
      await until(() =>
        database.admin.replay("a.index", { from }).then(
          () => true,
          () => false,
        ),
      );
      await database.admin.resume("a.index");
      await until(() => calls.length === 10);
      await until(async () => (await stateOf(database, "a.index")) === undefined);
      expect(await effectsOf("a.index")).toEqual([0, 1, 2, 3, 4]);

      // A handler that is new gets what was published before it, once it is put back.
      await running.stop();
      const second = await database.process([writing("a.index"), writing("a.index2")]);
      await second.start();
      await until(() =>
        database.admin.replay("a.index2", { from }).then(
          () => false,
          ({ code }) => code === "HANDLER_AT_WORK",
        ),
      );
      await database.admin.pause("a.index2");
      await until(() =>
        database.admin.replay("a.index2", { ...longAgo, mayRepeat: true }).then(
          () => true,
          () => false,
        ),
      );
      await database.admin.resume("a.index2");
      await until(async () => (await effectsOf("a.index2")).length === 5);
      expect(await effectsOf("a.index2")).toEqual([0, 1, 2, 3, 4]);
    });
  }, 60_000);
});
