/**
 * What RabbitMQ set aside: messages that were delivered too often without an answer, and such as could not be read. Failed tries of
 * handlers are not here but in the job tables (`rungs jobs`), so that there should be nothing at all.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { UnavailableError } from "../../kernel/errors.ts";
import type { BrokerMessage } from "../broker.ts";
import type { AmqpChannel, AmqpMessage } from "./rabbitmq-client.ts";
import type { RabbitmqLink } from "./rabbitmq-link.ts";
import { decodeMessage, encodeMessage } from "./rabbitmq-message.ts";
import type { RabbitmqNames } from "./rabbitmq-topology.ts";

/** One of them. */
export interface RabbitmqDeadLetter {
  /** The queue that it was in. */
  readonly queue: string;
  /** In RabbitMQ's words: "delivery_limit", or "rejected" of one that could not be read. */
  readonly reason: string;
  /** Undefined: it cannot be read. */
  readonly message: BrokerMessage | undefined;
}

/** The dead letters of one app. Calls raise `BROKER_UNREACHABLE`. */
export interface RabbitmqDeadLetters {
  count(): Promise<number>;
  /** The oldest, at most `limit` and at most 1,000. They stay where they are. */
  read(limit: number): Promise<RabbitmqDeadLetter[]>;
  /**
   * Puts the oldest back into the queues they came from, behind what is there, at most `limit` and at most 1,000; gives their number. Those
   * that cannot be read stay. Raises `BROKER_UNROUTABLE` when the queue is no more.
   */
  replay(limit: number): Promise<number>;
}

const limitMax = 1_000;

export function rabbitmqDeadLetters(link: RabbitmqLink, names: RabbitmqNames): RabbitmqDeadLetters {
  const queue = names.dead;
  return {
    count: () =>
      link.use("count its dead letters", async (channel) => {
        const { messageCount } = await channel.queueDeclare({ queue, passive: true });
        return messageCount;
      }),

    read: (limit) =>
      link.use("show its dead letters", async (channel) =>
        (await takeSome(channel, queue, limit)).map((raw) => ({ ...originOf(raw), message: decodeMessage(raw) })),
      ),

    replay: (limit) =>
      link.use("replay its dead letters", async (channel) => {
        await channel.confirmSelect();
        let isReturned = false;
        channel.on("basic.return", () => {
          isReturned = true;
        });
        let count = 0;
        for (const raw of await takeSome(channel, queue, limit)) {
          const message = decodeMessage(raw);
          if (message === undefined) continue;
          const { envelope, body } = encodeMessage(message, { exchange: "", routingKey: originOf(raw).queue });
          await channel.basicPublish(envelope, body);
          await nextTurn();
          if (isReturned) throw unroutable(envelope.routingKey);
          channel.basicAck({ deliveryTag: raw.deliveryTag });
          count++;
        }
        return count;
      }),
  };
}

/** What is not acknowledged goes back when the channel is closed. */
async function takeSome(channel: AmqpChannel, queue: string, limit: number): Promise<AmqpMessage[]> {
  const taken: AmqpMessage[] = [];
  while (taken.length < Math.min(limit, limitMax)) {
    const raw = await channel.basicGet({ queue });
    if (raw === undefined) break;
    taken.push(raw);
  }
  return taken;
}

function originOf({ headers = {} }: AmqpMessage): { readonly queue: string; readonly reason: string } {
  return { queue: String(headers["x-first-death-queue"] ?? ""), reason: String(headers["x-first-death-reason"] ?? "") };
}

function unroutable(queue: string): UnavailableError {
  const message = `RabbitMQ has no queue "${queue}" any more. Start a process with that handler, which declares it, and try again.`;
  return new UnavailableError("BROKER_UNROUTABLE", message, { canRetry: true });
}
