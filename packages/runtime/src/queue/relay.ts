/**
 * The relay: gives the messages of one shard's outbox to the broker, in the order of their sequences.
 *
 * - *Standby.* Asks for the lease four times a second. Every process with handlers has a relay for each shard; one of them is active.
 * - *Active*, from the beat that gave the lease until `leaseMs` after the last one that renewed it was sent. It takes a batch,
 *   publishes it, and deletes it once the broker has confirmed, in the same statement that takes the next. When a batch is large, the
 *   next one is taken while it is being confirmed, but published only after it, so that messages of a key stay in order.
 * - *Frozen or cut off*: the lease runs out, and another relay begins at the start of what is left. One that thaws finds its lease
 *   too old before it publishes anything else. What it had sent comes twice, which the inbox settles; it deletes only rows whose
 *   messages the broker has confirmed to it, so none is lost.
 * - *Trouble*: after an error nothing that was taken ahead is kept; the relay waits, up to a second, and begins at the start. After
 *   `leaseMs` of it, it offers the lease to the others for a second: it may be the only one that does not reach the broker.
 *
 * Why no message of a key overtakes another, and none is left behind: head of `drivers/outbox-tables.ts`. No row is locked while its
 * message is on its way: whoever passed over locked rows would break the order, and a transaction that stays open until the broker
 * answers would keep vacuum from the whole database while the broker is away.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import { type Random, uuidV7 } from "../kernel/random.ts";
import type { Subscription } from "./broker.ts";
import { backoffMs } from "./handler.ts";
import type { Beat, Outbox, OutboxFigures, OutboxRow } from "./outbox.ts";
import { OutboxFloor } from "./outbox-floor.ts";
import { type OutboxWatch, watchOutbox } from "./outbox-watch.ts";
import { type RelayBroker, RelayPublisher } from "./relay-publisher.ts";

export interface OutboxRelayOptions {
  /** The shard's number, which its messages carry. */
  readonly shard: number;
  /** Name of the database that the shard is of, which they carry too; default: the app's own. */
  readonly database?: string;
  readonly outbox: Outbox;
  readonly broker: RelayBroker;
  /** Declared before anything is published: those that shall get a copy of what is. */
  readonly subscriptions: readonly Subscription[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** How often to look for messages that nobody announced; default 20 ms. */
  readonly pollMs?: number;
  /** Silence after which another relay takes over; default 5,000 ms. */
  readonly leaseMs?: number;
  /** Messages of a batch; default 500. */
  readonly batchMax?: number;
  /** Payload bytes of a batch, as stored; default 4 MiB. One message more may exceed it. */
  readonly batchBytesMax?: number;
  /** Publishing is refused while more than this waits in the outbox; default 10 GiB. */
  readonly bytesMax?: number;
  /** Longest wait for the batch under way at a stop; default 5,000 ms. */
  readonly stopMs?: number;
}

/** Counters since the start of the process, and what the relay does now. */
export interface RelayStats {
  /** The shard's name. */
  readonly shard: string;
  readonly isActive: boolean;
  /** Messages that the broker has confirmed. */
  readonly published: number;
  readonly batches: number;
  /** Batches that failed. */
  readonly failures: number;
  /** Sum, over all published, of the time from publishing in the transaction to the broker's confirm, in ms. */
  readonly delayMs: number;
  /** What waits; undefined before it was measured. Taken by every relay, active or not. */
  readonly outbox: OutboxFigures | undefined;
}

/** A relay at work. */
export interface Relay {
  /** Something was published on the shard: look at once. */
  wake(): void;
  stats(): RelayStats;
  /** Ends the batch under way and gives the lease back, so that another relay goes on within a quarter of a second. */
  stop(): Promise<void>;
}

/** The lease is renewed at least this often, and four times before it would run out. */
const renewEveryMs = 1_000;
const standbyEveryMs = 250;
const backoff = { firstMs: 50, maxMs: 1_000 };

/** Starts at once and raises nothing: errors of the database and the broker are logged once, and tried again. */
export function relayOutbox(options: OutboxRelayOptions): Relay {
  return new OutboxRelay(options);
}

class OutboxRelay implements Relay {
  private readonly options: OutboxRelayOptions;
  private readonly id: string;
  private readonly leaseMs: number;
  private readonly watch: OutboxWatch;
  private readonly floor: OutboxFloor;
  private readonly publisher: RelayPublisher;
  private readonly pollTimer: NodeJS.Timeout;
  private beatTimer: NodeJS.Timeout | undefined;
  private beating: Promise<void> | undefined;
  private working: Promise<void> | undefined;
  private activeUntil = Number.NEGATIVE_INFINITY;
  private isWanted = false;
  /** Begins nothing more. */
  private isClosed = false;
  /** Has given up the lease, or is about to. */
  private isLeaving = false;
  private troubles = 0;
  /** When they began, or the lease was last given up because of them. */
  private troubledSince = 0;
  private waitUntil = Number.NEGATIVE_INFINITY;
  /** Confirmed by the broker and not deleted yet. */
  private confirmed: number[] = [];
  private readonly counts = { published: 0, batches: 0, failures: 0, delayMs: 0 };

  constructor(options: OutboxRelayOptions) {
    const { outbox, bytesMax, clock, random, log, pollMs = 20, leaseMs = 5_000 } = options;
    this.options = options;
    this.leaseMs = leaseMs;
    this.id = uuidV7(clock, random);
    this.floor = new OutboxFloor(clock);
    this.publisher = new RelayPublisher(options);
    this.watch = watchOutbox({
      ...{ outbox, clock, log, mayShrink: () => this.isActive },
      ...(bytesMax === undefined ? {} : { bytesMax }),
    });
    this.pollTimer = setInterval(() => this.wake(), pollMs).unref();
    this.beatSoon(0);
  }

  wake(): void {
    if (this.isClosed || !this.isActive) return;
    this.isWanted = true;
    if (this.working !== undefined || this.options.clock.monotonic() < this.waitUntil) return;
    this.working = this.workWhileWanted().finally(() => {
      this.working = undefined;
      // Asked for after the last look had ended.
      if (this.isWanted) this.wake();
    });
  }

  stats(): RelayStats {
    const { outbox } = this.options;
    return { shard: outbox.name, isActive: this.isActive, ...this.counts, outbox: this.watch.figures() };
  }

  async stop(): Promise<void> {
    const { outbox, stopMs = 5_000 } = this.options;
    this.isClosed = true;
    clearInterval(this.pollTimer);
    await withinMs(stopMs, this.working);
    this.isLeaving = true;
    clearTimeout(this.beatTimer);
    await this.beating;
    await this.watch.stop();
    try {
      if (this.confirmed.length > 0) await this.take([], 0);
      await outbox.leave(this.id);
    } catch {
      // The lease runs out by itself, and what was not deleted is published once more.
    }
  }

  private get isActive(): boolean {
    return this.options.clock.monotonic() < this.activeUntil;
  }

  private beatSoon(ms: number): void {
    if (this.isLeaving) return;
    this.beatTimer = setTimeout(() => {
      this.beating = this.beat().finally(() => {
        this.beating = undefined;
        this.beatSoon(this.isActive || this.troubles > 0 ? Math.min(renewEveryMs, this.leaseMs / 4) : standbyEveryMs);
      });
    }, ms).unref();
  }

  private async beat(): Promise<void> {
    const { outbox, clock, log } = this.options;
    const since = clock.monotonic();
    const wasActive = this.isActive;
    let beat: Beat;
    try {
      if (wasActive && this.troubles > 0 && since - this.troubledSince > this.leaseMs) {
        this.troubledSince = since;
        this.activeUntil = Number.NEGATIVE_INFINITY;
        await outbox.leave(this.id);
        return;
      }
      beat = await outbox.beat(this.id, this.leaseMs, this.floor.value);
    } catch (error) {
      // A lease that still holds is asked for again in a second; without one there is nothing to lose.
      log.debug({ shard: outbox.name, error }, "the relay's lease could not be asked for");
      this.floor.reset();
      return;
    }
    this.activeUntil = beat.isActive ? since + this.leaseMs : Number.NEGATIVE_INFINITY;
    if (beat.isActive !== wasActive) {
      this.floor.reset();
      this.publisher.reset();
      log[this.troubles > 0 ? "debug" : "info"](
        { shard: outbox.name },
        beat.isActive ? "the relay is active" : "another relay is active",
      );
    }
    if (beat.isActive) this.floor.note(beat);
    if (!wasActive) this.wake();
  }

  private async workWhileWanted(): Promise<void> {
    while (this.isWanted && this.mayGoOn) {
      this.isWanted = false;
      try {
        await this.work();
        this.recovered();
      } catch (error) {
        this.failed(error);
        return;
      }
    }
  }

  private get mayGoOn(): boolean {
    return !this.isClosed && this.isActive;
  }

  /** Publishes until nothing is left. */
  private async work(): Promise<void> {
    const { batchMax = 500 } = this.options;
    let batch = await this.take([], batchMax);
    while (batch.rows.length > 0 && this.mayGoOn) {
      const publishing = this.publisher.publish(batch.rows);
      // Raised below, where it is waited for; until then nobody looks.
      publishing.catch(() => {});
      const ahead = batch.rows.length * 2 > batchMax ? this.take(batch.rows, batchMax) : undefined;
      ahead?.catch(() => {});
      const stored = await publishing;
      this.noteConfirmed(stored);
      this.recovered();
      batch.published();
      // What was left behind must not be overtaken by what was taken ahead.
      const next = stored.length === batch.rows.length ? ahead : undefined;
      if (next === undefined && !this.mayGoOn) return;
      batch = await (next ?? this.take([], batchMax));
    }
    if (batch.rows.length === 0) batch.published();
  }

  /** Deletes what was confirmed and takes the next rows. `published`: to be called once all of them are. */
  private async take(
    underWay: readonly OutboxRow[],
    rowsMax: number,
  ): Promise<{ readonly rows: readonly OutboxRow[]; published(): void }> {
    const { outbox, batchBytesMax = 4 * 1_024 ** 2 } = this.options;
    const published = this.confirmed;
    this.confirmed = [];
    // What is left behind must stay above the floor.
    if (this.publisher.isHolding) this.floor.reset();
    const settled = this.floor.settled();
    try {
      const rows = await outbox.take({
        published,
        underWay: underWay.map(({ sequence }) => sequence),
        withoutEvents: this.publisher.held(),
        from: this.floor.value,
        rowsMax,
        bytesMax: batchBytesMax,
      });
      return { rows, published: () => !this.publisher.isHolding && settled(rows.at(-1)?.sequence) };
    } catch (error) {
      this.confirmed.push(...published);
      throw error;
    }
  }

  private noteConfirmed(rows: readonly OutboxRow[]): void {
    const now = this.options.clock.now();
    const { counts } = this;
    counts.published += rows.length;
    counts.batches++;
    for (const { sequence, message } of rows) {
      this.confirmed.push(sequence);
      counts.delayMs += Math.max(0, now - message.publishedAt.getTime());
    }
  }

  private failed(error: unknown): void {
    const { outbox, broker, clock, random, log } = this.options;
    this.floor.reset();
    this.publisher.reset();
    this.counts.failures++;
    if (this.troubles++ === 0) this.troubledSince = clock.monotonic();
    this.waitUntil = clock.monotonic() + backoffMs(this.troubles, backoff, random.next());
    if (this.troubles > 1) return;
    log.warn(
      { shard: outbox.name, broker: broker.name, error },
      "messages are not relayed now: they wait in the outbox",
    );
  }

  private recovered(): void {
    const { outbox, broker, log } = this.options;
    if (this.troubles > 0) {
      log.info({ shard: outbox.name, broker: broker.name }, "messages are relayed again");
    }
    this.troubles = 0;
  }
}

/** Waits for work that may never end, but not for ever. */
async function withinMs(ms: number, work: Promise<void> | undefined): Promise<void> {
  if (work === undefined) return;
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work, limit]);
  clearTimeout(timer);
}
