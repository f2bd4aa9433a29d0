/**
 * Kafka as a broker: a topic an event, a consumer group a handler.
 *
 * `kafka-publisher.ts` puts messages in. Of each handler with a subscription, `kafka-membership.ts` is this process's place in the group,
 * `kafka-handler.ts` its partitions, `kafka-sequence.ts` what is under way in one of them, and `kafka-progress.ts` what a commit says.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError, RungsError, UnavailableError } from "../../kernel/errors.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { type Random, systemRandom } from "../../kernel/random.ts";
import {
  type Broker,
  type BrokerBacklog,
  type BrokerConsumer,
  type BrokerMessage,
  type ConsumeOptions,
  partitionsDefault,
  type Subscription,
} from "../broker.ts";
import { partitionOf } from "../partition.ts";
import { type KafkaAddress, parseKafkaAddress } from "./kafka-address.ts";
import { KafkaCluster, type KafkaTimes } from "./kafka-cluster.ts";
import { brokerUnreachable, KafkaAnswerError, KafkaLinkError, kafkaErrors } from "./kafka-errors.ts";
import { beginGroup, countWaiting, type HandlerGroup, rewindGroup } from "./kafka-groups.ts";
import { KafkaHandler } from "./kafka-handler.ts";
import { loadKafka } from "./kafka-load.ts";
import { KafkaPublisher } from "./kafka-publisher.ts";
import { recordOf } from "./kafka-record.ts";
import { createTopics } from "./kafka-topics.ts";

export interface KafkaBrokerOptions {
  /** `kafka://user:password@host:9092,host2:9092`; `kafka+ssl` speaks TLS. See `kafka-address.ts`. */
  readonly url: string;
  /** Certificates that sign the brokers', in PEM; default those Node trusts. */
  readonly ca?: string;
  /** Before every topic and group; apps that share a cluster need different ones. Default "rungs". */
  readonly prefix?: string;
  /** Partitions of topics that are made, and those that keys map to. Default 8. */
  readonly partitions?: number;
  /** Longest time of one call of `publish`; default 10,000 ms. */
  readonly publishMs?: number;
  /** Longest time of the other calls; default 10,000 ms. */
  readonly callMs?: number;
  /** Without a sign of life for this long a process's partitions go to others; 6,000 ms is the least that brokers allow by default. */
  readonly sessionMs?: number;
  /** Between signs of life; default 500 ms. */
  readonly heartbeatMs?: number;
  readonly times?: Partial<KafkaTimes>;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** The broker, with what Kafka alone can do. */
export interface KafkaBroker extends Broker {
  /**
   * Puts a handler back to the first message of a time or later: everything since comes again, to be handled anew unless its inbox
   * rows say that it was. Raises `HANDLER_AT_WORK` while a process works on the handler, and `BROKER_UNREACHABLE`.
   */
  replay(subscription: Subscription, options: { readonly from: Date }): Promise<void>;
}

interface Opened {
  readonly cluster: KafkaCluster;
  readonly publisher: KafkaPublisher;
}

const graceMsDefault = 10_000;
const retryMs = 100;
const closeMs = 1_000;

/**
 * Makes the broker; it connects when it is first used. Raises `CONFIG_INVALID` for an address or prefix that cannot be used; its calls
 * raise `PACKAGE_MISSING` without the package @platformatic/kafka, `BROKER_UNREACHABLE`, and `BROKER_UNROUTABLE` for messages of an
 * event of which no handler was ever declared.
 *
 * @example
 * const broker = kafkaBroker({ url: "kafka://app:secret@kafka-1.internal,kafka-2.internal" });
 * await broker.declare([{ event: "article.published", handler: "feeds.fanOut" }]);
 */
export function kafkaBroker(options: KafkaBrokerOptions): KafkaBroker {
  return new Kafka(options);
}

class Kafka implements KafkaBroker {
  readonly name = "Kafka";
  private readonly options: KafkaBrokerOptions;
  private readonly address: KafkaAddress;
  private readonly prefix: string;
  private readonly partitions: number;
  private readonly callMs: number;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly consumers = new Set<KafkaConsumer>();
  private opening: Promise<Opened> | undefined;
  private isClosed = false;

  constructor(options: KafkaBrokerOptions) {
    const { prefix = "rungs", partitions = partitionsDefault, callMs = 10_000 } = options;
    if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,60}$/.test(prefix)) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `The prefix "${prefix}" must be 1 to 61 of letters, digits, ".", "_" and "-".`,
      );
    }
    this.options = options;
    this.address = parseKafkaAddress(options.url);
    this.prefix = prefix;
    this.partitions = partitions;
    this.callMs = callMs;
    this.log = options.log ?? silentLogger;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
  }

  declare(subscriptions: readonly Subscription[]): Promise<void> {
    return this.withinTime("declare topics", async ({ cluster }) => {
      const topics = [...new Set(subscriptions.map(({ event }) => this.topicOf(event)))];
      await createTopics({ cluster, topics, partitions: this.partitions, log: this.log });
      for (const subscription of subscriptions) await beginGroup(this.groupOf(cluster, subscription));
    });
  }

  async publish(messages: readonly BrokerMessage[]): Promise<void> {
    const { cluster, publisher } = await this.open();
    try {
      const { leaders } = await cluster.look([...new Set(messages.map(({ event }) => this.topicOf(event)))]);
      const records = messages.map((message) => {
        const topic = this.topicOf(message.event);
        // More partitions than asked for are read, but keys stay where they are.
        const count = Math.max(1, Math.min(this.partitions, leaders.get(topic)?.length ?? 1));
        return { topic, partition: partitionOf(message, count), ...recordOf(message) };
      });
      await publisher.send(records);
    } catch (error) {
      if (error instanceof KafkaAnswerError && error.code === kafkaErrors.unknownTopic) {
        const message = `No handler of it was ever declared: ${error.message}. Start a process with a handler of the event.`;
        throw new UnavailableError("BROKER_UNROUTABLE", message, { canRetry: true, cause: error });
      }
      throw this.raised("store messages", error);
    }
  }

  async consume(options: ConsumeOptions): Promise<BrokerConsumer> {
    const { cluster } = await this.open();
    await this.check();
    const { log, random } = this;
    const { sessionMs = 6_000, heartbeatMs = 500 } = this.options;
    const { deliver, graceMs = graceMsDefault } = options;
    const handlers = options.subscriptions.map(({ event, handler, room }): [string, KafkaHandler] => [
      handler,
      new KafkaHandler({
        ...this.groupOf(cluster, { event, handler }),
        ...{ deliver, event, graceMs, handler, heartbeatMs, log, random, room, sessionMs },
      }),
    ]);
    const consumer = new KafkaConsumer(new Map(handlers), (closed) => this.consumers.delete(closed));
    this.consumers.add(consumer);
    return consumer;
  }

  backlog(subscriptions: readonly Subscription[]): Promise<BrokerBacklog[]> {
    return this.withinTime("count messages", ({ cluster }) =>
      Promise.all(
        subscriptions.map(async (subscription) => ({
          handler: subscription.handler,
          messages: await countWaiting(this.groupOf(cluster, subscription)),
        })),
      ),
    );
  }

  async check(): Promise<void> {
    const { cluster } = await this.open();
    try {
      await cluster.anyBroker((link) => link.ask(cluster.kafka.metadata, [[], false, false], cluster.times.requestMs));
    } catch (error) {
      throw this.raised("be asked", error);
    }
  }

  async replay(subscription: Subscription, { from }: { readonly from: Date }): Promise<void> {
    await this.withinTime("set offsets", ({ cluster }) =>
      rewindGroup(this.groupOf(cluster, subscription), from.getTime()),
    );
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await Promise.all([...this.consumers].map((consumer) => consumer.close()));
    const opened = await this.opening?.catch(() => undefined);
    // What is under way may still come through; what waits for a Kafka that does not answer will not.
    await Promise.race([opened?.publisher.close(), sleep(closeMs, undefined, { ref: false })]);
    opened?.cluster.close();
  }

  private topicOf(event: string): string {
    return `${this.prefix}.${event}`;
  }

  private groupOf(cluster: KafkaCluster, { event, handler }: Subscription): HandlerGroup {
    return { cluster, group: `${this.prefix}.${handler}`, topic: this.topicOf(event) };
  }

  private open(): Promise<Opened> {
    this.opening ??= this.connect().catch((error: unknown) => {
      this.opening = undefined;
      throw error;
    });
    return this.opening;
  }

  private async connect(): Promise<Opened> {
    const { address, clock, log, random, options } = this;
    const kafka = await loadKafka();
    const cluster = new KafkaCluster({
      ...{ kafka, address, clock, ca: options.ca, clientId: this.prefix, nodes: address.nodes },
      times: { connectMs: 3_000, requestMs: 5_000, ...options.times },
    });
    return { cluster, publisher: new KafkaPublisher({ cluster, publishMs: options.publishMs ?? 10_000, log, random }) };
  }

  /** Tries until it works or the time is over. */
  private async withinTime<Result>(what: string, work: (opened: Opened) => Promise<Result>): Promise<Result> {
    const opened = await this.open();
    const giveUpAt = this.clock.monotonic() + this.callMs;
    for (;;) {
      try {
        return await work(opened);
      } catch (error) {
        const isForGood = !(error instanceof KafkaAnswerError || error instanceof KafkaLinkError);
        if (isForGood || this.isClosed || this.clock.monotonic() > giveUpAt) throw this.raised(what, error);
        opened.cluster.forget();
        await sleep(retryMs);
      }
    }
  }

  private raised(what: string, error: unknown): unknown {
    return error instanceof RungsError ? error : brokerUnreachable(what, error);
  }
}

class KafkaConsumer implements BrokerConsumer {
  private readonly handlers: ReadonlyMap<string, KafkaHandler>;
  private readonly onClose: (consumer: KafkaConsumer) => void;
  private closing: Promise<void> | undefined;

  constructor(handlers: ReadonlyMap<string, KafkaHandler>, onClose: (consumer: KafkaConsumer) => void) {
    this.handlers = handlers;
    this.onClose = onClose;
  }

  pause(handler: string): void {
    this.handlers.get(handler)?.pause();
  }

  resume(handler: string): void {
    this.handlers.get(handler)?.resume();
  }

  close(): Promise<void> {
    this.closing ??= Promise.all([...this.handlers.values()].map((handler) => handler.close())).then(() =>
      this.onClose(this),
    );
    return this.closing;
  }
}
