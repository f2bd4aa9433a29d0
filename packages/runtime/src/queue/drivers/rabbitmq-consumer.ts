/** A process's share of the partitions: subscribes to those that are its own, gives up those that no longer are. */
import type { Clock } from "../../kernel/clock.ts";
import type { Logger } from "../../kernel/log.ts";
import { type Random, uuidV7 } from "../../kernel/random.ts";
import type { BrokerConsumer, ConsumeOptions, Subscription } from "../broker.ts";
import { ownersOf } from "../partition.ts";
import { Lane } from "./rabbitmq-lane.ts";
import type { RabbitmqLink } from "./rabbitmq-link.ts";
import { RabbitmqMembers } from "./rabbitmq-members.ts";
import { RabbitmqSubscription } from "./rabbitmq-subscription.ts";
import { declareQueue, type RabbitmqNames } from "./rabbitmq-topology.ts";

/**
 * How long a paused handler keeps what it was brought. RabbitMQ closes a channel whose delivery was not answered for 30 minutes
 * (consumer_timeout), and each such return counts against the delivery limit.
 */
const pauseHoldMs = 60_000;

const graceMsDefault = 10_000;

export interface RabbitmqConsumerOptions extends ConsumeOptions {
  /** For deliveries. */
  readonly link: RabbitmqLink;
  /** For everything else, so that acknowledgements pass when RabbitMQ takes no messages. */
  readonly controlLink: RabbitmqLink;
  readonly names: RabbitmqNames;
  readonly partitions: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly onClose: (consumer: RabbitmqConsumer) => void;
}

interface Held {
  readonly subscription: RabbitmqSubscription;
  isYielding: boolean;
}

export class RabbitmqConsumer implements BrokerConsumer {
  readonly members: RabbitmqMembers;
  private readonly options: RabbitmqConsumerOptions;
  private readonly member: string;
  private readonly lanes: ReadonlyMap<string, Lane>;
  private readonly held = new Map<string, Held>();
  private closing: Promise<void> | undefined;

  constructor(options: RabbitmqConsumerOptions) {
    this.options = options;
    const { clock, random, deliver } = options;
    this.member = uuidV7(clock, random);
    this.lanes = new Map(
      options.subscriptions.map(({ handler, room }) => [handler, new Lane({ handler, room, deliver, clock })]),
    );
    this.members = new RabbitmqMembers({
      link: options.controlLink,
      names: options.names,
      clock,
      random,
      member: this.member,
      held: () => Object.fromEntries([...this.lanes].map(([handler, lane]) => [handler, lane.held])),
      onChange: () => this.reassign(),
    });
  }

  pause(handler: string): void {
    this.lanes.get(handler)?.pause();
  }

  resume(handler: string): void {
    this.lanes.get(handler)?.resume();
    this.reassign();
  }

  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    this.members.leave();
    await Promise.all([...this.held.values()].map(({ subscription }) => subscription.close()));
    for (const lane of this.lanes.values()) lane.close();
    this.members.close();
    this.options.onClose(this);
  }

  /** Makes what is held here what should be. Does nothing where all is as it should be. */
  private reassign(): void {
    if (this.closing !== undefined) return;
    const { partitions } = this.options;
    for (const { handler, event } of this.options.subscriptions) {
      const lane = this.lanes.get(handler) as Lane;
      const members = this.members.of(handler);
      if (members === undefined) continue;
      const owners = lane.pausedMs() > pauseHoldMs ? [] : ownersOf({ handler, partitions, members });
      for (let partition = 0; partition < partitions; partition++) {
        const isOurs = owners[partition] === this.member;
        const held = this.held.get(`${handler} ${partition}`);
        if (isOurs && held === undefined) this.take(lane, { handler, event, partition });
        else if (!isOurs && held !== undefined) this.giveUp(`${handler} ${partition}`, held);
      }
    }
  }

  private take(lane: Lane, subscription: Subscription & { readonly partition: number }): void {
    const { link, names, random, log } = this.options;
    const { handler, partition } = subscription;
    const queue = names.queue(handler, partition);
    const taken = new RabbitmqSubscription({
      link,
      lane,
      queue,
      random,
      declare: () => link.use("declare a queue", (channel) => declareQueue(channel, names, subscription)),
      onUnreadable: () => log.error({ queue }, "a message could not be read and went to the dead letters of RabbitMQ"),
    });
    this.held.set(`${handler} ${partition}`, { subscription: taken, isYielding: false });
  }

  private giveUp(place: string, held: Held): void {
    if (held.isYielding) return;
    held.isYielding = true;
    void held.subscription.yield(this.options.graceMs ?? graceMsDefault).then(() => {
      this.held.delete(place);
      // It may have become ours again meanwhile.
      this.reassign();
    });
  }
}
