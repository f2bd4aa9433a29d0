/** What of Kafka no contract of brokers knows: offsets, hand-overs, more partitions than asked for, replays, a frozen server. */
import { startTestKafka, type TestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { makeTestCertificates } from "@rungs/contract/test-redis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import type { BrokerDelivery, BrokerMessage } from "../../src/queue/broker.ts";
import { type KafkaBroker, type KafkaBrokerOptions, kafkaBroker } from "../../src/queue/drivers/kafka-broker.ts";

const missing = whyNoKafka();
const noted = { event: "thing.happened", handler: "work.note" };

describe.skipIf(missing !== undefined)(`Kafka's own ways${missing === undefined ? "" : `: ${missing}`}`, () => {
  let kafka: TestKafka;
  let apps = 0;
  let prefix = "";
  const brokers: KafkaBroker[] = [];

  let certificates: Awaited<ReturnType<typeof makeTestCertificates>>;

  beforeAll(async () => {
    certificates = await makeTestCertificates();
    const { "tls-key-file": keyFile, "tls-cert-file": certificateFile } = certificates.settings;
    kafka = await startTestKafka({
      certificate: { keyFile, certificateFile } as Record<"keyFile" | "certificateFile", string>,
    });
  }, 120_000);
  afterEach(async () => {
    await Promise.all(brokers.splice(0).map((broker) => broker.close()));
  });
  afterAll(async () => {
    await kafka?.stop();
    await certificates?.remove();
  });

  /** A process of the test's app. */
  function open(options: Partial<KafkaBrokerOptions> = {}): KafkaBroker {
    const times = { publishMs: 3_000, sessionMs: 2_000, heartbeatMs: 100 };
    const broker = kafkaBroker({ url: kafka.url, prefix, partitions: 2, ...times, ...options });
    brokers.push(broker);
    return broker;
  }

  /** The first process of an app of its own, with its handler declared. */
  async function openApp(options: Partial<KafkaBrokerOptions> = {}): Promise<KafkaBroker> {
    prefix = `app${++apps}`;
    const broker = open(options);
    await broker.declare([noted]);
    return broker;
  }

  /** Consumes in one more process; gives what it is delivered, in order. */
  async function consume(work: (delivery: BrokerDelivery) => void = () => {}, room = 20, graceMs = 10_000) {
    const delivered: BrokerDelivery[] = [];
    const consumer = await open().consume({
      subscriptions: [{ ...noted, room }],
      graceMs,
      deliver: (delivery) => {
        delivered.push(delivery);
        work(delivery);
      },
    });
    return { consumer, delivered };
  }

  const acknowledge = (delivery: BrokerDelivery) => {
    if (delivery.begin()) delivery.ack();
  };
  const waiting = async (broker: KafkaBroker) => (await broker.backlog([noted]))[0]?.messages;

  it("commits below a message that is stuck, and nothing that was done above it comes again", async () => {
    const broker = await openApp();
    await broker.publish(some(40, () => "a key"));
    const first = await consume((delivery) => {
      if (numberOf(delivery) !== 3) acknowledge(delivery);
      else delivery.begin();
    });
    await until(async () => (await waiting(broker)) === 1);
    await first.consumer.close();
    await broker.publish(some(5, () => "a key", 40));
    const second = await consume(acknowledge);
    await until(() => second.delivered.length === 6);
    expect(second.delivered.map((delivery) => [numberOf(delivery), delivery.isRepeated])).toEqual([
      [3, true],
      ...[40, 41, 42, 43, 44].map((number) => [number, false]),
    ]);
    await until(async () => (await waiting(broker)) === 0);
  });

  it("repeats nothing after a clean hand-over, to one that joins and from one that leaves", async () => {
    const broker = await openApp();
    const done: BrokerDelivery[] = [];
    const slowly = (delivery: BrokerDelivery) => {
      setTimeout(() => {
        if (!delivery.begin()) return;
        done.push(delivery);
        delivery.ack();
      }, 5);
    };
    const publish = (round: number) => broker.publish(some(20, (index) => `key ${index}`, round * 20));
    const first = await consume(slowly, 4);
    let rounds = 0;
    const keepUp = async () => {
      await publish(rounds++);
      await until(() => done.length > (rounds - 4) * 20);
    };
    while (first.delivered.length < 20) await keepUp();
    const second = await consume(slowly, 4);
    while (second.delivered.length < 20) await keepUp();
    await first.consumer.close();
    await publish(rounds++);
    await until(() => new Set(done.map(({ message }) => message.id)).size === rounds * 20);
    expect(done).toHaveLength(rounds * 20);
    expect(done.filter(({ isRepeated }) => isRepeated)).toEqual([]);
  });

  it("waits for what was begun in a partition that is to move, but not for ever", async () => {
    const broker = await openApp();
    const first = await consume((delivery) => delivery.begin(), 20, 1_000);
    await broker.publish(some(8, (index) => `key ${index}`));
    await until(() => first.delivered.length === 8);
    const second = await consume(acknowledge);
    await until(() => first.delivered.some((delivery) => delivery.isLost()), 10_000);
    const lost = first.delivered.filter((delivery) => delivery.isLost());
    expect(lost.length).toBeLessThan(8);
    await until(() => second.delivered.length === lost.length);
    expect(second.delivered.every(({ isRepeated }) => isRepeated)).toBe(true);
    expect(idsOf(second.delivered)).toEqual(idsOf(lost));
  });

  it("keeps keys where they are on a topic with more partitions than asked for, and reads all of them", async () => {
    await openApp({ partitions: 6 });
    const broker = open();
    await broker.declare([noted]);
    const [more, fewer] = [open({ partitions: 6 }), broker];
    await more.publish(some(30, (index) => `key ${index}`));
    await fewer.publish(some(30, (index) => `key ${index}`, 30));
    const { delivered } = await consume(acknowledge);
    await until(() => delivered.length === 60);
    await until(async () => (await waiting(broker)) === 0);
  });

  it("puts a handler back to a time, once nobody works on it", async () => {
    const broker = await openApp();
    await broker.publish(some(3, () => "before"));
    const first = await consume(acknowledge);
    await until(() => first.delivered.length === 3);
    // Records carry the time at which they were stored, in whole ms.
    const storedBy = Date.now();
    await until(() => Date.now() > storedBy);
    const from = new Date();
    await broker.publish(some(4, () => "after", 3));
    await until(() => first.delivered.length === 7);
    await expect(broker.replay(noted, { from })).rejects.toMatchObject({ code: "HANDLER_AT_WORK" });
    await first.consumer.close();
    await broker.replay(noted, { from });
    const second = await consume(acknowledge);
    await until(() => second.delivered.length === 4);
    expect(second.delivered.map(numberOf)).toEqual([3, 4, 5, 6]);
    expect(second.delivered.some(({ isRepeated }) => isRepeated)).toBe(false);
  });

  it("says in time that Kafka is frozen, loses what a consumer held, and goes on by itself afterwards", async () => {
    const broker = await openApp({ times: { connectMs: 500, requestMs: 500 } });
    const { delivered } = await consume((delivery) => {
      if (numberOf(delivery) > 0) acknowledge(delivery);
      else delivery.begin();
    });
    await broker.publish(some(1, () => "a"));
    await until(() => delivered.length === 1);
    kafka.freeze(true);
    try {
      // Its threads stop one after the other.
      let since = performance.now();
      await until(() => {
        since = performance.now();
        return broker.publish(some(1, () => "a", 1)).then(isFalse, isUnreachable);
      });
      expect(performance.now() - since).toBeLessThan(6_000);
      await until(() => delivered[0]?.isLost() === true, 5_000);
    } finally {
      kafka.freeze(false);
    }
    await until(async () => broker.publish(some(1, () => "b", 2)).then(isTrue, isFalse), 10_000);
    await until(() => delivered.some((delivery) => numberOf(delivery) === 2), 20_000);
    const again = delivered.filter((delivery) => numberOf(delivery) === 0);
    expect(again.length).toBeGreaterThan(1);
    expect(again.slice(1).every(({ isRepeated }) => isRepeated)).toBe(true);
  });

  it("signs in over TLS, and neither trusts a stranger nor gets in with another password", async () => {
    const secure = kafka.secureUrl as string;
    const broker = await openApp({ url: secure, ca: certificates.ca });
    await broker.publish(some(3, () => "a"));
    const { delivered } = await consume(acknowledge);
    await until(() => delivered.length === 3);
    const refusals = { code: "BROKER_UNREACHABLE" };
    await expect(open({ url: secure }).check()).rejects.toMatchObject(refusals);
    const wrong = open({ url: secure.replace(/:[0-9a-f]{32}@/, ":wrong@"), ca: certificates.ca });
    await expect(wrong.check()).rejects.toMatchObject({ message: expect.not.stringContaining("wrong"), ...refusals });
  });

  it("says when it was never told of a handler of an event", async () => {
    const broker = await openApp();
    const [message] = some(1, () => null) as [BrokerMessage];
    await expect(broker.publish([{ ...message, event: "thing.unknown" }])).rejects.toMatchObject({
      code: "BROKER_UNROUTABLE",
    });
    await broker.publish([message]);
  });
});

const isTrue = () => true;
const isFalse = () => false;
const isUnreachable = (error: unknown) => {
  expect(error).toMatchObject({ code: "BROKER_UNREACHABLE" });
  return true;
};

function some(count: number, key: (index: number) => string | null, first = 0): BrokerMessage[] {
  return Array.from({ length: count }, (_, index) => ({
    ...{ id: uuidV7(systemClock, systemRandom), event: noted.event, version: 1, key: key(index), shard: 0 },
    payload: { number: first + index },
    publishedAt: new Date(),
  }));
}

function numberOf({ message }: BrokerDelivery): number {
  return (message.payload as { readonly number: number }).number;
}

function idsOf(deliveries: readonly BrokerDelivery[]): string[] {
  return deliveries.map(({ message }) => message.id).sort();
}

async function until(holds: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > giveUpAt) throw new Error(`Waited ${withinMs} ms in vain until ${holds}.`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
