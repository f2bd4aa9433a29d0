/**
 * Processes that join, leave, pause, lose their connections or find them silent, at random, while messages of many keys pass through
 * RabbitMQ: nothing is lost, and each key's messages are begun in order. `RABBITMQ_CHAOS_SEED` replays, `RABBITMQ_CHAOS_SECONDS` prolongs.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { seededRandom, systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import type { BrokerConsumer, BrokerDelivery, BrokerMessage } from "../../src/queue/broker.ts";
import { type RabbitmqBroker, rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";

const seed = Number(process.env["RABBITMQ_CHAOS_SEED"] ?? Date.now() % 2 ** 31);
const seconds = Number(process.env["RABBITMQ_CHAOS_SECONDS"] ?? 8);
const random = seededRandom(seed);
const upTo = (max: number) => random.next() * max;

const subscription = { event: "thing.happened", handler: "work.note" };
const keys = Array.from({ length: 25 }, (_, index) => `k${index}`);
/** Messages under way at once. */
const waitingMax = 1_000;

let server: TestRabbitmq;
beforeAll(async () => {
  server = await startTestRabbitmq();
}, 90_000);
afterAll(() => server?.stop(), 30_000);

/** What all processes together have begun, and done. */
class Ledger {
  readonly done = new Set<string>();
  readonly breaches: string[] = [];
  private readonly begun = new Set<string>();
  private readonly latest = new Map<string, number>();

  noteBegun({ id, key, payload }: BrokerMessage): void {
    if (this.begun.has(id)) return;
    this.begun.add(id);
    const latest = this.latest.get(key as string) ?? -1;
    if (payload !== latest + 1) this.breaches.push(`${key}: ${payload} after ${latest}`);
    this.latest.set(key as string, Math.max(latest, payload as number));
  }
}

interface Process {
  readonly way: UnreliableWay;
  readonly broker: RabbitmqBroker;
  readonly consumer: BrokerConsumer;
}

async function openBroker(): Promise<{ readonly way: UnreliableWay; readonly broker: RabbitmqBroker }> {
  const way = await openUnreliableWay({ port: server.port });
  const url = server.url.replace(`:${server.port}`, `:${way.port}`);
  return { way, broker: rabbitmqBroker({ url, partitions: 6, publishMs: 3_000 }) };
}

async function startProcess(ledger: Ledger): Promise<Process> {
  const { way, broker } = await openBroker();
  const chains = new Map<string, Promise<void>>();
  const work = async (delivery: BrokerDelivery) => {
    if (!delivery.begin()) return;
    ledger.noteBegun(delivery.message);
    await sleep(upTo(4));
    if (delivery.isLost()) return;
    if (random.next() < 0.05) return delivery.handBack();
    delivery.ack();
    ledger.done.add(delivery.message.id);
  };
  const consumer = await broker.consume({
    subscriptions: [{ ...subscription, room: 5 + Math.floor(upTo(30)) }],
    graceMs: 3_000,
    deliver: (delivery) => {
      const key = delivery.message.key as string;
      chains.set(
        key,
        (chains.get(key) ?? Promise.resolve()).then(() => work(delivery)),
      );
    },
  });
  return { way, broker, consumer };
}

/** As the relay does: the same messages again until they are confirmed. */
async function publishUntil(isOver: () => boolean, broker: RabbitmqBroker, ledger: Ledger): Promise<string[]> {
  const sent: string[] = [];
  for (let number = 0; !isOver(); number++) {
    const messages = keys.map((key): BrokerMessage => {
      const id = uuidV7(systemClock, systemRandom);
      return { id, event: subscription.event, version: 1, key, payload: number, publishedAt: new Date(), shard: 0 };
    });
    while (
      !(await broker.publish(messages).then(
        () => true,
        () => false,
      ))
    )
      await sleep(50);
    sent.push(...messages.map(({ id }) => id));
    while (sent.length - ledger.done.size > waitingMax && !isOver()) await sleep(10);
    await sleep(5);
  }
  return sent;
}

it(
  "loses nothing and keeps the order of every key while processes and connections come and go",
  async () => {
    console.info(`RABBITMQ_CHAOS_SEED=${seed}`);
    const ledger = new Ledger();
    const publisher = await openBroker();
    await publisher.broker.declare([subscription]);
    let processes = [await startProcess(ledger), await startProcess(ledger)];
    let isOver = false;
    const publishing = publishUntil(() => isOver, publisher.broker, ledger);
    const cut = async ({ way }: { readonly way: UnreliableWay }) => {
      await way.cut();
      await sleep(upTo(500));
      await way.open();
    };
    const end = performance.now() + seconds * 1_000;
    while (performance.now() < end) {
      await sleep(100 + upTo(500));
      const one = processes[Math.floor(upTo(processes.length))] as Process;
      const dice = random.next();
      if (dice < 0.2 && processes.length < 5) processes.push(await startProcess(ledger));
      else if (dice < 0.4 && processes.length > 1) {
        processes = processes.filter((each) => each !== one);
        await one.broker.close();
        await one.way.cut();
      } else if (dice < 0.6) await cut(one);
      else if (dice < 0.7) await cut(publisher);
      else if (dice < 0.85) {
        one.way.silence(true);
        await sleep(upTo(1_000));
        one.way.silence(false);
      } else {
        one.consumer.pause(subscription.handler);
        await sleep(upTo(500));
        one.consumer.resume(subscription.handler);
      }
    }
    isOver = true;
    const sent = await publishing;
    await expect.poll(() => sent.filter((id) => !ledger.done.has(id)).length, { timeout: 30_000 }).toBe(0);
    expect(ledger.breaches).toEqual([]);
    expect(sent.length).toBeGreaterThan(500);
    expect(await publisher.broker.dead.count()).toBe(0);
    for (const { broker, way } of [...processes, publisher]) {
      await broker.close();
      await way.cut();
    }
  },
  60_000 + seconds * 1_000,
);
