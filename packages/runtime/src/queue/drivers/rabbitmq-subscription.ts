/**
 * One partition of one handler in this process: a channel with one consumer.
 *
 * - *open*: consumes. The queue delivers to its first consumer only, and to the next when that is gone.
 * - *lost*: the channel broke; what it brought is lost and comes again. Opened anew after a while, for as long as the partition is ours.
 * - *yield*: the partition goes to another process. Nothing further is begun; when what was begun is settled, the channel is closed. The
 *   consumer is not cancelled before: the queue would give the next process what comes behind the messages that are still under way
 *   here. A closed channel's messages return in order, before the queue turns to its next consumer.
 */
import type { Random } from "../../kernel/random.ts";
import type { AmqpChannel, AmqpMessage } from "./rabbitmq-client.ts";
import { type Lane, PartitionBuffer } from "./rabbitmq-lane.ts";
import { closeQuietly, codeOf, commandMs, type RabbitmqLink, within } from "./rabbitmq-link.ts";
import { decodeMessage } from "./rabbitmq-message.ts";

/**
 * Unsettled deliveries of one partition in one process. The same everywhere, because RabbitMQ keeps returned messages in a line of their
 * own and adds to its end: a process that took fewer of them than the one before had, and then died, would return the first ones behind
 * the rest. Never to be lowered. As much as the usual room of a handler.
 */
export const prefetch = 20;

const reopenMs = { first: 100, max: 2_000 };
const closeMs = 2_000;

export interface RabbitmqSubscriptionOptions {
  readonly link: RabbitmqLink;
  readonly lane: Lane;
  readonly queue: string;
  /** Makes the queue when it is gone. */
  readonly declare: () => Promise<void>;
  readonly random: Random;
  /** Hears of messages that cannot be read; they go to the dead ones. */
  readonly onUnreadable: () => void;
}

export class RabbitmqSubscription {
  private readonly options: RabbitmqSubscriptionOptions;
  private channel: AmqpChannel | undefined;
  private buffer: PartitionBuffer | undefined;
  private opening: Promise<void> | undefined;
  private retryTimer: NodeJS.Timeout | undefined;
  private failuresInRow = 0;
  private isEnded = false;

  constructor(options: RabbitmqSubscriptionOptions) {
    this.options = options;
    this.open();
  }

  /** Resolves when another process may work on the partition. */
  async yield(graceMs: number): Promise<void> {
    this.end();
    await this.opening;
    if (this.buffer !== undefined) await this.options.lane.yield(this.buffer, graceMs);
    await this.close();
  }

  /** Gives it up at once: what is not settled is lost. */
  async close(): Promise<void> {
    this.end();
    await this.opening;
    const { channel } = this;
    this.drop();
    if (channel !== undefined) await within(channel.close(), closeMs).catch(() => {});
  }

  private end(): void {
    this.isEnded = true;
    clearTimeout(this.retryTimer);
  }

  private open(): void {
    this.opening = this.tryToOpen().catch(() => this.openLater());
  }

  private async tryToOpen(): Promise<void> {
    const { link, lane, queue } = this.options;
    const channel = await link.channel();
    if (this.isEnded) return closeQuietly(channel);
    const buffer = new PartitionBuffer((deliveryTag) => channel.basicAck({ deliveryTag }));
    this.channel = channel;
    this.buffer = buffer;
    lane.add(buffer);
    channel.on("close", () => {
      if (this.channel !== channel) return;
      this.drop();
      this.openLater();
    });
    // The queue was deleted, or its node is gone.
    channel.on("basic.cancel", () => closeQuietly(channel));
    try {
      const consumed = Promise.all([
        channel.basicQos({ prefetchCount: prefetch }),
        channel.basicConsume({ queue }, (message) => this.receive(channel, buffer, message)),
      ]);
      await within(consumed, commandMs);
      this.failuresInRow = 0;
    } catch (error) {
      if (codeOf(error) === "NOT_FOUND") await this.options.declare().catch(() => {});
      closeQuietly(channel);
    }
  }

  private openLater(): void {
    if (this.isEnded) return;
    clearTimeout(this.retryTimer);
    const { first, max } = reopenMs;
    const waitMs = Math.min(max, first * 2 ** Math.min(this.failuresInRow++, 10)) * (0.5 + this.options.random.next());
    this.retryTimer = setTimeout(() => this.open(), waitMs).unref();
  }

  private drop(): void {
    const { buffer } = this;
    this.channel = undefined;
    this.buffer = undefined;
    if (buffer !== undefined) this.options.lane.remove(buffer);
  }

  private receive(channel: AmqpChannel, buffer: PartitionBuffer, raw: AmqpMessage): void {
    const { lane, onUnreadable } = this.options;
    if (this.channel !== channel) return;
    const message = decodeMessage(raw);
    if (message !== undefined) {
      lane.arrived(buffer, { message, tag: raw.deliveryTag, isRepeated: raw.redelivered });
      return;
    }
    onUnreadable();
    try {
      channel.basicNack({ deliveryTag: raw.deliveryTag, requeue: false });
    } catch {
      // The channel is closed: it comes again.
    }
  }
}
