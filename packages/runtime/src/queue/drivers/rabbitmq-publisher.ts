/**
 * Puts messages into RabbitMQ and waits until it has confirmed them.
 *
 * All calls share one channel, which keeps the order in which they were sent. A channel that broke, or did not answer in time, is
 * given up, and the next call takes a new one. Then the same messages may still come in over the old one: both ways carry them in order
 * from the first unconfirmed one on, so that the first copies of a key's messages are in order too, and handlers ignore the second.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { UnavailableError } from "../../kernel/errors.ts";
import type { BrokerMessage } from "../broker.ts";
import { partitionOf } from "../partition.ts";
import type { AmqpChannel } from "./rabbitmq-client.ts";
import { closeQuietly, codeOf, commandMs, type RabbitmqLink, within } from "./rabbitmq-link.ts";
import { encodeMessage } from "./rabbitmq-message.ts";
import type { RabbitmqNames } from "./rabbitmq-topology.ts";

/** Messages sent and not yet confirmed, over all calls; of 64 KiB each that is 32 MiB. */
const unconfirmedMax = 500;
/** Most routing keys that an error names. */
const namedMax = 3;

interface ConfirmChannel {
  readonly channel: AmqpChannel;
  /** Ids of messages that no queue took. */
  readonly returned: Set<string>;
}

export class RabbitmqPublisher {
  private readonly link: RabbitmqLink;
  private readonly names: RabbitmqNames;
  private readonly partitions: number;
  private readonly publishMs: number;
  private opened: ConfirmChannel | undefined;
  private opening: Promise<ConfirmChannel> | undefined;
  private unconfirmed = 0;
  /** Of them, how many with each routing key: tells which queue it is that does not answer. */
  private readonly unconfirmedOf = new Map<string, number>();
  private readonly waiting: (() => void)[] = [];

  /** `publishMs`: longest time of one call. */
  constructor(options: {
    readonly link: RabbitmqLink;
    readonly names: RabbitmqNames;
    readonly partitions: number;
    readonly publishMs: number;
  }) {
    this.link = options.link;
    this.names = options.names;
    this.partitions = options.partitions;
    this.publishMs = options.publishMs;
  }

  /** Resolves when all are confirmed. Raises `BROKER_UNREACHABLE`, `BROKER_UNROUTABLE`. */
  async publish(messages: readonly BrokerMessage[]): Promise<void> {
    if (messages.length === 0) return;
    const to = await this.channel();
    const stop = new AbortController();
    try {
      await within(this.send(to, messages, stop.signal), this.publishMs);
    } catch (error) {
      stop.abort();
      const keys = [...this.unconfirmedOf.keys()].slice(0, namedMax);
      this.giveUp(to);
      // There is not even an exchange.
      if (codeOf(error) === "NOT_FOUND") throw unroutable(messages[0] as BrokerMessage);
      throw this.link.failure(keys.length === 0 ? "confirm messages" : `confirm messages to ${keys.join(", ")}`, error);
    }
    // The package tells of a return one turn later than of the confirm that follows it.
    await nextTurn();
    // All of them are forgotten: the next call may be of the same messages.
    const [lost] = messages.filter(({ id }) => to.returned.delete(id));
    if (lost !== undefined) throw unroutable(lost);
  }

  close(): void {
    if (this.opened !== undefined) this.giveUp(this.opened);
  }

  private async send(to: ConfirmChannel, messages: readonly BrokerMessage[], stop: AbortSignal): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    const confirms: Promise<void>[] = [];
    for (const message of messages) {
      while (this.unconfirmed >= unconfirmedMax && failure === undefined && !stop.aborted) {
        await new Promise<void>((resolve) => this.waiting.push(resolve));
      }
      if (failure !== undefined || stop.aborted) {
        // Whoever woke this one up meant to make room for a message.
        this.waiting.shift()?.();
        break;
      }
      confirms.push(
        this.sendOne(to.channel, message).catch((error: unknown) => {
          failure ??= { error };
        }),
      );
    }
    await Promise.all(confirms);
    if (failure !== undefined) throw failure.error;
  }

  private async sendOne(channel: AmqpChannel, message: BrokerMessage): Promise<void> {
    const { names } = this;
    const routingKey = names.routingKey(message.event, partitionOf(message, this.partitions));
    const { envelope, body } = encodeMessage(message, { exchange: names.events, routingKey });
    this.unconfirmed++;
    this.unconfirmedOf.set(routingKey, (this.unconfirmedOf.get(routingKey) ?? 0) + 1);
    try {
      await channel.basicPublish(envelope, body);
    } finally {
      this.unconfirmed--;
      const left = (this.unconfirmedOf.get(routingKey) ?? 1) - 1;
      if (left > 0) this.unconfirmedOf.set(routingKey, left);
      else this.unconfirmedOf.delete(routingKey);
      this.waiting.shift()?.();
    }
  }

  private async channel(): Promise<ConfirmChannel> {
    if (this.opened !== undefined) return this.opened;
    this.opening ??= this.open().finally(() => {
      this.opening = undefined;
    });
    return this.opening;
  }

  private async open(): Promise<ConfirmChannel> {
    const channel = await this.link.channel();
    const opened: ConfirmChannel = { channel, returned: new Set() };
    channel.on("close", () => this.giveUp(opened));
    channel.on("basic.return", ({ messageId = "" }) => opened.returned.add(messageId));
    try {
      await within(channel.confirmSelect(), commandMs);
    } catch (error) {
      closeQuietly(channel);
      throw this.link.failure("confirm messages", error);
    }
    this.opened = opened;
    return opened;
  }

  /** Whoever still waits on it learns it from its end. */
  private giveUp(which: ConfirmChannel): void {
    if (this.opened === which) this.opened = undefined;
    if (which.channel.active) closeQuietly(which.channel);
  }
}

function unroutable({ event, id }: BrokerMessage): UnavailableError {
  const message = `RabbitMQ has no queue for "${event}" and took no message of it, among them ${id}. Declare the event's handlers and publish again.`;
  return new UnavailableError("BROKER_UNROUTABLE", message, { canRetry: true });
}
