/**
 * Runs handlers over the jobs of one or several stores, in this process.
 *
 * For each store: claim what there is room for, run it, settle what ended, all in batches of whatever gathered while the
 * last call was under way. A publisher of this process wakes the claims at its commit; jobs published elsewhere, delayed or
 * to be retried are found by looking every `pollMs`.
 *
 * A handler's room is its `concurrency`, and as much again to be claimed ahead when its tries are short, so that it need
 * not wait for the database in between. Jobs count against the room from the claim until they are settled, which bounds
 * everything kept here.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import { type Random, uuidV7 } from "../kernel/random.ts";
import { type AttemptResult, attempt } from "./attempt.ts";
import type { NamedHandler } from "./handler.ts";
import type { ClaimedJob, JobStore, SettledJob } from "./job-store.ts";

/** Counters of one handler since the start of the process, and what it does now. */
export interface HandlerStats {
  readonly handler: string;
  readonly running: number;
  readonly claimed: number;
  readonly done: number;
  readonly retried: number;
  readonly dead: number;
  /** Sum and count of the time between due and claimed, in ms. */
  readonly waitedMs: number;
  readonly delivered: number;
  /** Sum of the time of all tries, in ms. */
  readonly busyMs: number;
}

/** Handlers at work. */
export interface JobRunner {
  /** New jobs may be in the store of that name: look at once. */
  wake(storeName: string): void;
  stats(): HandlerStats[];
  /**
   * Claims nothing more, hands back what has not begun, gives what runs `graceMs`, breaks off the rest and hands it back.
   */
  stop(): Promise<void>;
}

export interface JobRunnerOptions<C> {
  readonly stores: readonly JobStore[];
  readonly handlers: readonly NamedHandler<C>[];
  readonly context: C;
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

/** Tries shorter than this on average are claimed ahead. */
const shortTryMs = 50;
const settleRetryMs = 200;

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
    const stop = this.stopRequest.signal;
    this.workers = options.stores.map((store) => new StoreWorker(store, this.lanes, options, stop));
  }

  wake(storeName: string): void {
    for (const worker of this.workers) if (worker.store.name === storeName) worker.look();
  }

  stats(): HandlerStats[] {
    return [...this.lanes.values()].map((lane) => lane.stats());
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

/** One handler's room and figures in this process, over all stores. */
class Lane<C> {
  readonly handler: NamedHandler<C>;
  readonly waiting: (() => void)[] = [];
  /** Stores that found no room, first come first: each looks again, once, when there is some. */
  readonly denied = new Set<{ look(): void }>();
  /** Jobs claimed or asked for, not yet settled. */
  held = 0;
  running = 0;
  private averageMs = shortTryMs;
  private readonly counts = { done: 0, retried: 0, dead: 0, waitedMs: 0, delivered: 0, busyMs: 0 };

  constructor(handler: NamedHandler<C>) {
    this.handler = handler;
  }

  /** Room for new claims; none until half of it is free, so that claims come in batches. */
  room(): number {
    const { concurrency } = this.handler.options;
    const capacity = this.averageMs < shortTryMs ? concurrency * 2 : concurrency;
    const free = capacity - this.held;
    return free * 2 >= capacity ? free : 0;
  }

  /** Takes room back. Gives those who found none before: they are to look now, first come first. */
  release(slots: number): readonly { look(): void }[] {
    this.held -= slots;
    if (slots === 0 || this.room() === 0) return [];
    const denied = [...this.denied];
    this.denied.clear();
    return denied;
  }

  /** Begins `start` when one of the handler's places is free. */
  enter(start: () => void): void {
    if (this.running < this.handler.options.concurrency) {
      this.running++;
      start();
    } else this.waiting.push(start);
  }

  leave(): void {
    const next = this.waiting.shift();
    if (next === undefined) this.running--;
    else next();
  }

  note(job: ClaimedJob, result: AttemptResult, tookMs: number): void {
    const { counts } = this;
    this.averageMs += (tookMs - this.averageMs) / 8;
    counts.delivered++;
    counts.waitedMs += job.waitedMs;
    counts.busyMs += tookMs;
    const kind = result.outcome === "lost" ? "lost" : result.outcome.kind;
    if (kind === "done") counts.done++;
    if (kind === "retry") counts.retried++;
    if (kind === "dead") counts.dead++;
  }

  stats(): HandlerStats {
    return { handler: this.handler.name, running: this.running, claimed: this.held, ...this.counts };
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
  private claiming: Promise<void> | undefined;
  private flushing: Promise<void> | undefined;
  private isLookWanted = false;
  private isClosed = false;
  private isTroubled = false;

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
    this.timers = [
      setInterval(() => this.look(), pollMs).unref(),
      setInterval(() => void this.beat(), heartbeatMs).unref(),
    ];
    // Jobs are claimed only by a worker that others can see die.
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
    await this.guarded("leave the queue", () => this.store.leave(this.workerId));
  }

  private async claimWhileWanted(): Promise<void> {
    while (this.isLookWanted && !this.isClosed) {
      this.isLookWanted = false;
      const wanted = [...this.lanes.values()].flatMap((lane) => {
        const slots = lane.room();
        lane.held += slots;
        if (slots === 0) lane.denied.add(this);
        return slots === 0 ? [] : [{ lane, handler: lane.handler.name, slots }];
      });
      if (wanted.length === 0) return;
      const jobs = (await this.guarded("claim jobs", () => this.store.claim(this.workerId, wanted))) ?? [];
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
    if (this.isClosed) return this.settle({ job, outcome: { kind: "handBack" } });
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
    const lane = this.lanes.get(job.handler) as Lane<C>;
    // What there was no room for is looked for as soon as there is, and what is new is announced: no look is owed here.
    for (const worker of lane.release(1)) worker.look();
  }

  private async beat(): Promise<void> {
    const { leaseMs = 5_000 } = this.options;
    const freed = await this.guarded("give a sign of life", () => this.store.heartbeat(this.workerId, leaseMs));
    if (freed === undefined || freed === 0) return;
    this.options.log.warn({ store: this.store.name, jobs: freed }, "took over the jobs of a worker that died");
    this.look();
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
