/**
 * One partition for one handler, while this process holds it: what was fetched and is not done, in the order of the log.
 *
 * Messages are done in any order; what is committed is the offset below which all are, with a note of those above it (see
 * `kafka-progress.ts`). Nothing is delivered from the *mark* on, up to which a commit has already said that messages may have been
 * begun; so if this process dies, its successor knows all that it may have begun.
 */
import type { Clock } from "../../kernel/clock.ts";
import type { BrokerDelivery, BrokerMessage } from "../broker.ts";
import { fateOf, type Progress } from "./kafka-progress.ts";

/** A fetched record; `message` is undefined where none of ours wrote it. */
export interface FetchedRecord {
  readonly offset: number;
  readonly message: BrokerMessage | undefined;
}

export interface SequenceOptions {
  readonly partition: number;
  readonly handler: string;
  /** What the last holder committed. */
  readonly progress: Progress;
  /** How far ahead of the last delivered message a commit says that messages may have been begun. */
  readonly window: number;
  /** Whether this process still holds the partition, by its own clock. */
  readonly isHeld: () => boolean;
  readonly clock: Clock;
  /** A delivery was acknowledged, or handed back: then `againMs` is the time until it can be delivered again. */
  readonly onSettled: (againMs: number) => void;
}

/** Wait before what was handed back is delivered again, doubled each time up to the longest, in ms. */
const againMs = { first: 50, max: 5_000 };

interface Entry {
  readonly offset: number;
  readonly message: BrokerMessage;
  isRepeated: boolean;
  delivery: Delivery | undefined;
  handBacks: number;
  /** In ms of the monotonic clock. */
  notBefore: number;
}

export class KafkaSequence {
  readonly partition: number;
  /** Offset of the next record to fetch. */
  position: number;
  /** Deliveries that are not settled. */
  unsettled = 0;
  /** It is being given up: nothing more is delivered. */
  isClosing = false;
  private readonly options: SequenceOptions;
  /** Not done, by offset, ascending. */
  private readonly live = new Map<number, Entry>();
  /** One more than the last offset that was delivered. */
  private deliveredTo: number;
  private mark = 0;

  constructor(options: SequenceOptions) {
    this.options = options;
    this.partition = options.partition;
    this.position = options.progress.low;
    this.deliveredTo = options.progress.low;
  }

  /** Takes in what was fetched from {@link KafkaSequence.position}; `next` is the position behind it. */
  add(records: readonly FetchedRecord[], next: number): void {
    for (const { offset, message } of records) {
      if (offset < this.position || message === undefined) continue;
      const fate = fateOf(this.options.progress, offset);
      if (fate === "done") continue;
      const isRepeated = fate === "repeated";
      this.live.set(offset, { offset, message, isRepeated, delivery: undefined, handBacks: 0, notBefore: 0 });
    }
    this.position = Math.max(this.position, next);
  }

  /** Fetched, and waiting to be delivered. */
  get waiting(): number {
    return this.live.size - this.unsettled;
  }

  /** The next delivery; undefined when there is none now, or none before the mark. */
  next(): BrokerDelivery | undefined {
    const entry = this.firstReady();
    if (entry === undefined || this.isClosing || entry.offset >= this.mark) return undefined;
    const delivery = new Delivery(entry, this);
    entry.delivery = delivery;
    this.deliveredTo = Math.max(this.deliveredTo, entry.offset + 1);
    this.unsettled++;
    return delivery;
  }

  /** Whether a commit has to raise the mark before the next deliveries, or soon. */
  get needsMark(): boolean {
    const entry = this.firstWaiting();
    return (
      entry !== undefined &&
      !this.isClosing &&
      Math.max(entry.offset, this.deliveredTo) + this.options.window / 2 >= this.mark
    );
  }

  /** What a commit says while this process goes on with it. */
  progress(): Progress {
    const { progress, window } = this.options;
    const { low, seen, open } = this.extent();
    const first = this.firstWaiting()?.offset ?? 0;
    return { low, seen, open, fresh: [], begun: Math.max(progress.begun, seen, first, this.deliveredTo) + window };
  }

  /** What the last commit says. Whatever was not begun is new to the next holder. */
  lastProgress(): Progress {
    const { progress } = this.options;
    const { low, seen, open } = this.extent();
    const isFresh = (offset: number) => {
      const entry = this.live.get(offset);
      return entry === undefined ? fateOf(progress, offset) === "fresh" : !entry.isRepeated;
    };
    return { low, seen, open, fresh: open.filter(isFresh), begun: Math.max(progress.begun, seen) };
  }

  /** A commit of {@link KafkaSequence.progress} is stored. */
  marked(begun: number): void {
    this.mark = Math.max(this.mark, begun);
  }

  /** Takes back what was delivered and not begun; with `all` also what was begun, which then may be begun twice. */
  takeBack(all: boolean): void {
    for (const { delivery } of this.live.values()) {
      if (delivery !== undefined && (all || !delivery.hasBegun)) this.release(delivery, false);
    }
  }

  isHeld(): boolean {
    return this.options.isHeld();
  }

  get handler(): string {
    return this.options.handler;
  }

  /** Of {@link Delivery} only. */
  acknowledge(delivery: Delivery): void {
    this.release(delivery, true);
    this.options.onSettled(0);
  }

  /** Of {@link Delivery} only. Those of its key behind it come back too, where they were not begun: their turn is after it. */
  putBack(delivery: Delivery): void {
    const { entry } = delivery;
    this.release(delivery, false);
    const waitMs = Math.min(againMs.max, againMs.first * 2 ** Math.min(entry.handBacks++, 10));
    entry.notBefore = this.options.clock.monotonic() + waitMs;
    const { key } = entry.message;
    for (const each of this.live.values()) {
      const isBehind = key !== null && each.message.key === key && each.offset > entry.offset;
      if (isBehind && each.delivery?.hasBegun === false) this.release(each.delivery, false);
    }
    this.options.onSettled(waitMs);
  }

  private release(delivery: Delivery, isDone: boolean): void {
    const { entry } = delivery;
    delivery.isOver = true;
    if (entry.delivery !== delivery) return;
    entry.delivery = undefined;
    entry.isRepeated ||= delivery.hasBegun;
    this.unsettled--;
    if (isDone) this.live.delete(entry.offset);
  }

  private extent(): Pick<Progress, "low" | "seen" | "open"> {
    const { progress } = this.options;
    const [first] = this.live.keys();
    const low = first ?? this.position;
    const seen = Math.max(low, this.deliveredTo, progress.seen);
    const open: number[] = [];
    for (const offset of this.live.keys()) {
      if (offset >= seen) break;
      open.push(offset);
    }
    return { low, seen, open: [...open, ...progress.open.filter((offset) => offset >= this.position)] };
  }

  /** The first that may be delivered now: none of a key before those of it that wait. */
  private firstReady(): Entry | undefined {
    if (this.waiting === 0) return undefined;
    const now = this.options.clock.monotonic();
    const held = new Set<string>();
    for (const entry of this.live.values()) {
      const { key } = entry.message;
      if (entry.delivery !== undefined) continue;
      if (entry.notBefore <= now && (key === null || !held.has(key))) return entry;
      if (key !== null) held.add(key);
    }
    return undefined;
  }

  private firstWaiting(): Entry | undefined {
    if (this.waiting === 0) return undefined;
    for (const entry of this.live.values()) if (entry.delivery === undefined) return entry;
    return undefined;
  }
}

class Delivery implements BrokerDelivery {
  readonly message: BrokerMessage;
  readonly isRepeated: boolean;
  readonly entry: Entry;
  hasBegun = false;
  isOver = false;
  private readonly sequence: KafkaSequence;

  constructor(entry: Entry, sequence: KafkaSequence) {
    this.entry = entry;
    this.message = entry.message;
    this.isRepeated = entry.isRepeated;
    this.sequence = sequence;
  }

  get handler(): string {
    return this.sequence.handler;
  }

  begin(): boolean {
    if (this.isLost()) return false;
    this.hasBegun = true;
    return true;
  }

  isLost(): boolean {
    return this.isOver || !this.sequence.isHeld();
  }

  ack(): void {
    if (!this.isLost()) this.sequence.acknowledge(this);
  }

  handBack(): void {
    if (!this.isLost()) this.sequence.putBack(this);
  }
}
