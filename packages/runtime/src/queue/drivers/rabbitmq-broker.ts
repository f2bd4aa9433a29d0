/**
 * RabbitMQ as a broker: quorum queues, publisher confirms, one consumer a queue. See `rabbitmq-topology.ts` for what is declared,
 * `rabbitmq-members.ts` for who consumes what, `rabbitmq-lane.ts` and `rabbitmq-subscription.ts` for how the order of a key is kept.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { RungsError } from "../../kernel/errors.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { type Random, systemRandom, uuidV7 } from "../../kernel/random.ts";
import {
  type Broker,
  type BrokerBacklog,
  type BrokerConsumer,
  type BrokerMessage,
  type ConsumeOptions,
  partitionsDefault,
  type Subscription,
} from "../broker.ts";
import { parseRabbitmqAddress } from "./rabbitmq-address.ts";
import { RabbitmqConsumer } from "./rabbitmq-consumer.ts";
import { type RabbitmqDeadLetters, rabbitmqDeadLetters } from "./rabbitmq-dead-letters.ts";
import { closeQuietly, RabbitmqLink } from "./rabbitmq-link.ts";
import { RabbitmqMembers } from "./rabbitmq-members.ts";
import { RabbitmqPublisher } from "./rabbitmq-publisher.ts";
import {
  declareTopology,
  isMissing,
  type RabbitmqNames,
  rabbitmqNames,
  rememberedMsDefault,
  waitingMessages,
} from "./rabbitmq-topology.ts";

export interface RabbitmqBrokerOptions {
  /** `amqp://user:password@host:5672/vhost`, or `amqps`; several hosts with commas between. */
  readonly url: string;
  /** Certificates that sign the servers', in PEM; default those Node trusts. */
  readonly ca?: string;
  /** Before every name in RabbitMQ; apps that share one need different ones. Default "rungs". */
  readonly prefix?: string;
  /** Queues a handler, the same in all processes. Default 8. */
  readonly partitions?: number;
  /** Longest time of one call of `publish`; default 10,000 ms. */
  readonly publishMs?: number;
  /** Wait after queues were made for the first time, until a node that crashes remembers them; default 1,500 ms. */
  readonly rememberedMs?: number;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** The broker, with what RabbitMQ alone has. */
export interface RabbitmqBroker extends Broker {
  readonly dead: RabbitmqDeadLetters;
}

/**
 * Makes the broker; it connects when it is first used. Raises `CONFIG_INVALID` for an address or prefix that cannot be used; its calls
 * raise `PACKAGE_MISSING` without the package rabbitmq-client, `BROKER_UNREACHABLE`, and `BROKER_UNROUTABLE` for messages of an event of
 * which no handler was ever declared.
 *
 * @example
 * const broker = rabbitmqBroker({ url: "amqp://app:secret@mq.internal:5672/" });
 * await broker.declare([{ event: "article.published", handler: "feeds.fanOut" }]);
 */
export function rabbitmqBroker(options: RabbitmqBrokerOptions): RabbitmqBroker {
  return new Rabbitmq(options);
}

/** Until a process that only asks has heard of the others. */
const listenMs = 300;

class Rabbitmq implements RabbitmqBroker {
  readonly name = "RabbitMQ";
  readonly dead: RabbitmqDeadLetters;
  private readonly names: RabbitmqNames;
  private readonly partitions: number;
  private readonly rememberedMs: number;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly random: Random;
  /** RabbitMQ stops reading from connections that publish when it is low on memory or disk. */
  private readonly publishing: RabbitmqLink;
  private readonly consuming: RabbitmqLink;
  private readonly publisher: RabbitmqPublisher;
  private readonly declared = new Map<string, Subscription>();
  private readonly consumers = new Set<RabbitmqConsumer>();
  private listening: Promise<RabbitmqMembers> | undefined;
  private isDeclarationGone = false;

  constructor(options: RabbitmqBrokerOptions) {
    const { prefix = "rungs", partitions = partitionsDefault, log = silentLogger, publishMs = 10_000 } = options;
    const { url, ca } = options;
    const address = { ...parseRabbitmqAddress(url), ...(ca === undefined ? {} : { ca }) };
    this.names = rabbitmqNames(prefix);
    this.partitions = partitions;
    this.rememberedMs = options.rememberedMs ?? rememberedMsDefault;
    this.log = log;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
    this.publishing = new RabbitmqLink({ address, name: `${prefix} publishing`, log });
    this.consuming = new RabbitmqLink({ address, name: `${prefix} consuming`, log });
    this.publisher = new RabbitmqPublisher({ link: this.publishing, names: this.names, partitions, publishMs });
    this.dead = rabbitmqDeadLetters(this.publishing, this.names);
  }

  async declare(subscriptions: readonly Subscription[]): Promise<void> {
    for (const subscription of subscriptions) this.declared.set(subscription.handler, subscription);
    const { names, partitions, publishing: link, rememberedMs } = this;
    await declareTopology({ link, names, partitions, subscriptions, rememberedMs });
  }

  async publish(messages: readonly BrokerMessage[]): Promise<void> {
    if (this.isDeclarationGone) {
      await this.declare([...this.declared.values()]);
      this.isDeclarationGone = false;
    }
    try {
      await this.publisher.publish(messages);
    } catch (error) {
      // Somebody deleted queues: the next try makes them anew.
      if (error instanceof RungsError && error.code === "BROKER_UNROUTABLE") this.isDeclarationGone = true;
      throw error;
    }
  }

  async consume(options: ConsumeOptions): Promise<BrokerConsumer> {
    const { names, partitions, clock, random, log } = this;
    const consumer = new RabbitmqConsumer({
      ...options,
      ...{ link: this.consuming, controlLink: this.publishing, names, partitions, clock, random, log },
      onClose: (closed) => this.consumers.delete(closed),
    });
    this.consumers.add(consumer);
    try {
      await consumer.members.start();
    } catch (error) {
      await consumer.close();
      throw error;
    }
    return consumer;
  }

  async backlog(subscriptions: readonly Subscription[]): Promise<BrokerBacklog[]> {
    const { publishing: link, names, partitions } = this;
    const members = await this.listen().catch((error: unknown) => {
      // Nothing was ever declared, so nobody holds anything.
      if (isMissing(error)) return undefined;
      throw error;
    });
    return Promise.all(
      subscriptions.map(async ({ handler }) => {
        const waiting = await waitingMessages({ link, names, partitions, handler });
        return { handler, messages: (waiting ?? 0) + (members?.heldOf(handler) ?? 0) };
      }),
    );
  }

  async check(): Promise<void> {
    closeQuietly(await this.publishing.channel());
  }

  async close(): Promise<void> {
    await Promise.all([...this.consumers].map((consumer) => consumer.close()));
    (await this.listening?.catch(() => undefined))?.close();
    this.publisher.close();
    await Promise.all([this.publishing.close(), this.consuming.close()]);
  }

  private async listen(): Promise<RabbitmqMembers> {
    const [consumer] = this.consumers;
    if (consumer !== undefined) return consumer.members;
    const { publishing: link, names, clock, random } = this;
    this.listening ??= (async () => {
      const members = new RabbitmqMembers({ link, names, clock, random, member: uuidV7(clock, random) });
      await members.start();
      await sleep(listenMs);
      return members;
    })().catch((error: unknown) => {
      this.listening = undefined;
      throw error;
    });
    return this.listening;
  }
}
