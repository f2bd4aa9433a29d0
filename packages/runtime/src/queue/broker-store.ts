/**
 * A broker as a job store: what it delivers is claimed and settled like the jobs of a table, within the same limits.
 *
 * Only first tries run from the broker. What has to wait is *parked* in the job table of the shard that published it, or on the first
 * shard here when another database did, and then acknowledged: a failed try until its next one, whatever came behind it in its key, a
 * message that some process may have begun before, one that is not due yet or of another priority, and a dead letter. So order within a key holds through retries, a message that kills its process is counted and ends as
 * a dead letter, and none of them holds up the sequence that it came in.
 *
 * - *Order of a key.* One of a key is under way here at a time, in the order of delivery. Before it begins, the job table is asked
 *   whether an earlier one is parked; then it is parked behind it.
 * - *A key with a long queue* would fill its sequence's room and hold up the others in it. When others could run but for that, its
 *   messages are parked once the one under way has ended.
 * - *A shard that is down* holds up its own messages with a key, and after a second at most no others: they are passed over, and
 *   the shard is asked again after a while.
 * - *Once.* A step is an inbox row in the effect's transaction, and a parked job goes on with the same rows: whichever of two
 *   tries commits first made the effect. There is no lease to lose.
 */
import type { Clock } from "../kernel/clock.ts";
import type { BrokerDelivery, BrokerMessage } from "./broker.ts";
import type { ClaimedJob, JobStore, SettledJob } from "./job-store.ts";
import type { ParkedJob, Parking } from "./parking.ts";

export interface BrokerStoreOptions {
  /** The broker's, for messages. */
  readonly name: string;
  readonly parking: Parking;
  /** Number of the shard here on which a message waits if it has to; default: that which published it. */
  readonly placeOf?: (message: BrokerMessage) => number;
  readonly clock: Clock;
  /** There may be something to claim. */
  readonly onReady: () => void;
  /** Jobs were parked on the shard, due at once. */
  readonly onParked: (shard: number) => void;
}

/** The store, and where the broker's consumer delivers to. */
export interface BrokerStore extends JobStore {
  deliver(delivery: BrokerDelivery): void;
  /** Whether something of the handler began and is not settled. */
  isAtWork(handler: string): boolean;
  /** Waits up to `limitMs` until nothing more is on its way into the job tables. */
  whenParked(limitMs: number): Promise<void>;
}

/** Messages of one key waiting behind one under way, from which on they are a crowd when others have to wait for them. */
const crowdMin = 3;
/** How long a claim waits for a shard's answer; what hangs on it waits, and all else goes on. */
const askLimitMs = 1_000;
const askAgainMs = 250;
const parkRetryMs = 250;
const parkBatchMax = 500;

/** Makes the store. Deliveries keep the broker's order; nothing here raises but what {@link JobStore} says. */
export function brokerStore(options: BrokerStoreOptions): BrokerStore {
  return new Store(options);
}

interface Held {
  readonly delivery: BrokerDelivery;
  /** The shard on which it waits if it has to. */
  readonly place: number;
  /** Tells keys of all handlers and places apart; undefined without one. */
  readonly key: string | undefined;
}

const untried = { attempts: 0, delayMs: 0, error: null, isDead: false };

class Store implements BrokerStore {
  readonly name: string;
  private readonly options: BrokerStoreOptions;
  /** Not begun, by handler, in the order of delivery. */
  private readonly waiting = new Map<string, Held[]>();
  /** Begun, by the number that their jobs carry. */
  private readonly underWay = new Map<number, Held>();
  /** Keys of which one is under way, or about to be. */
  private readonly busy = new Set<string>();
  /** How many of a key are on their way into the job table: what comes after them goes there too. */
  private readonly parking = new Map<string, number>();
  /** Keys whose waiting messages are parked when the one under way has ended. */
  private readonly crowded = new Set<string>();
  private readonly lots = new Map<number, ParkingLot>();
  /** Shards that were asked and gave no answer, and when they may be asked again, by the monotonic clock. */
  private readonly silent = new Map<number, number>();
  private lastSequence = 0;

  constructor(options: BrokerStoreOptions) {
    this.name = options.name;
    this.options = options;
  }

  deliver(delivery: BrokerDelivery): void {
    const { handler, message } = delivery;
    const place = this.options.placeOf?.(message) ?? message.shard;
    const key = message.key === null ? undefined : JSON.stringify([handler, place, message.key]);
    let waiting = this.waiting.get(handler) ?? [];
    // While there is no room nothing is taken from here, and what breaking connections lost would pile up.
    if ((waiting.length & (waiting.length - 1)) === 0) waiting = waiting.filter((held) => !held.delivery.isLost());
    this.waiting.set(handler, waiting);
    waiting.push({ delivery, place, key });
    this.options.onReady();
  }

  isAtWork(handler: string): boolean {
    return [...this.underWay.values()].some(({ delivery }) => delivery.handler === handler);
  }

  async claim(_workerId: string, wanted: readonly { handler: string; slots: number }[]): Promise<ClaimedJob[]> {
    const taken = wanted.flatMap(({ handler, slots }) => this.take(handler, slots));
    const blocked = await this.blockedAmong(taken);
    return taken.flatMap((held): ClaimedJob[] => {
      const state = blocked.get(held);
      if (state === undefined && held.delivery.begin()) return [this.begun(held)];
      if (state === "unknown") {
        this.putBack(held);
        return [];
      }
      if (state === "blocked") this.park(held, untried);
      this.release(held.key);
      return [];
    });
  }

  async settle(_workerId: string, settled: readonly SettledJob[]) {
    for (const { job, outcome } of settled) {
      const held = this.underWay.get(job.sequence);
      if (held === undefined) continue;
      this.underWay.delete(job.sequence);
      if (outcome.kind === "putOff") this.park(held, { ...untried, delayMs: outcome.delayMs });
      else if (outcome.kind === "retry" || outcome.kind === "dead") {
        this.park(held, {
          attempts: job.attempt,
          delayMs: outcome.kind === "retry" ? outcome.delayMs : 0,
          error: outcome.error.slice(0, 2_000),
          isDead: outcome.kind === "dead",
        });
      } else if (outcome.kind === "done") held.delivery.ack();
      else held.delivery.handBack();
      this.release(held.key);
    }
    return { freed: 0, busy: [] };
  }

  /** The broker sees a process die by its connection. */
  async heartbeat(): Promise<number> {
    return 0;
  }

  async leave(): Promise<void> {
    for (const { delivery } of [...this.waiting.values()].flat()) delivery.handBack();
    this.waiting.clear();
  }

  once(tx: unknown, _workerId: string, job: ClaimedJob, step: string) {
    return this.options.parking.noteStep(tx, job, step);
  }

  /**
   * Of what is here. What else the broker holds was not begun, and has no steps; or it was, by a process that died, and then it is
   * at the head of its sequence and comes here long before any step is old enough to be forgotten.
   */
  async oldestPublished(): Promise<Date | undefined> {
    const parking = [...this.lots.values()].flatMap((lot) => lot.held);
    const held = [...[...this.waiting.values()].flat(), ...this.underWay.values(), ...parking];
    const times = held.map(({ delivery }) => delivery.message.publishedAt.getTime());
    return times.length === 0 ? undefined : new Date(Math.min(...times));
  }

  async forgetSteps(): Promise<number> {
    return 0;
  }

  async whenParked(limitMs: number): Promise<void> {
    const deadline = this.options.clock.monotonic() + limitMs;
    const isParking = () => [...this.lots.values()].some(({ isEmpty }) => !isEmpty);
    while (isParking() && this.options.clock.monotonic() < deadline) await new Promise((go) => setTimeout(go, 20));
  }

  /** Up to `slots` that may begin as far as is known here; of a key only the first. Their keys are busy from now on. */
  private take(handler: string, slots: number): Held[] {
    const taken: Held[] = [];
    const rest: Held[] = [];
    /** How many of a key stay: what comes behind them stays too. */
    const staying = new Map<string, number>();
    const now = this.options.clock.monotonic();
    for (const held of this.waiting.get(handler) ?? []) {
      const { key, delivery } = held;
      if (delivery.isLost()) continue;
      const isBehind = key !== undefined && (this.busy.has(key) || staying.has(key));
      const mustPark = delivery.isRepeated || this.mustWait(delivery) || (key !== undefined && this.parking.has(key));
      if (!isBehind && mustPark) this.park(held, untried);
      else if (!isBehind && taken.length < slots && this.canAsk(held, now)) {
        if (key !== undefined) this.busy.add(key);
        taken.push(held);
      } else {
        if (key !== undefined) staying.set(key, (staying.get(key) ?? 0) + 1);
        rest.push(held);
      }
    }
    this.waiting.set(handler, rest);
    if (taken.length < slots) {
      for (const [key, count] of staying) if (count >= crowdMin && this.busy.has(key)) this.crowded.add(key);
    }
    return taken;
  }

  /** Whether its shard may be asked about its key, which one without a key does not need. */
  private canAsk({ key, place }: Held, now: number): boolean {
    return key === undefined || now >= (this.silent.get(place) ?? now);
  }

  /** For a time or a turn, which the job table knows. With a key the order of the key rules, as at publishing. */
  private mustWait({ message: { key, dueAt, priority = "normal" } }: BrokerDelivery): boolean {
    if (dueAt !== undefined && dueAt.getTime() > this.options.clock.now()) return true;
    return priority !== "normal" && key === null;
  }

  /** Those that may not begin: behind a parked one of their key, or not to be known now. */
  private async blockedAmong(taken: readonly Held[]): Promise<Map<Held, "blocked" | "unknown">> {
    const found = new Map<Held, "blocked" | "unknown">();
    const byShard = Map.groupBy(
      taken.filter(({ key }) => key !== undefined),
      ({ place }) => place,
    );
    await Promise.all(
      [...byShard].map(async ([shard, held]) => {
        const pairs = held.map(({ delivery }) => ({ handler: delivery.handler, key: delivery.message.key as string }));
        const blocked = await this.ask(shard, pairs);
        held.forEach((each, index) => {
          if (blocked === undefined) found.set(each, "unknown");
          else if (blocked[index] === true) found.set(each, "blocked");
        });
      }),
    );
    return found;
  }

  /** Undefined without an answer in time. The shard is not asked again for a while then, so that it takes no other's room. */
  private async ask(shard: number, pairs: readonly { handler: string; key: string }[]): Promise<boolean[] | undefined> {
    const isSilentUntil = (at: number) => this.silent.set(shard, at);
    const answer = this.options.parking.blocked(shard, pairs).catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), askLimitMs);
    });
    const first = await Promise.race([answer, limit]);
    clearTimeout(timer);
    const { clock } = this.options;
    if (first === "late") {
      isSilentUntil(Number.POSITIVE_INFINITY);
      void answer.then(() => isSilentUntil(clock.monotonic() + askAgainMs));
    } else if (first === undefined) isSilentUntil(clock.monotonic() + askAgainMs);
    else {
      this.silent.delete(shard);
      return first;
    }
    // For those of other shards, which had no room beside these.
    this.options.onReady();
    return undefined;
  }

  private begun(held: Held): ClaimedJob {
    const { message, handler } = held.delivery;
    this.lastSequence++;
    this.underWay.set(this.lastSequence, held);
    return {
      sequence: this.lastSequence,
      jobId: message.id,
      handler,
      key: message.key,
      payload: message.payload,
      version: message.version,
      attempt: 1,
      publishedAt: message.publishedAt,
      waitedMs: Math.max(0, this.options.clock.now() - message.publishedAt.getTime()),
    };
  }

  /** To its place before all others of its key, for the next regular look: the shard is asked again then. */
  private putBack(held: Held): void {
    const { handler } = held.delivery;
    if (held.key !== undefined) {
      this.busy.delete(held.key);
      this.crowded.delete(held.key);
    }
    this.waiting.set(handler, [held, ...(this.waiting.get(handler) ?? [])]);
  }

  /** Into the job table, then away from the broker. */
  private park({ delivery, place, key }: Held, how: Omit<ParkedJob, "message" | "handler">): void {
    const { message, handler } = delivery;
    const lot = this.lots.get(place) ?? new ParkingLot(place, this.options);
    this.lots.set(place, lot);
    if (key !== undefined) this.parking.set(key, (this.parking.get(key) ?? 0) + 1);
    const parked = () => {
      if (key === undefined) return;
      const left = (this.parking.get(key) ?? 1) - 1;
      if (left > 0) this.parking.set(key, left);
      else this.parking.delete(key);
    };
    lot.add({ job: { message, handler, ...how }, delivery, parked });
  }

  /** The one under way has ended: the next of its key may begin. */
  private release(key: string | undefined): void {
    if (key === undefined) return;
    this.busy.delete(key);
    if (this.crowded.delete(key)) this.parkAll(key);
    this.options.onReady();
  }

  private parkAll(key: string): void {
    for (const [handler, waiting] of this.waiting) {
      const crowd = waiting.filter((held) => held.key === key);
      if (crowd.length === 0) continue;
      this.waiting.set(
        handler,
        waiting.filter((held) => held.key !== key),
      );
      for (const held of crowd) this.park(held, untried);
    }
  }
}

interface Arrival {
  readonly job: ParkedJob;
  readonly delivery: BrokerDelivery;
  readonly parked: () => void;
}

/** What is on its way into one shard's job table, in order; tried again while the shard is down. */
class ParkingLot {
  private readonly shard: number;
  private readonly options: BrokerStoreOptions;
  private arrivals: Arrival[] = [];
  private working: Promise<void> | undefined;

  constructor(shard: number, options: BrokerStoreOptions) {
    this.shard = shard;
    this.options = options;
  }

  get isEmpty(): boolean {
    return this.arrivals.length === 0;
  }

  get held(): readonly Arrival[] {
    return this.arrivals;
  }

  add(arrival: Arrival): void {
    this.arrivals.push(arrival);
    this.workSoon();
  }

  private workSoon(): void {
    this.working ??= this.work().finally(() => {
      this.working = undefined;
      if (this.arrivals.length > 0) this.workSoon();
    });
  }

  private async work(): Promise<void> {
    // All that is parked in one go is stored by one statement.
    await Promise.resolve();
    this.forgetLost();
    const batch = this.arrivals.slice(0, parkBatchMax);
    if (batch.length === 0) return this.options.onReady();
    try {
      const jobs = batch.map(({ job }) => job);
      await this.options.parking.park(this.shard, jobs);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, parkRetryMs).unref());
      return;
    }
    this.arrivals = this.arrivals.slice(batch.length);
    for (const { delivery, parked } of batch) {
      delivery.ack();
      parked();
    }
    this.options.onParked(this.shard);
    this.options.onReady();
  }

  /** A lost one comes again, and is parked then. Here they would pile up while the shard is down and connections break. */
  private forgetLost(): void {
    const lost = new Set(this.arrivals.filter(({ delivery }) => delivery.isLost()));
    if (lost.size === 0) return;
    this.arrivals = this.arrivals.filter((arrival) => !lost.has(arrival));
    for (const { parked } of lost) parked();
  }
}
