/** What RabbitMQ's driver does beyond the contract: refusals, dead letters, broken and silent connections, least rights. */
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { Connection } from "rabbitmq-client";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import type { BrokerDelivery, BrokerMessage } from "../../src/queue/broker.ts";
import { parseRabbitmqAddress } from "../../src/queue/drivers/rabbitmq-address.ts";
import {
  type RabbitmqBroker,
  type RabbitmqBrokerOptions,
  rabbitmqBroker,
} from "../../src/queue/drivers/rabbitmq-broker.ts";

let server: TestRabbitmq;
let admin: Connection;
const opened: { close(): Promise<unknown> }[] = [];
beforeAll(async () => {
  server = await startTestRabbitmq();
  admin = new Connection(server.url);
  admin.on("error", () => {});
}, 90_000);
afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
});
afterAll(async () => {
  admin?.unsafeDestroy();
  await server?.stop();
}, 30_000);

const subscription = { event: "thing.happened", handler: "work.note" };
let apps = 0;
const newPrefix = () => `app${++apps}`;

function open(options: Partial<RabbitmqBrokerOptions> & { readonly prefix: string }): RabbitmqBroker {
  const broker = rabbitmqBroker({ url: server.url, partitions: 2, publishMs: 3_000, rememberedMs: 0, ...options });
  opened.push(broker);
  return broker;
}

function messageOf(number: number, key: string | null = "a"): BrokerMessage {
  const id = uuidV7(systemClock, systemRandom);
  return { id, event: subscription.event, version: 1, key, payload: number, publishedAt: new Date(0), shard: 0 };
}

async function consume(broker: RabbitmqBroker, work: (delivery: BrokerDelivery) => void, room = 20) {
  const delivered: BrokerDelivery[] = [];
  const consumer = await broker.consume({
    subscriptions: [{ ...subscription, room }],
    deliver: (delivery) => {
      delivered.push(delivery);
      work(delivery);
    },
  });
  return { consumer, delivered };
}

const settle = (delivery: BrokerDelivery) => void (delivery.begin() && delivery.ack());
const numbers = (delivered: readonly BrokerDelivery[]) => delivered.map(({ message }) => message.payload);
const poll = (what: () => unknown) => expect.poll(what, { timeout: 15_000, interval: 20 });

describe("an address", () => {
  it("names hosts, login and vhost", () => {
    expect(parseRabbitmqAddress("amqp://a%40b:p%2Fw@mq.internal/my%20host")).toEqual({
      ...{ hosts: ["mq.internal:5672"], isTls: false, username: "a@b", password: "p/w", vhost: "my host" },
    });
    expect(parseRabbitmqAddress("amqps://u:p@one,two:5673,[::1]/")).toMatchObject({
      ...{ hosts: ["one:5671", "two:5673", "[::1]:5671"], isTls: true, vhost: "/" },
    });
  });

  it("that cannot be used is refused without repeating any of it", () => {
    for (const url of [
      "http://hush:hush@hush/",
      "amqp://hush",
      "amqp://hush@hush/",
      "amqp://hush:%zz@hush/",
      "amqp://hush:hush@hush:99999/",
      "amqp://hush:hush@hush/a/b",
      "amqp://hush:hush@hush/?hush=1",
    ]) {
      expect(() => rabbitmqBroker({ url })).toThrow(
        expect.objectContaining({ code: "CONFIG_INVALID", message: expect.not.stringContaining("hush") }),
      );
    }
    expect(() => rabbitmqBroker({ url: server.url, prefix: "a b" })).toThrow("1 to 60 of");
  });
});

describe("a login", () => {
  it("that is wrong is said to be, without the password", async () => {
    const broker = open({ prefix: newPrefix(), url: `amqp://tester:hushhush@127.0.0.1:${server.port}/` });
    const error = await broker.check().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "BROKER_UNREACHABLE", message: expect.stringContaining("refused the login") });
    expect(String((error as Error).cause)).not.toContain("hushhush");
  });

  it("with rights to the prefix alone is enough", async () => {
    const prefix = newPrefix();
    await server.ctl("add_user", "least", "least");
    await server.ctl("set_permissions", "least", ...["", "", ""].map(() => `^${prefix}\\.`));
    const broker = open({ prefix, url: `amqp://least:least@127.0.0.1:${server.port}/` });
    await broker.declare([subscription]);
    const { delivered } = await consume(broker, settle);
    await broker.publish([messageOf(1)]);
    await poll(() => numbers(delivered)).toEqual([1]);
    expect(await broker.backlog([subscription])).toHaveLength(1);
    expect(await broker.dead.count()).toBe(0);
    const stranger = open({ prefix: newPrefix(), url: `amqp://least:least@127.0.0.1:${server.port}/` });
    await expect(stranger.declare([subscription])).rejects.toMatchObject({
      ...{ code: "CONFIG_INVALID", message: expect.stringContaining("needs configure, write and read") },
    });
  });
});

describe("declarations", () => {
  it("with another number of partitions are refused, before anything of it is made", async () => {
    const prefix = newPrefix();
    await open({ prefix, partitions: 2 }).declare([subscription]);
    await expect(open({ prefix, partitions: 3 }).declare([subscription])).rejects.toMatchObject({
      ...{ code: "CONFIG_INVALID", message: expect.stringContaining("other settings") },
    });
    await expect(admin.queueDeclare({ queue: `${prefix}.work.note.2`, passive: true })).rejects.toThrow("NOT_FOUND");
  });

  it("that are missing make a message that nobody takes an error, and are made anew by the next try", async () => {
    const broker = open({ prefix: newPrefix() });
    await broker.declare([]);
    await expect(broker.publish([messageOf(1)])).rejects.toMatchObject({ code: "BROKER_UNROUTABLE", canRetry: true });
    const prefix = newPrefix();
    const other = open({ prefix });
    await other.declare([subscription]);
    for (const partition of [0, 1]) await admin.queueDelete({ queue: `${prefix}.work.note.${partition}` });
    await expect(other.publish([messageOf(1), messageOf(2, "b")])).rejects.toMatchObject({ code: "BROKER_UNROUTABLE" });
    await other.publish([messageOf(1), messageOf(2, "b")]);
    expect(await other.backlog([subscription])).toEqual([{ handler: subscription.handler, messages: 2 }]);
  });

  it("that vanish under a consumer are made anew by it", async () => {
    const prefix = newPrefix();
    const broker = open({ prefix });
    await broker.declare([subscription]);
    const { delivered } = await consume(broker, settle);
    await broker.publish([messageOf(1)]);
    await poll(() => delivered.length).toBe(1);
    for (const partition of [0, 1]) await admin.queueDelete({ queue: `${prefix}.work.note.${partition}` });
    await poll(() =>
      broker.publish([messageOf(2)]).then(
        () => "taken",
        () => "not taken",
      ),
    ).toBe("taken");
    await poll(() => numbers(delivered)).toContain(2);
  });
});

describe("dead letters", () => {
  it("are what cannot be read and what nobody answered; they are counted, shown and replayed", async () => {
    const prefix = newPrefix();
    const broker = open({ prefix });
    await broker.declare([subscription]);
    const { consumer, delivered } = await consume(broker, settle);
    await poll(() => admin.queueDeclare({ queue: `${prefix}.work.note.0`, passive: true })).toMatchObject({
      consumerCount: 1,
    });
    const toQueue = { routingKey: `${prefix}.work.note.0`, durable: true };
    const publisher = admin.createPublisher({ confirm: true });
    await publisher.send({ ...toQueue, contentType: "application/json" }, Buffer.from("{half a"));
    await publisher.send(toQueue, { not: "ours" });
    await publisher.close();
    await poll(() => broker.dead.count()).toBe(2);
    expect(delivered).toEqual([]);
    await consumer.close();

    await broker.publish([messageOf(7)]);
    const from =
      (await admin.queueDeclare({ queue: `${prefix}.work.note.0`, passive: true })).messageCount === 1 ? 0 : 1;
    const queue = `${prefix}.work.note.${from}`;
    for (let deaths = 0; deaths <= 50; deaths++) await takeAndDie(queue);
    await poll(() => broker.dead.count()).toBe(3);
    const letters = await broker.dead.read(10);
    expect(letters.map(({ reason, message }) => `${reason} ${message?.payload}`).sort()).toEqual([
      "delivery_limit 7",
      "rejected undefined",
      "rejected undefined",
    ]);
    expect(letters.find(({ message }) => message !== undefined)?.queue).toBe(queue);
    expect(await broker.dead.replay(10)).toBe(1);
    await poll(() => broker.dead.count()).toBe(2);
    const second = await consume(broker, settle);
    await poll(() => numbers(second.delivered)).toEqual([7]);
  });
});

/** Takes a message, and ends without an answer: what a process does that dies. */
async function takeAndDie(queue: string): Promise<void> {
  const channel = await admin.acquire();
  await channel.basicQos({ prefetchCount: 1 });
  let took = () => {};
  const taken = new Promise<void>((resolve) => {
    took = resolve;
  });
  await channel.basicConsume({ queue }, took);
  await taken;
  await channel.close();
}

describe("a connection", () => {
  let way: UnreliableWay;
  const throughWay = () => server.url.replace(`:${server.port}`, `:${way.port}`);
  beforeAll(async () => {
    way = await openUnreliableWay({ port: server.port });
  });
  afterAll(() => way.cut());

  it("that breaks makes what it brought lost; it comes again, and both ways go on by themselves", async () => {
    const prefix = newPrefix();
    await open({ prefix }).declare([subscription]);
    const broker = open({ prefix, url: throughWay() });
    const { delivered } = await consume(broker, () => {});
    await broker.publish([messageOf(1), messageOf(2)]);
    await poll(() => delivered.length).toBe(2);
    const [begun, waiting] = delivered.slice() as [BrokerDelivery, BrokerDelivery];
    expect(begun.begin()).toBe(true);
    await way.cut();
    await poll(() => [begun.isLost(), waiting.isLost(), waiting.begin()]).toEqual([true, true, false]);
    begun.ack();
    await way.open();
    await poll(() => numbers(delivered)).toEqual([1, 2, 1, 2]);
    expect(delivered.slice(2).map(({ isRepeated }) => isRepeated)).toEqual([true, true]);
    await broker.publish([messageOf(3)]);
    await poll(() => numbers(delivered)).toEqual([1, 2, 1, 2, 3]);
  });

  it("that falls silent ends a call in time, and what was under way neither is lost nor overtaken", async () => {
    const prefix = newPrefix();
    await open({ prefix }).declare([subscription]);
    const broker = open({ prefix, url: throughWay(), publishMs: 1_000 });
    await broker.publish([messageOf(0)]);
    const batch = Array.from({ length: 50 }, (_, index) => messageOf(index + 1));
    way.silence(true);
    const since = performance.now();
    await expect(broker.publish(batch)).rejects.toMatchObject({ code: "BROKER_UNREACHABLE" });
    expect(performance.now() - since).toBeLessThan(2_500);
    way.silence(false);
    await poll(() =>
      broker.publish(batch).then(
        () => "taken",
        () => "not taken",
      ),
    ).toBe("taken");
    const { delivered } = await consume(open({ prefix }), settle);
    await poll(() => new Set(numbers(delivered)).size).toBe(51);
    expect([...new Set(numbers(delivered))]).toEqual(Array.from({ length: 51 }, (_, index) => index));
  });
});

describe("RabbitMQ", () => {
  it("that is frozen ends calls in time, and goes on where it was", async () => {
    const broker = open({ prefix: newPrefix(), publishMs: 1_000 });
    await broker.declare([subscription]);
    const { delivered } = await consume(broker, settle);
    await broker.publish([messageOf(1)]);
    await poll(() => delivered.length).toBe(1);
    server.freeze(true);
    try {
      const calls = [broker.publish([messageOf(2)]), broker.check(), broker.declare([subscription])];
      for (const call of calls) await expect(call).rejects.toMatchObject({ code: "BROKER_UNREACHABLE" });
    } finally {
      server.freeze(false);
    }
    await poll(() =>
      broker.publish([messageOf(3)]).then(
        () => "taken",
        () => "not taken",
      ),
    ).toBe("taken");
    await poll(() => new Set(numbers(delivered)).has(3)).toBe(true);
  }, 40_000);

  it("that is low on memory takes no messages and says so; what it has is still delivered and settled", async () => {
    const broker = open({ prefix: newPrefix(), publishMs: 1_000 });
    await broker.declare([subscription]);
    await broker.publish([messageOf(1), messageOf(2), messageOf(3)]);
    await server.ctl("set_vm_memory_high_watermark", "absolute", "1MB");
    try {
      await poll(() =>
        broker.publish([messageOf(4)]).then(
          () => "",
          (error: Error) => error.message,
        ),
      ).toContain("takes no messages");
      const { delivered } = await consume(open({ prefix: `app${apps}` }), settle);
      await poll(() => numbers(delivered).slice(0, 3)).toEqual([1, 2, 3]);
    } finally {
      await server.ctl("set_vm_memory_high_watermark", "absolute", "512MB");
    }
    await poll(() =>
      broker.publish([messageOf(5)]).then(
        () => "taken",
        () => "not taken",
      ),
    ).toBe("taken");
  }, 40_000);
});

describe("a partition", () => {
  it("that changes hands several times before it is worked off keeps the order of a key", async () => {
    const prefix = newPrefix();
    await open({ prefix }).declare([subscription]);
    const publisher = open({ prefix });
    await publisher.publish(Array.from({ length: 60 }, (_, index) => messageOf(index)));
    const done: unknown[] = [];
    for (let turn = 0; turn < 4; turn++) {
      const broker = open({ prefix });
      const before = done.length;
      const { consumer } = await consume(
        broker,
        (delivery) => {
          if (done.length - before >= 3 || !delivery.begin()) return;
          done.push(delivery.message.payload);
          delivery.ack();
        },
        turn % 2 === 0 ? 20 : 5,
      );
      await poll(() => done.length - before).toBe(3);
      await consumer.close();
    }
    const { delivered } = await consume(open({ prefix }), settle);
    await poll(() => done.length + delivered.length).toBe(60);
    expect([...done, ...numbers(delivered)]).toEqual(Array.from({ length: 60 }, (_, index) => index));
  });
});

describe("a handler that is paused", () => {
  it("for a minute lets go of what it was brought, and has it again when it resumes", async () => {
    const prefix = newPrefix();
    let aheadMs = 0;
    const clock = { now: () => Date.now(), monotonic: () => performance.now() + aheadMs };
    const broker = open({ prefix, clock });
    await broker.declare([subscription]);
    await broker.publish([messageOf(1), messageOf(2)]);
    const { consumer, delivered } = await consume(broker, () => {});
    await poll(() => delivered.length).toBe(2);
    consumer.pause(subscription.handler);
    const [first] = delivered as [BrokerDelivery];
    expect(first.begin()).toBe(false);
    const ready = async () => {
      const answers = await Promise.all(
        [0, 1].map((partition) => admin.queueDeclare({ queue: `${prefix}.work.note.${partition}`, passive: true })),
      );
      return answers.flatMap(({ messageCount, consumerCount }) => [messageCount, consumerCount]);
    };
    expect((await ready()).filter((count) => count > 0)).toEqual([1, 1]);
    aheadMs = 61_000;
    await poll(async () => (await ready()).sort()).toEqual([0, 0, 0, 2]);
    consumer.resume(subscription.handler);
    await poll(() => numbers(delivered)).toEqual([1, 2, 1, 2]);
  });
});
