/**
 * What is declared in RabbitMQ, by name:
 *
 * - `<prefix>.events`: direct exchange of all messages; the routing key is `<event>#<partition>`.
 * - `<prefix>.<handler>.<partition>`: a quorum queue a handler and partition, bound to its event's key. One consumer at a time.
 * - `<prefix>.dead`: exchange and quorum queue of what was delivered too often or could not be read. A backstop: failed tries are dealt
 *   with in the job tables.
 * - `<prefix>.members`: exchange on which processes say that they live; each listens with a queue `<prefix>.member.<id>` that ends with it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError, RungsError } from "../../kernel/errors.ts";
import type { Subscription } from "../broker.ts";
import type { AmqpArguments, AmqpChannel } from "./rabbitmq-client.ts";
import { codeOf, type RabbitmqLink } from "./rabbitmq-link.ts";

/** The names of one app in one RabbitMQ. */
export interface RabbitmqNames {
  readonly events: string;
  readonly members: string;
  readonly dead: string;
  member(id: string): string;
  queue(handler: string, partition: number): string;
  routingKey(event: string, partition: number): string;
}

/**
 * Deliveries of a message that ended without an answer, before it goes to the dead ones. Every process that dies, is redeployed or
 * loses its connection while it holds the message counts, whether it had begun it or not; one that begins it again moves it to the
 * job table at once. So what comes near this has nothing to do with the message's handler, which has a limit of its own.
 */
const deliveryLimit = 50;

/** Looking at dead messages counts as deliveries too, and must not drop any. */
const deadDeliveryLimit = 1_000_000;

/** Channels that declare side by side. */
const declarersMax = 8;

/**
 * Wait after queues were made. A node that crashes earlier forgets them and what they held, confirmed or not: RabbitMQ writes down at most
 * a second later which files belong to which quorum queue (ra_directory.erl: a table saved 500 ms after its last use). Measured
 * with 3.10: queues filled 0.3 and 0.7 s before a SIGKILL were lost, none 1.5 s before.
 */
export const rememberedMsDefault = 1_500;

/** Raises `CONFIG_INVALID` for a prefix that makes no good names. */
export function rabbitmqNames(prefix: string): RabbitmqNames {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,59}$/.test(prefix)) {
    const form = "1 to 60 of a-z, A-Z, 0-9, dot, _ and -, without a dot in front";
    throw new ConfigError("CONFIG_INVALID", `The prefix of names in RabbitMQ must be ${form}: "${prefix}".`);
  }
  return {
    events: `${prefix}.events`,
    members: `${prefix}.members`,
    dead: `${prefix}.dead`,
    member: (id) => `${prefix}.member.${id}`,
    queue: (handler, partition) => `${prefix}.${handler}.${partition}`,
    routingKey: (event, partition) => `${event}#${partition}`,
  };
}

/** Makes what is missing. Of several processes at once, one makes each thing and the others find it. */
export async function declareTopology(options: {
  readonly link: RabbitmqLink;
  readonly names: RabbitmqNames;
  readonly partitions: number;
  readonly subscriptions: readonly Subscription[];
  readonly rememberedMs: number;
}): Promise<void> {
  const { link, names, partitions, subscriptions, rememberedMs } = options;
  const counts = await Promise.all(
    subscriptions.map(({ handler }) => waitingMessages({ link, names, partitions, handler })),
  );
  await link.use("declare its exchanges", (channel) => declareExchanges(channel, names, partitions));
  const all = subscriptions.flatMap((subscription) =>
    Array.from({ length: partitions }, (_, partition) => ({ ...subscription, partition })),
  );
  const declarers = Math.min(declarersMax, all.length);
  await Promise.all(
    Array.from({ length: declarers }, (_, declarer) => {
      const share = all.filter((_, index) => index % declarers === declarer);
      return link.use("declare its queues", async (channel) => {
        for (const each of share) await declareQueue(channel, names, each);
      });
    }),
  );
  if (counts.includes(undefined)) await sleep(rememberedMs);
}

/** Messages in the queues of a handler, without what consumers hold; undefined when one of its queues is missing. */
export async function waitingMessages({
  link,
  names,
  partitions,
  handler,
}: {
  readonly link: RabbitmqLink;
  readonly names: RabbitmqNames;
  readonly partitions: number;
  readonly handler: string;
}): Promise<number | undefined> {
  try {
    return await link.use("count messages", async (channel) => {
      let count = 0;
      for (let partition = 0; partition < partitions; partition++) {
        const { messageCount } = await channel.queueDeclare({ queue: names.queue(handler, partition), passive: true });
        count += messageCount;
      }
      return count;
    });
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** What was asked about does not exist in RabbitMQ. */
export function isMissing(error: unknown): boolean {
  return error instanceof RungsError && codeOf(error.cause) === "NOT_FOUND";
}

/** Makes the queue of one partition, for a consumer that finds it gone. */
export async function declareQueue(
  channel: AmqpChannel,
  names: RabbitmqNames,
  { handler, event, partition }: Subscription & { readonly partition: number },
): Promise<void> {
  const queue = names.queue(handler, partition);
  const queueArguments: AmqpArguments = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": true,
    "x-delivery-limit": deliveryLimit,
    "x-dead-letter-exchange": names.dead,
    // A message leaves its queue only once it is in the other; asks for an overflow that refuses, though there is no limit to overflow.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    // Else all lead on the node that the first process was connected to.
    "x-queue-leader-locator": "balanced",
  };
  await channel.queueDeclare({ queue, durable: true, arguments: queueArguments });
  await channel.queueBind({ queue, exchange: names.events, routingKey: names.routingKey(event, partition) });
}

async function declareExchanges(channel: AmqpChannel, names: RabbitmqNames, partitions: number): Promise<void> {
  // The argument is there to be compared: processes that disagree on the number would break the order of keys, and are refused.
  await channel.exchangeDeclare({
    exchange: names.members,
    type: "fanout",
    durable: true,
    arguments: { "alternate-exchange": `${names.members}.of-${partitions}-partitions` },
  });
  await channel.exchangeDeclare({ exchange: names.events, type: "direct", durable: true });
  await channel.exchangeDeclare({ exchange: names.dead, type: "fanout", durable: true });
  await channel.queueDeclare({
    queue: names.dead,
    durable: true,
    arguments: { "x-queue-type": "quorum", "x-delivery-limit": deadDeliveryLimit },
  });
  await channel.queueBind({ queue: names.dead, exchange: names.dead });
}
