/**
 * Keeps the caches of all processes of an app coherent, over a channel that numbers invalidations.
 *
 * What a process cached is judged by what it has *heard*: it has heard everything up to a number, or does not know.
 *
 * - *In step*: each invalidation heard names the number of the one before, which was heard as well.
 * - *Out of step*: from the start, after a lost connection, and when a number is missing. Everything cached before counts as
 *   invalidated, in one step, and it is in step again with the next invalidation or mark. That costs hits, nothing else.
 * - A *mark* sent every `markEveryMs` comes back behind everything announced before it. So the process knows until when it has
 *   heard everything (`heardAt`), and its cache serves nothing older than `staleMsMax` beyond that, whatever the channel does.
 *
 * A process that sends no marks any more, and has not left, may have died between a commit and its announcement: whoever notices
 * invalidates everything for it.
 *
 * What other processes cached is judged by the numbers alone: a load is *as of* the number up to which its process had heard
 * everything when it began. For that each process knows when each tag was last invalidated, also before it started or while it
 * was out of step: it asks the channel, which remembers the last ones. What is older than those counts as invalidated.
 *
 * An announcement says how far the shards had got with its commits. Targets learn it before a number counts as heard, so a load
 * that is as of a number reads no copy of a database that is older.
 *
 * What is announced here is applied here first, and told by this process until it was told: at once, else with each mark, and
 * again over each new connection for `repeatMs`, since a server that took over may not have heard of it.
 */
import { randomUUID } from "node:crypto";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { UnavailableError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import type { CommitMarks, HeardInvalidation, InvalidatedTags, InvalidationChannel } from "./invalidation-channel.ts";
import { InvalidationRecord } from "./invalidation-record.ts";
import { TagSet } from "./tag-set.ts";

/** What drops cached values. */
export interface InvalidationTarget {
  /** Drops what carries one of the tags, or everything; `upTo` as far as is known of the commits. */
  drop(tags: InvalidatedTags, upTo: CommitMarks | undefined): void;
  /** Whether everything announced is heard from now on. Out of step at first. */
  stepChanged?(isInStep: boolean): void;
}

/** Counters since the start. */
export interface InvalidationBusStats {
  readonly announced: number;
  /** Announcements that could not be told at once. */
  readonly delayed: number;
  /** Invalidations of other processes. */
  readonly heard: number;
  /** Times it fell out of step. */
  readonly gaps: number;
  /** Readers who waited for an invalidation they knew of, and those for whom it did not come in time. */
  readonly waits: number;
  readonly missed: number;
  /** How long ago everything was known to be heard. */
  readonly heardMsAgo: number;
}

/** The invalidations of one process. */
export interface InvalidationBus {
  /** Cached values are served for this long after the process was last known to have heard everything. */
  readonly staleMsMax: number;
  /** When, by the monotonic clock, everything announced before has been heard; -Infinity for never. */
  heardAt(): number;
  /** Everything up to this number has been heard, and what tags it invalidated is known; undefined while that is not so. */
  position(): number | undefined;
  /** Whether none of the tags was invalidated after the number, as far as is known here. */
  isCurrent(tags: readonly string[], asOf: number): boolean;
  /** Which of the tags was, or "everything"; undefined when none was. */
  endedBy(tags: readonly string[], asOf: number): string | undefined;
  /** Has the target drop what is announced from now on. */
  join(target: InvalidationTarget): void;
  /** Drops the tags here at once; resolves when all processes have been told, or will be later. Never raises. */
  announce(tags: readonly string[], upTo?: CommitMarks): Promise<void>;
  /** How many announcements this process has made. */
  count(): number;
  /** The newest number this process has been given or heard; 0 for none. */
  newest(): number;
  /**
   * The number of this process's newest announcement, once all are told. Raises `CACHE_INVALIDATION_DELAYED` while others
   * cannot be told.
   */
  settled(): Promise<number>;
  /** Resolves once this process has heard everything up to the number, or within `waitMs` with everything cached dropped. */
  catchUp(number: number): Promise<void>;
  stats(): InvalidationBusStats;
  close(): Promise<void>;
}

/** Settings of {@link openInvalidationBus}. */
export interface InvalidationBusOptions {
  readonly channel: InvalidationChannel;
  /** Joined before anything is heard, and told before those who join later. */
  readonly first?: InvalidationTarget | undefined;
  readonly clock?: Clock;
  readonly log?: Logger;
  /** Default 2,000 ms; at least twice `markEveryMs`. */
  readonly staleMsMax?: number;
  /** Default 500 ms. */
  readonly markEveryMs?: number;
  /** How long {@link InvalidationBus.catchUp} waits; default 50 ms. */
  readonly waitMs?: number;
  /** Announcements are repeated over a new connection for this long; default 15,000 ms. */
  readonly repeatMs?: number;
  /** A process without a mark for this long is taken for dead, and everything invalidated; default 10,000 ms. */
  readonly deadAfterMs?: number;
  /** Tags whose last invalidation is remembered for what other processes cached; default 100,000. */
  readonly tagsMax?: number;
}

/** For what was committed long enough ago that this process has learnt of it. */
const noMarks: CommitMarks = {};
/** Tags that wait to be told; more of them become "everything". */
const tagsWaitingMax = 10_000;

/** Opens the bus; resolves once invalidations are heard. Raises what the channel raises. */
export async function openInvalidationBus(options: InvalidationBusOptions): Promise<InvalidationBus> {
  const bus = new ChannelBus(options);
  await bus.open();
  return bus;
}

class ChannelBus implements InvalidationBus {
  readonly staleMsMax: number;
  private readonly channel: InvalidationChannel;
  private readonly clock: Clock;
  private readonly log: Logger;
  private readonly markEveryMs: number;
  private readonly waitMs: number;
  private readonly repeatMs: number;
  private readonly deadAfterMs: number;
  private readonly origin = randomUUID();
  private readonly targets: InvalidationTarget[] = [];
  private readonly waiters = new Set<{ readonly number: number; resolve(): void }>();
  private readonly untold = new TagSet(tagsWaitingMax);
  private readonly record: InvalidationRecord;
  private recent: { readonly tags: InvalidatedTags; readonly at: number }[] = [];
  private telling: TagSet | undefined;
  private flushing: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** Everything up to here has been heard; undefined while out of step. */
  private heardUpTo: number | undefined;
  /** Nothing cached now is older than this number: asked for in vain, and everything dropped. */
  private coveredUpTo = -1;
  private highest = 0;
  private own = 0;
  private lastHeardAt = Number.NEGATIVE_INFINITY;
  private beating: Promise<void> | undefined;
  private readonly counters = { announced: 0, delayed: 0, heard: 0, gaps: 0, waits: 0, missed: 0 };

  constructor(options: InvalidationBusOptions) {
    this.channel = options.channel;
    this.clock = options.clock ?? systemClock;
    this.log = options.log ?? silentLogger;
    const { channel, tagsMax = 100_000 } = options;
    this.record = new InvalidationRecord({ channel, tagsMax, log: this.log });
    this.staleMsMax = options.staleMsMax ?? 2_000;
    this.markEveryMs = options.markEveryMs ?? 500;
    this.waitMs = options.waitMs ?? 50;
    this.repeatMs = options.repeatMs ?? 15_000;
    this.deadAfterMs = options.deadAfterMs ?? 10_000;
    if (options.first !== undefined) this.targets.push(options.first);
  }

  async open(): Promise<void> {
    await this.channel.listen(this.origin, {
      onInvalidation: (heard) => this.hear(heard),
      onMark: (mark, newest) => this.hearMark(Number(mark), newest),
      onGap: () => {
        this.fallOutOfStep();
        void this.beat();
      },
    });
    await this.channel.beforeUse(() => this.repeat());
    await this.record.fill();
    await this.beat();
    await this.catchUp(0);
    this.timer = setInterval(() => void this.beat(), this.markEveryMs).unref();
  }

  heardAt(): number {
    return this.lastHeardAt;
  }

  position(): number | undefined {
    return this.record.isComplete ? this.heardUpTo : undefined;
  }

  isCurrent(tags: readonly string[], asOf: number): boolean {
    return this.record.isCurrent(tags, asOf) && !this.untold.hasAny(tags) && this.telling?.hasAny(tags) !== true;
  }

  endedBy(tags: readonly string[], asOf: number): string | undefined {
    const ended = this.record.endedBy(tags, asOf);
    if (ended !== undefined || this.isCurrent(tags, asOf)) return ended;
    // Announced here and not told yet.
    return tags.find((tag) => this.untold.hasAny([tag]) || this.telling?.hasAny([tag]) === true);
  }

  join(target: InvalidationTarget): void {
    this.targets.push(target);
  }

  async announce(tags: readonly string[], upTo?: CommitMarks): Promise<void> {
    this.counters.announced++;
    this.drop(tags, upTo);
    this.remember(tags);
    try {
      await this.tell(tags, { upTo });
    } catch (error) {
      this.counters.delayed++;
      this.untold.add(tags);
      this.log.warn({ error, tags: tags.length }, "an invalidation could not be told yet; it is tried again");
    }
  }

  count(): number {
    return this.counters.announced;
  }

  newest(): number {
    return this.highest;
  }

  async settled(): Promise<number> {
    await this.flush();
    // One under way has taken what was untold.
    if (!this.untold.isEmpty || this.flushing !== undefined) {
      const message =
        "What was changed is stored, but the other processes could not be told yet and may show the old state for a moment. Look before you try again.";
      throw new UnavailableError("CACHE_INVALIDATION_DELAYED", message, { canRetry: false });
    }
    return this.own;
  }

  async catchUp(number: number): Promise<void> {
    if (this.hasHeard(number)) return;
    this.counters.waits++;
    const waiter = { number, resolve() {} };
    this.waiters.add(waiter);
    await new Promise<void>((resolve) => {
      // After a pause of this process timers come first: what has arrived meanwhile is read before it is missed.
      const timer = setTimeout(() => setImmediate(resolve), this.waitMs);
      waiter.resolve = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.waiters.delete(waiter);
    if (this.hasHeard(number)) return;
    this.counters.missed++;
    this.drop("everything");
    this.record.note("everything", number);
    this.coveredUpTo = Math.max(this.coveredUpTo, number);
    this.wake();
  }

  stats(): InvalidationBusStats {
    return { ...this.counters, heardMsAgo: Math.min(1e9, this.clock.monotonic() - this.lastHeardAt) };
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.beating;
    await this.flush();
    // One who could not tell everything is to be taken for dead.
    if (this.untold.isEmpty) await this.channel.leave(this.origin).catch(() => {});
    await this.channel.close();
    this.drop("everything");
    this.lastHeardAt = Number.NEGATIVE_INFINITY;
  }

  private hasHeard(number: number): boolean {
    return number <= this.coveredUpTo || (this.heardUpTo !== undefined && number <= this.heardUpTo);
  }

  private hear({ number, previous, origin, tags, upTo }: HeardInvalidation): void {
    if (this.heardUpTo !== undefined && previous !== this.heardUpTo) this.fallOutOfStep();
    // Its own were dropped when they were announced; dropping them again would cost what was loaded since.
    if (origin !== this.origin) {
      this.counters.heard++;
      this.drop(tags, upTo);
    }
    this.record.note(tags, number);
    this.moveTo(number);
  }

  private hearMark(sentAt: number, newest: number): void {
    if (this.heardUpTo !== undefined && newest !== this.heardUpTo) this.fallOutOfStep();
    this.lastHeardAt = Math.max(this.lastHeardAt, sentAt);
    this.moveTo(newest);
  }

  private fallOutOfStep(): void {
    this.counters.gaps++;
    this.heardUpTo = undefined;
    for (const target of this.targets) target.stepChanged?.(false);
    this.drop("everything");
    this.record.lose();
    void this.record.fill();
  }

  private moveTo(number: number): void {
    const wasInStep = this.heardUpTo !== undefined;
    this.heardUpTo = number;
    if (!wasInStep) for (const target of this.targets) target.stepChanged?.(true);
    this.record.heard(number);
    this.highest = Math.max(this.highest, number);
    this.wake();
  }

  private wake(): void {
    for (const waiter of this.waiters) if (this.hasHeard(waiter.number)) waiter.resolve();
  }

  private drop(tags: InvalidatedTags, upTo?: CommitMarks): void {
    for (const target of this.targets) target.drop(tags, upTo);
  }

  /** What is told late or again is told without its marks: who hears it asks the databases. */
  private async tell(
    tags: InvalidatedTags,
    { upTo, isAhead = false }: { readonly upTo?: CommitMarks | undefined; readonly isAhead?: boolean } = {},
  ): Promise<void> {
    const number = await this.channel.announce(tags, { origin: this.origin, above: this.highest, upTo, isAhead });
    this.record.note(tags, number);
    // Once more: until the number was known here, what others had cached before could be taken over from them.
    this.drop(tags, upTo ?? noMarks);
    this.own = Math.max(this.own, number);
    this.highest = Math.max(this.highest, number);
  }

  /** Tells what could not be told; at most one try at a time. */
  private async flush(): Promise<void> {
    await this.flushing;
    if (this.untold.isEmpty) return;
    this.flushing ??= this.tellUntold().finally(() => {
      this.flushing = undefined;
    });
    await this.flushing;
  }

  private async tellUntold(): Promise<void> {
    const tags = this.untold.take();
    this.telling = new TagSet(tagsWaitingMax);
    this.telling.add(tags);
    try {
      await this.tell(tags);
    } catch {
      this.untold.add(tags);
    } finally {
      this.telling = undefined;
    }
  }

  private remember(tags: readonly string[]): void {
    const now = this.clock.monotonic();
    if (this.recent.length >= tagsWaitingMax) this.recent = [{ tags: "everything", at: now }];
    else this.recent.push({ tags, at: now });
  }

  /** Over a new connection, before anything else. */
  private async repeat(): Promise<void> {
    this.forgetOld();
    if (this.recent.length === 0) return;
    const all = new TagSet(tagsWaitingMax);
    for (const { tags } of this.recent) all.add(tags);
    await this.tell(all.take(), { isAhead: true });
  }

  private forgetOld(): void {
    const since = this.clock.monotonic() - this.repeatMs;
    const kept = this.recent.findIndex(({ at }) => at >= since);
    this.recent = kept === -1 ? [] : this.recent.slice(kept);
  }

  /** One at a time. */
  private beat(): Promise<void> {
    this.beating ??= this.sendMark().finally(() => {
      this.beating = undefined;
    });
    return this.beating;
  }

  private async sendMark(): Promise<void> {
    this.forgetOld();
    void this.record.fill();
    try {
      await this.flush();
      await this.channel.mark(this.origin, String(this.clock.monotonic()), { deadAfterMs: this.deadAfterMs });
    } catch (error) {
      this.log.debug({ error }, "the invalidations of other processes cannot be heard now");
    }
  }
}
