/**
 * One handler's deliveries in this process: what its partitions have brought, and which of it the consumer has.
 *
 * A delivery is *waiting* here, *offered* to the consumer, *begun* by it, and gone once acknowledged. At most `room` are offered or
 * begun. Handing back is done here, and not in RabbitMQ, which puts what is returned behind what was returned before
 * (rabbitmq-server issue 6804) and so loses the order of a key: the delivery takes its place again, those of its key behind it are taken
 * back from the consumer if it has not begun them, and after a while they are offered once more.
 */
import type { Clock } from "../../kernel/clock.ts";
import type { BrokerDelivery, BrokerMessage } from "../broker.ts";

/** Wait before what was handed back is offered again, doubled each time up to the longest, in ms. */
const againMs = { first: 50, max: 5_000 };

/** What a partition has brought, in order, until it is settled. */
export class PartitionBuffer {
  readonly entries: Entry[] = [];
  /** To be given up: nothing more is offered. */
  isYielding = false;
  private readonly settle: (tag: number) => void;

  /** `settle` acknowledges a delivery and may throw. */
  constructor(settle: (tag: number) => void) {
    this.settle = settle;
  }

  acknowledge(entry: Entry): void {
    this.entries.splice(this.entries.indexOf(entry), 1);
    try {
      this.settle(entry.tag);
    } catch {
      // Its channel is closed: it comes again.
    }
  }
}

/** One message that RabbitMQ has delivered to this process. */
export interface Entry {
  readonly message: BrokerMessage;
  readonly tag: number;
  isRepeated: boolean;
  /** Undefined: it waits. */
  offer?: Offer | undefined;
  handBacks: number;
  offerAt: number;
}

export class Lane {
  readonly handler: string;
  private readonly room: number;
  private readonly deliver: (delivery: BrokerDelivery) => void;
  private readonly clock: Clock;
  private readonly buffers: PartitionBuffer[] = [];
  private readonly onBegunSettled = new Set<() => void>();
  private out = 0;
  private pausedAt: number | undefined;
  private isPumping = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: {
    readonly handler: string;
    readonly room: number;
    readonly deliver: (delivery: BrokerDelivery) => void;
    readonly clock: Clock;
  }) {
    this.handler = options.handler;
    this.room = options.room;
    this.deliver = options.deliver;
    this.clock = options.clock;
  }

  /** Messages of this handler that are here. */
  get held(): number {
    return this.buffers.reduce((sum, { entries }) => sum + entries.length, 0);
  }

  /** For how long it has been paused; 0 when it is not. */
  pausedMs(): number {
    return this.pausedAt === undefined ? 0 : this.clock.monotonic() - this.pausedAt;
  }

  add(buffer: PartitionBuffer): void {
    this.buffers.push(buffer);
  }

  /** Its channel is gone, and with it all that it brought. */
  remove(buffer: PartitionBuffer): void {
    const index = this.buffers.indexOf(buffer);
    if (index === -1) return;
    this.buffers.splice(index, 1);
    for (const entry of buffer.entries) this.withdraw(entry);
    buffer.entries.length = 0;
    this.settled();
  }

  arrived(buffer: PartitionBuffer, delivery: Pick<Entry, "message" | "tag" | "isRepeated">): void {
    buffer.entries.push({ ...delivery, handBacks: 0, offerAt: 0 });
    this.pump();
  }

  /** Takes back what was not begun, and resolves when what was begun is settled, or after `graceMs`. */
  async yield(buffer: PartitionBuffer, graceMs: number): Promise<void> {
    buffer.isYielding = true;
    this.withdrawUnbegun(buffer);
    this.pump();
    const isIdle = () => buffer.entries.every(({ offer }) => offer === undefined);
    if (isIdle()) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.onBegunSettled.delete(look);
        resolve();
      };
      const look = () => isIdle() && end();
      const timer = setTimeout(end, graceMs);
      this.onBegunSettled.add(look);
    });
  }

  pause(): void {
    this.pausedAt ??= this.clock.monotonic();
    for (const buffer of this.buffers) this.withdrawUnbegun(buffer);
  }

  resume(): void {
    this.pausedAt = undefined;
    this.pump();
  }

  close(): void {
    clearTimeout(this.timer);
    for (const buffer of [...this.buffers]) this.remove(buffer);
  }

  /** Offers what there is room for, from one partition after the other. */
  pump(): void {
    // `deliver` may settle at once, and comes back here.
    if (this.isPumping) return;
    this.isPumping = true;
    try {
      this.offerWhileRoom();
    } finally {
      this.isPumping = false;
    }
  }

  /** The consumer is done with it. */
  acknowledged(buffer: PartitionBuffer, entry: Entry): void {
    this.out--;
    buffer.acknowledge(entry);
    this.settled();
  }

  /** The consumer gives it back. `wasBegun`: something of it may have been done. */
  handedBack(buffer: PartitionBuffer, entry: Entry, wasBegun: boolean): void {
    const { first, max } = againMs;
    entry.isRepeated ||= wasBegun;
    entry.offerAt = this.clock.monotonic() + Math.min(max, first * 2 ** Math.min(entry.handBacks++, 10));
    this.withdraw(entry);
    const behind = buffer.entries.slice(buffer.entries.indexOf(entry) + 1);
    const { key } = entry.message;
    for (const other of behind) if (key !== null && other.message.key === key) this.withdrawUnlessBegun(other);
    this.settled();
  }

  private offerWhileRoom(): void {
    let nextAt = Number.POSITIVE_INFINITY;
    let idle = 0;
    while (idle < this.buffers.length && this.out < this.room && this.pausedAt === undefined) {
      const buffer = this.buffers.shift() as PartitionBuffer;
      this.buffers.push(buffer);
      const found = buffer.isYielding ? undefined : this.nextOf(buffer);
      if (typeof found === "object") {
        idle = 0;
        this.offer(buffer, found);
      } else {
        idle++;
        nextAt = Math.min(nextAt, found ?? nextAt);
      }
    }
    clearTimeout(this.timer);
    if (nextAt === Number.POSITIVE_INFINITY) return;
    this.timer = setTimeout(() => this.pump(), Math.max(1, nextAt - this.clock.monotonic())).unref();
  }

  private settled(): void {
    for (const look of [...this.onBegunSettled]) look();
    this.pump();
  }

  private offer(buffer: PartitionBuffer, entry: Entry): void {
    entry.offer = new Offer(this, buffer, entry);
    this.out++;
    this.deliver(entry.offer);
  }

  /** The first that may be offered; else when one may; undefined when nothing waits. */
  private nextOf(buffer: PartitionBuffer): Entry | number | undefined {
    const now = this.clock.monotonic();
    const keysThatWait = new Set<string>();
    let nextAt: number | undefined;
    for (const entry of buffer.entries) {
      const { key } = entry.message;
      if (entry.offer !== undefined || (key !== null && keysThatWait.has(key))) continue;
      if (entry.offerAt <= now) return entry;
      nextAt = Math.min(nextAt ?? entry.offerAt, entry.offerAt);
      if (key !== null) keysThatWait.add(key);
    }
    return nextAt;
  }

  private withdrawUnbegun(buffer: PartitionBuffer): void {
    for (const entry of buffer.entries) this.withdrawUnlessBegun(entry);
  }

  private withdrawUnlessBegun(entry: Entry): void {
    if (entry.offer?.hasBegun === false) this.withdraw(entry);
  }

  private withdraw(entry: Entry): void {
    if (entry.offer === undefined) return;
    entry.offer.lose();
    entry.offer = undefined;
    this.out--;
  }
}

/** What the consumer has in its hands. */
class Offer implements BrokerDelivery {
  readonly message: BrokerMessage;
  readonly handler: string;
  readonly isRepeated: boolean;
  hasBegun = false;
  private isOver = false;
  private wasLost = false;
  private readonly lane: Lane;
  private readonly buffer: PartitionBuffer;
  private readonly entry: Entry;

  constructor(lane: Lane, buffer: PartitionBuffer, entry: Entry) {
    this.message = entry.message;
    this.handler = lane.handler;
    this.isRepeated = entry.isRepeated;
    this.lane = lane;
    this.buffer = buffer;
    this.entry = entry;
  }

  begin(): boolean {
    if (this.isOver) return false;
    this.hasBegun = true;
    return true;
  }

  isLost(): boolean {
    return this.wasLost;
  }

  ack(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.lane.acknowledged(this.buffer, this.entry);
  }

  handBack(): void {
    if (this.isOver) return;
    this.lane.handedBack(this.buffer, this.entry, this.hasBegun);
  }

  lose(): void {
    this.isOver = true;
    this.wasLost = true;
  }
}
