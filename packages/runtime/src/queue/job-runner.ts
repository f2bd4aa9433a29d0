/**
 * Runs handlers over the jobs of one or several stores, in this process.
 *
 * For each store: claim what there is room for, run it, settle what ended, all in batches of whatever gathered while the
 * last call was under way. A publisher of this process wakes the claims at its commit; jobs published elsewhere, delayed or
 * to be retried are found by looking every `pollMs`.
 *
 * Jobs count against their handler's room (`handler-lane.ts`) from the claim until they are settled, which bounds everything kept here.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import { type Random, uuidV7 } from "../kernel/random.ts";
import { type AttemptResult, attempt } from "./attempt.ts";
import type { NamedHandler } from "./handler.ts";
import { type HandlerStats, Lane } from "./handler-lane.ts";
import type { ClaimedJob, JobStore, SettledJob, Wanted } from "./job-store.ts";

/** Handlers at work. */
export interface JobRunner {
  /** New jobs may be in the store of that name: look at once. */
  wake(storeName: string): void;
  stats(): HandlerStats[];
  /**
   * Claims nothing more of these handlers, hands back what of them has not begun, and lets what runs end; of all others it
   * claims again. Names of handlers that do not run here do nothing.
   */
  pauseOnly(handlers: readonly string[]): void;
  /**
   * Claims nothing more, hands back what has not begun, gives what runs `graceMs`, breaks off the rest and hands it back.
   */
  stop(): Promise<void>;
}

export interface JobRunnerOptions<C> {
  readonly stores: readonly JobStore[];
  readonly handlers: readonly NamedHandler<C>[];
  readonly context: C;
  /** Names of handlers that begin paused; default none. See {@link JobRunner.pauseOnly}. */
  readonly paused?: readonly string[];
  /**
   * Whether jobs of the store of that name are this process's to run now; default: always. While they are not, nothing more of them is
   * claimed, what has not begun is handed back, and what runs ends. Once they are again, {@link JobRunner.wake} has it look at once.
   */
  readonly mayClaim?: (storeName: string) => boolean;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  /** How often to look for jobs that nobody announced; default 500 ms. */
  readonly pollMs?: number;
  /** How often to give a sign of life; default 1,000 ms. */
  readonly heartbeatMs?: number;
  /** Silence after which a worker's jobs go to others; default 5,000 ms. */
  readonly leaseMs?: number;
  /** Time for running tries at a stop; default 10,000 ms. */
  readonly graceMs?: number;
}

const settleRetryMs = 200;
const leaseMsDefault = 5_000;
/** A claim that was sent is carried out within this, or not at all: longer than the server lets a statement run by default. */
const claimCommitsMsMax = 15_000;
/** How often to look for messages that wait for newer processes, and to tell of them. */
const newerEveryMs = 5_000;
const newerToldEveryMs = 60_000;

/** Starts at once. Nothing here raises: errors of the database are logged and tried again. */
export function startJobRunner<C>(options: JobRunnerOptions<C>): JobRunner {
  return new Runner(options);
}

class Runner<C> implements JobRunner {
  private readonly lanes: ReadonlyMap<string, Lane<C>>;
  private readonly workers: readonly StoreWorker<C>[];
  private readonly options: JobRunnerOptions<C>;
  private readonly stopRequest = new AbortController();

  constructor(options: JobRunnerOptions<C>) {
    this.options = options;
    this.lanes = new Map(options.handlers.map((handler) => [handler.name, new Lane(handler)]));
    for (const name of options.paused ?? []) this.lanes.get(name)?.pause();
    const stop = this.stopRequest.signal;
    this.workers = options.stores.map((store) => new StoreWorker(store, this.lanes, options, stop));
  }

  wake(storeName: string): void {
    for (const worker of this.workers) if (worker.store.name === storeName) worker.look();
  }

  stats(): HandlerStats[] {
    return [...this.lanes.values()].map((lane) => lane.stats());
  }

  pauseOnly(handlers: readonly string[]): void {
    for (const [name, lane] of this.lanes) {
      if (handlers.includes(name)) lane.pause();
      else lane.isPaused = false;
    }
    // Those that go on have room again.
    for (const worker of this.workers) worker.look();
  }

  async stop(): Promise<void> {
    const { graceMs = 10_000 } = this.options;
    for (const worker of this.workers) worker.close();
    const timer = setTimeout(() => this.stopRequest.abort(), graceMs);
    await Promise.all(this.workers.map((worker) => worker.finish()));
    clearTimeout(timer);
    this.stopRequest.abort();
  }
}

/** One store: its claims, its settling and its signs of life. */
class StoreWorker<C> {
  readonly store: JobStore;
  private readonly lanes: ReadonlyMap<string, Lane<C>>;
  private readonly options: JobRunnerOptions<C>;
  private readonly stopSignal: AbortSignal;
  private readonly workerId: string;
  private readonly timers: NodeJS.Timeout[];
  private readonly settling: SettledJob[] = [];
  /** Could not be settled at the last try. */
  private readonly deferred: SettledJob[] = [];
  private deferredTimer: NodeJS.Timeout | undefined;
  private readonly tries = new Set<Promise<void>>();
  /** Sequences of jobs that are claimed and not settled. */
  private readonly held = new Set<number>();
  private claiming: Promise<void> | undefined;
  private flushing: Promise<void> | undefined;
  private isLookWanted = false;
  private isClosed = false;
  private isTroubled = false;
  /** Its last sign of life, by the monotonic clock. */
  private seenAt = Number.NEGATIVE_INFINITY;
  /** Until then a claim whose answer was lost may still commit. */
  private doubtfulUntil = Number.NEGATIVE_INFINITY;
  private newerLookedAt: number;
  private newerToldAt = Number.NEGATIVE_INFINITY;

  constructor(
    store: JobStore,
    lanes: ReadonlyMap<string, Lane<C>>,
    options: JobRunnerOptions<C>,
    stopSignal: AbortSignal,
  ) {
    this.store = store;
    this.lanes = lanes;
    this.options = options;
    this.stopSignal = stopSignal;
    this.workerId = uuidV7(options.clock, options.random);
    const { pollMs = 500, heartbeatMs = 1_000 } = options;
    // The first look is in a second or so: what waits then has been left alone.
    this.newerLookedAt = options.clock.monotonic() - newerEveryMs + heartbeatMs / 2;
    this.timers = [
      setInterval(() => this.look(), pollMs).unref(),
      setInterval(() => void this.beat(), heartbeatMs).unref(),
    ];
    void this.beat().then(() => this.look());
  }

  /** Claims what there is room for; a look asked for during a claim follows it. */
  look(): void {
    if (this.isClosed) return;
    this.isLookWanted = true;
    this.claiming ??= this.claimWhileWanted().finally(() => {
      this.claiming = undefined;
      // Asked for after the last claim had seen that nothing more was wanted.
      if (this.isLookWanted) this.look();
    });
  }

  close(): void {
    this.isClosed = true;
    clearInterval(this.timers[0]);
  }

  async finish(): Promise<void> {
    await this.claiming;
    await Promise.all(this.tries);
    const deadline = this.options.clock.monotonic() + 3_000;
    await this.flushing;
    clearTimeout(this.deferredTimer);
    while (this.deferred.length > 0 && this.options.clock.monotonic() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      this.settling.push(...this.deferred.splice(0));
      await this.flush();
    }
    clearInterval(this.timers[1]);
    if (this.deferred.length > 0) return;
    await this.releaseUnknown();
    await this.guarded("leave the queue", () => this.store.leave(this.workerId));
  }

  private async claimWhileWanted(): Promise<void> {
    while (this.isLookWanted && !this.isClosed) {
      this.isLookWanted = false;
      if (!(await this.isSeen())) return;
      await this.releaseUnknown();
      if (!this.mayClaim()) return;
      const wanted = [...this.lanes.values()].flatMap((lane) => {
        const slots = lane.room();
        lane.held += slots;
        if (slots === 0) lane.denied.add(this);
        return slots === 0 ? [] : [{ lane, ...lane.wanted(slots) }];
      });
      if (wanted.length === 0) return;
      const jobs = await this.claim(wanted);
      const denied = wanted.flatMap(({ lane, handler, slots }) => {
        const claimed = jobs.filter((job) => job.handler === handler).length;
        if (claimed === slots) this.isLookWanted = true;
        return lane.release(slots - claimed);
      });
      // Only now that the room of all handlers is free: who looked earlier would find that of the first one, and this store, which
      // looks again at once, the rest, time after time.
      for (const worker of new Set(denied)) worker.look();
      for (const job of jobs) this.start(job);
    }
  }

  /** Jobs are claimed only by a worker that others can see die: not before its first sign of life, nor after it was frozen. */
  private async isSeen(): Promise<boolean> {
    const { clock, leaseMs = leaseMsDefault } = this.options;
    const isLate = () => clock.monotonic() - this.seenAt > leaseMs / 2;
    if (isLate()) await this.beat();
    return !isLate();
  }

  private async claim(wanted: readonly Wanted[]): Promise<ClaimedJob[]> {
    const jobs = await this.guarded("claim jobs", () => this.store.claim(this.workerId, wanted));
    if (jobs === undefined) this.doubtfulUntil = this.options.clock.monotonic() + claimCommitsMsMax;
    else for (const job of jobs) this.held.add(job.sequence);
    return jobs ?? [];
  }

  /** After a claim whose answer was lost this worker may hold jobs that it does not know of: nobody else would take them. */
  private async releaseUnknown(): Promise<void> {
    if (this.options.clock.monotonic() > this.doubtfulUntil) return;
    await this.guarded("release jobs", async () => this.store.releaseUnknown?.(this.workerId, [...this.held]));
  }

  private mayClaim(): boolean {
    return this.options.mayClaim?.(this.store.name) ?? true;
  }

  private start(job: ClaimedJob): void {
    const lane = this.lanes.get(job.handler) as Lane<C>;
    const done = new Promise<void>((resolve) => {
      lane.enter(() => {
        void this.try(lane, job).then(() => {
          lane.leave();
          resolve();
        });
      });
    });
    this.tries.add(done);
    void done.then(() => this.tries.delete(done));
  }

  private async try(lane: Lane<C>, job: ClaimedJob): Promise<void> {
    if (this.isClosed || lane.isPaused || !this.mayClaim()) return this.settle({ job, outcome: { kind: "handBack" } });
    const { clock, context, random } = this.options;
    const { handler } = lane;
    const since = clock.monotonic();
    const { store, workerId, stopSignal } = this;
    const result = await attempt({ handler, context, job, store, workerId, random, stopSignal });
    lane.note(job, result, clock.monotonic() - since);
    this.report(job, result);
    if (result.outcome === "lost") this.free(job);
    else this.settle({ job, outcome: result.outcome });
  }

  private settle(settled: SettledJob): void {
    this.settling.push(settled);
    this.flushSoon();
  }

  private flushSoon(): void {
    this.flushing ??= this.flush().finally(() => {
      this.flushing = undefined;
      if (this.settling.length > 0) this.flushSoon();
      else if (this.deferred.length > 0 && !this.isClosed) this.flushDeferredLater();
    });
  }

  private flushDeferredLater(): void {
    this.deferredTimer ??= setTimeout(() => {
      this.deferredTimer = undefined;
      this.settling.push(...this.deferred.splice(0));
      this.flushSoon();
    }, settleRetryMs).unref();
  }

  /** Settles what is there; what could not be settled is put off. */
  private async flush(): Promise<void> {
    while (this.settling.length > 0) {
      const batch = this.settling.splice(0, 500);
      const result = await this.guarded("settle jobs", () => this.store.settle(this.workerId, batch));
      if (result === undefined) {
        this.deferred.push(...batch);
        continue;
      }
      this.deferred.push(...result.busy);
      for (const settled of batch) if (!result.busy.includes(settled)) this.free(settled.job);
      if (result.freed > 0) this.look();
    }
  }

  private free(job: ClaimedJob): void {
    this.held.delete(job.sequence);
    const lane = this.lanes.get(job.handler) as Lane<C>;
    // What there was no room for is looked for as soon as there is, and what is new is announced: no look is owed here.
    for (const worker of lane.release(1)) worker.look();
  }

  private async beat(): Promise<void> {
    const { clock, leaseMs = leaseMsDefault } = this.options;
    const since = clock.monotonic();
    const freed = await this.guarded("give a sign of life", () => this.store.heartbeat(this.workerId, leaseMs));
    if (freed !== undefined) this.seenAt = since;
    await this.lookForNewer();
    if (freed === undefined || freed === 0) return;
    this.options.log.warn({ store: this.store.name, jobs: freed }, "took over the jobs of a worker that died");
    this.look();
  }

  /** Nothing of it is lost: the jobs wait for a process that reads them. After a way back to an older app nobody may come. */
  private async lookForNewer(): Promise<void> {
    const { clock, log } = this.options;
    const now = clock.monotonic();
    if (now - this.newerLookedAt < newerEveryMs || now - this.newerToldAt < newerToldEveryMs) return;
    this.newerLookedAt = now;
    const wanted = [...this.lanes.values()].map((lane) => lane.wanted(0));
    const found = (await this.guarded("look for newer jobs", async () => this.store.newer?.(wanted))) ?? [];
    if (found.length > 0) this.newerToldAt = now;
    for (const { handler, version } of found) {
      const known = this.lanes.get(handler)?.handler.event.version;
      log.warn({ store: this.store.name, handler, version, known }, "jobs of a newer version wait for newer processes");
    }
  }

  private report(job: ClaimedJob, { outcome, error }: AttemptResult): void {
    const fields = { handler: job.handler, job: job.jobId, attempt: job.attempt };
    const { log } = this.options;
    if (outcome === "lost") log.warn(fields, "a job was taken over by another worker");
    else if (outcome.kind === "retry") log.warn({ ...fields, error, delayMs: outcome.delayMs }, "a job failed");
    else if (outcome.kind === "dead")
      log.error({ ...fields, error, reason: outcome.error }, "a job became a dead letter");
  }

  /** Logs when trouble begins and when it ends, not each time in between. */
  private async guarded<R>(what: string, call: () => Promise<R>): Promise<R | undefined> {
    try {
      const result = await call();
      if (this.isTroubled) this.options.log.info({ store: this.store.name }, "the queue answers again");
      this.isTroubled = false;
      return result;
    } catch (error) {
      if (!this.isTroubled) this.options.log.warn({ store: this.store.name, error }, `could not ${what}; trying again`);
      this.isTroubled = true;
      return undefined;
    }
  }
}
