/**
 * The port of message brokers: what the relay puts in, and what processes with handlers take out.
 *
 * A broker keeps a copy of every message of an event for each handler of it, in `partitions` sequences. Messages of one key are in
 * one sequence, in the order in which they were published, and a sequence is delivered to one process at a time. Everything is
 * delivered at least once; effects happen once because each is noted in the transaction that makes it.
 *
 * A broker carries what may be done at once. Whatever has to wait, because it is delayed, failed, or behind one of its key that
 * failed, waits in a job table: that of the shard that published it, or where the handler's service has a database of its own, one of that.
 */
import type { MessagePriority } from "../kernel/event.ts";

/** A message as a transaction published it. */
export interface BrokerMessage {
  /** The same for all handlers; a UUID. */
  readonly id: string;
  readonly event: string;
  /** Version of the payload's schema; 1 where the event was never changed. */
  readonly version: number;
  readonly key: string | null;
  /** As JSON gives it. */
  readonly payload: unknown;
  readonly publishedAt: Date;
  /** Number of the shard that it was published on. */
  readonly shard: number;
  /** Name of the database that has this shard; absent: the app's own. */
  readonly database?: string;
  /** Not to be handled before; absent: at once. */
  readonly dueAt?: Date;
  /** Absent: normal. */
  readonly priority?: MessagePriority;
}

/** A handler and the event it handles. Names as in stored messages: "service.handler" and "article.published". */
export interface Subscription {
  readonly event: string;
  readonly handler: string;
}

/** One message for one handler, until it is acknowledged or lost. */
export interface BrokerDelivery {
  readonly message: BrokerMessage;
  readonly handler: string;
  /** Some process may have begun it before. */
  readonly isRepeated: boolean;
  /**
   * To be called before work on it starts. False when the delivery is lost: its sequence went to another process or the connection
   * broke, and the message comes again, here or elsewhere. A sequence is given away only once what began is settled, or after
   * {@link ConsumeOptions.graceMs}.
   */
  begin(): boolean;
  /** Whether {@link BrokerDelivery.begin} would give false, or what it began has been lost since. */
  isLost(): boolean;
  /** It is done, or kept elsewhere: the broker may forget it. Of a lost delivery: does nothing. Never raises. */
  ack(): void;
  /** It goes back to its place and is delivered again, here or elsewhere. Of a lost delivery: does nothing. Never raises. */
  handBack(): void;
}

export interface ConsumeOptions {
  /** `room`: most deliveries of this handler that may be unsettled in this process. */
  readonly subscriptions: readonly (Subscription & { readonly room: number })[];
  /** Called with each delivery, of a key in order. Must not raise. */
  readonly deliver: (delivery: BrokerDelivery) => void;
  /** How long a sequence that is to go to another process waits for what began; default 10,000 ms. */
  readonly graceMs?: number;
}

/** A process's share of the sequences. It grows and shrinks as processes come and go, and returns by itself after lost connections. */
export interface BrokerConsumer {
  /** No further deliveries of this handler here, nor of what was not begun, until {@link BrokerConsumer.resume}. */
  pause(handler: string): void;
  resume(handler: string): void;
  /** Gives all sequences up. What began should have been settled before; the rest is delivered elsewhere. */
  close(): Promise<void>;
}

/** How much of a handler's messages waits in the broker, unsettled ones included. */
export interface BrokerBacklog {
  readonly handler: string;
  readonly messages: number;
}

/** A broker. Calls raise `BROKER_UNREACHABLE` when it is not there, and may then be repeated. */
export interface Broker {
  /** For messages, e.g. "RabbitMQ". */
  readonly name: string;
  /** Makes what these handlers need where it is missing. Safe to repeat, and by several processes at once. */
  declare(subscriptions: readonly Subscription[]): Promise<void>;
  /**
   * Resolves once every message is stored, on as many machines as the broker is set up for, for each handler that was declared.
   * Messages of a key keep the order of the list. When it raises, any of them may be stored.
   */
  publish(messages: readonly BrokerMessage[]): Promise<void>;
  /** Begins to take messages out. */
  consume(options: ConsumeOptions): Promise<BrokerConsumer>;
  backlog(subscriptions: readonly Subscription[]): Promise<BrokerBacklog[]>;
  /**
   * Puts a handler back to the first message that was published at that time or later, as far as the broker still has it: all since
   * comes again. Absent where the broker forgets what is done. Raises `HANDLER_AT_WORK` while a process takes messages of it out.
   */
  replay?(subscription: Subscription, options: { readonly from: Date }): Promise<void>;
  /** Whether it answers. */
  check(): Promise<void>;
  close(): Promise<void>;
}

/** Sequences a handler has, where the topology says nothing else: most processes that can work on one handler's messages. */
export const partitionsDefault = 8;
