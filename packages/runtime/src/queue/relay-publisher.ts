/**
 * How the relay speaks to the broker: declares first, and keeps events that nobody takes apart.
 *
 * An event may have no place in the broker: its only handler is new and no process with it has started yet, or was taken away. Its
 * messages stay in the outbox then, looked at again each second, and those of other events go on. That breaks no order, since the
 * order of a key is one of each handler, and a handler has one event.
 */
import type { Clock } from "../kernel/clock.ts";
import { RungsError } from "../kernel/errors.ts";
import type { Logger } from "../kernel/log.ts";
import type { Broker, Subscription } from "./broker.ts";
import type { OutboxRow } from "./outbox.ts";

/** What the relay needs of a broker. */
export type RelayBroker = Pick<Broker, "name" | "declare" | "publish">;

export interface RelayPublisherOptions {
  /** The shard's number. */
  readonly shard: number;
  /** Name of the database that the shard is of; default: the app's own. */
  readonly database?: string;
  readonly broker: RelayBroker;
  readonly subscriptions: readonly Subscription[];
  readonly clock: Clock;
  readonly log: Logger;
}

const heldMs = 1_000;

export class RelayPublisher {
  private readonly options: RelayPublisherOptions;
  /** Events that nobody took, and until when their messages are left alone. */
  private readonly heldUntil = new Map<string, number>();
  private isDeclared = false;

  constructor(options: RelayPublisherOptions) {
    this.options = options;
  }

  /** Declares anew before it publishes again. */
  reset(): void {
    this.isDeclared = false;
  }

  /** Events whose messages need not be given to {@link RelayPublisher.publish} now. */
  held(): string[] {
    const now = this.options.clock.monotonic();
    return [...this.heldUntil].filter(([, until]) => until > now).map(([event]) => event);
  }

  /** Whether messages may have been left behind. */
  get isHolding(): boolean {
    return this.heldUntil.size > 0;
  }

  /** Gives the rows whose messages the broker has stored: all but those of events that nobody takes. Raises what the broker raises. */
  async publish(rows: readonly OutboxRow[]): Promise<readonly OutboxRow[]> {
    const { broker, subscriptions } = this.options;
    if (!this.isDeclared) {
      await broker.declare(subscriptions);
      this.isDeclared = true;
    }
    if (!this.isHolding) {
      try {
        await this.send(rows);
        return rows;
      } catch (error) {
        if (!isUnroutable(error)) throw error;
      }
    }
    return this.publishByEvent(rows);
  }

  private async publishByEvent(rows: readonly OutboxRow[]): Promise<readonly OutboxRow[]> {
    const { clock, log, broker } = this.options;
    const stored = new Set<OutboxRow>();
    for (const [event, group] of Map.groupBy(rows, ({ message }) => message.event)) {
      try {
        await this.send(group);
        if (this.heldUntil.delete(event)) log.info({ event, broker: broker.name }, "the broker takes this event again");
        for (const row of group) stored.add(row);
      } catch (error) {
        if (!isUnroutable(error)) throw error;
        if (!this.heldUntil.has(event)) {
          log.error({ event, broker: broker.name, error }, "nobody takes this event: its messages wait in the outbox");
        }
        this.heldUntil.set(event, clock.monotonic() + heldMs);
        this.isDeclared = false;
      }
    }
    return rows.filter((row) => stored.has(row));
  }

  private async send(rows: readonly OutboxRow[]): Promise<void> {
    const { broker, shard, database } = this.options;
    const origin = database === undefined ? { shard } : { shard, database };
    await broker.publish(rows.map(({ message }) => ({ ...message, ...origin })));
  }
}

function isUnroutable(error: unknown): boolean {
  return error instanceof RungsError && error.code === "BROKER_UNROUTABLE";
}
