/**
 * Asks every shard what it owns, every second and whenever routing needs to know, and waits for a key's owner.
 *
 * Each shard is asked by itself, over a connection of its own: a shard or home database that is down keeps no other's lease from
 * being renewed, and neither does a pool whose connections are all busy.
 */
import type { Clock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Lease, PlacementLeases, ShardClaim } from "./placement-lease.ts";

/** How routing learns where to go; what {@link PlacementWatch} gives. */
export interface PlacementSource {
  /** The shard that claims the key, though its lease may have ended; undefined while the key is between two owners. */
  ownerOf(key: string): number | undefined;
  /** The owner's lease if it holds now; else {@link PlacementSource.obtain} has to be asked. */
  leaseOf(key: string): Lease | undefined;
  /**
   * Waits for the owner of the key to be known and its lease to hold. Raises `SHARD_MOVED` when the key stays without owner, and
   * `SHARD_LEASE_EXPIRED` when the owner does not answer.
   */
  obtain(key: string): Promise<Lease>;
  /** As {@link PlacementSource.obtain}, of the shard of that number. */
  obtainShard(shard: number): Promise<Lease>;
  /** Whether the shard still makes the claim that the lease is by. */
  isLatest(lease: Lease): boolean;
  /** Asks all shards anew, at once; a shard that does not answer keeps its old claim. Raises nothing. */
  refresh(): Promise<void>;
  /** Waits a moment, for something that is under way elsewhere. */
  pause(): Promise<void>;
  /** The shard refused a key that it was thought to own. */
  noteRefusal(shard: number): void;
}

/** What this process knows of one shard. */
export interface ShardStanding {
  readonly shard: number;
  /** Whether its lease holds, so that it is used. */
  readonly isUsed: boolean;
  /** Epoch of its claim; 0 before it has made one. */
  readonly epoch: number;
  /** Keys it refused since the start. */
  readonly refusals: number;
}

export interface PlacementWatchOptions {
  readonly leases: PlacementLeases;
  /** Asks one shard; undefined while it has not been told what it owns. */
  readonly read: (shard: number) => Promise<ShardClaim | undefined>;
  /** Shards that could not be reached at the start; `prepare` is called before their first claim counts. */
  readonly unprepared?: readonly number[];
  readonly prepare?: (shard: number) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Default: a timer of the machine. */
  readonly sleep?: (ms: number) => Promise<void>;
  /** How often all shards are asked; default 1,000 ms. */
  readonly everyMs?: number;
  /** How long a caller waits for a key that is between two owners; default 2,000 ms. */
  readonly waitMsMax?: number;
  /** Callers that may wait at once; default 1,000. */
  readonly waitersMax?: number;
}

/** A shard that failed to answer this lately is not asked again for each request. */
const failureMemoryMs = 500;
/** Longest that a request waits for a shard's answer; the question itself goes on. */
const answerMsMax = 1_000;
const pauseMs = 50;

interface Asked {
  startedAtMs: number;
  running: Promise<void> | undefined;
  next: Promise<void> | undefined;
  failure: { readonly error: unknown; readonly atMs: number } | undefined;
  isDown: boolean;
}

/** The claims of all shards, kept fresh. */
export class PlacementWatch implements PlacementSource {
  private readonly options: PlacementWatchOptions;
  private readonly leases: PlacementLeases;
  private readonly asked: Asked[];
  private readonly unprepared: Set<number>;
  private readonly sleep: (ms: number) => Promise<void>;
  private readonly refusals: number[];
  private timer: NodeJS.Timeout | undefined;
  private waiters = 0;

  constructor(options: PlacementWatchOptions) {
    this.options = options;
    this.leases = options.leases;
    this.unprepared = new Set(options.unprepared);
    this.sleep = options.sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)));
    this.refusals = new Array<number>(options.leases.shardCount).fill(0);
    this.asked = Array.from({ length: options.leases.shardCount }, () => ({
      ...{ running: undefined, next: undefined, failure: undefined },
      ...{ startedAtMs: 0, isDown: false },
    }));
  }

  /** Asks all shards, and again and again until {@link PlacementWatch.stop}. Resolves when those that are up have answered. */
  async start(): Promise<void> {
    const askAll = () => this.asked.map((asked, shard) => asked.running ?? this.ask(shard));
    this.timer ??= setInterval(askAll, this.options.everyMs ?? 1_000).unref();
    const asked = askAll();
    // What is down is not waited for.
    await Promise.all(asked.filter((_, shard) => !this.unprepared.has(shard)));
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    await Promise.all(this.asked.map(({ running }) => running));
  }

  standings(): ShardStanding[] {
    return this.refusals.map((refusals, shard) => {
      const lease = this.leases.leaseOf(shard);
      return { shard, isUsed: this.leases.isHeld(lease), epoch: lease.epoch, refusals };
    });
  }

  noteRefusal(shard: number): void {
    this.refusals[shard] = (this.refusals[shard] ?? 0) + 1;
  }

  ownerOf(key: string): number | undefined {
    return this.leases.ownerOf(key);
  }

  leaseOf(key: string): Lease | undefined {
    const owner = this.leases.ownerOf(key);
    if (owner === undefined) return undefined;
    const lease = this.leases.leaseOf(owner);
    return this.leases.isHeld(lease) ? lease : undefined;
  }

  obtain(key: string): Promise<Lease> {
    return this.waiting(async (deadline) => {
      for (;;) {
        const owner = this.leases.ownerOf(key);
        if (owner !== undefined) {
          const lease = await this.renewed(owner);
          // What was heard while waiting may name another owner.
          if (this.leases.ownerOf(key) === lease.shard) return lease;
        } else {
          await this.refresh();
          if (this.leases.ownerOf(key) === undefined) await this.pause();
        }
        if (this.options.clock.monotonic() >= deadline) throw this.betweenOwners();
      }
    });
  }

  obtainShard(shard: number): Promise<Lease> {
    const lease = this.leases.leaseOf(shard);
    return this.leases.isHeld(lease) ? Promise.resolve(lease) : this.waiting(() => this.renewed(shard));
  }

  isLatest(lease: Lease): boolean {
    return this.leases.leaseOf(lease.shard) === lease;
  }

  async refresh(): Promise<void> {
    await Promise.race([Promise.all(this.asked.map((_, shard) => this.ask(shard))), this.sleep(answerMsMax)]);
  }

  pause(): Promise<void> {
    return this.sleep(pauseMs);
  }

  /** The shard's lease, asked for anew when it has ended. */
  private async renewed(shard: number): Promise<Lease> {
    const isHeld = () => this.leases.isHeld(this.leases.leaseOf(shard));
    if (!isHeld() && !this.hasJustFailed(shard)) await Promise.race([this.ask(shard), this.sleep(answerMsMax)]);
    if (!isHeld()) throw this.expired(shard);
    return this.leases.leaseOf(shard);
  }

  private hasJustFailed(shard: number): boolean {
    const { failure, running, startedAtMs } = this.asked[shard] as Asked;
    const nowMs = this.options.clock.monotonic();
    const isSilent = running !== undefined && nowMs - startedAtMs >= answerMsMax;
    return isSilent || (failure !== undefined && nowMs - failure.atMs < failureMemoryMs);
  }

  /** Resolves when the shard was asked after this call began, whatever came of it. */
  private ask(shard: number): Promise<void> {
    const asked = this.asked[shard] as Asked;
    if (asked.running === undefined) {
      asked.startedAtMs = this.options.clock.monotonic();
      asked.running = this.askNow(shard, asked).finally(() => {
        asked.running = undefined;
      });
      return asked.running;
    }
    // The question under way may have been answered before this call: one more, for all who ask meanwhile.
    asked.next ??= asked.running.then(() => {
      asked.next = undefined;
      return this.ask(shard);
    });
    return asked.next;
  }

  private async askNow(shard: number, asked: Asked): Promise<void> {
    const { clock, log, prepare, read } = this.options;
    try {
      if (this.unprepared.has(shard)) {
        await prepare?.(shard);
        this.unprepared.delete(shard);
      }
      const askedAtMs = clock.monotonic();
      const claim = await read(shard);
      if (claim === undefined) throw new Error(`Shard ${shard} has not been told what it owns.`);
      this.leases.confirm(shard, claim, askedAtMs);
      if (asked.isDown) log.info({ shard }, "a shard confirms again what it owns");
      asked.isDown = false;
      asked.failure = undefined;
    } catch (error) {
      if (!asked.isDown) log.error({ shard, error }, "a shard does not confirm what it owns; its users are not served");
      asked.isDown = true;
      asked.failure = { error, atMs: clock.monotonic() };
    }
  }

  private async waiting<R>(wait: (deadline: number) => Promise<R>): Promise<R> {
    const { clock, waitMsMax = 2_000, waitersMax = 1_000 } = this.options;
    if (this.waiters >= waitersMax) throw this.betweenOwners();
    this.waiters++;
    try {
      return await wait(clock.monotonic() + waitMsMax);
    } finally {
      this.waiters--;
    }
  }

  private betweenOwners(): UnavailableError {
    const { waitMsMax = 2_000 } = this.options;
    return new UnavailableError(
      "SHARD_MOVED",
      `No shard owned the key for ${waitMsMax} ms, or too many callers wait for one: it is being moved, or a shard is down. Try again.`,
      { canRetry: true },
    );
  }

  private expired(shard: number): UnavailableError {
    const { untilMs } = this.leases.leaseOf(shard);
    const silentMs = this.options.clock.monotonic() - untilMs + this.leases.leaseMs;
    const since = Number.isFinite(silentMs) ? `for ${Math.round(silentMs)} ms` : "since this process started";
    return new UnavailableError(
      "SHARD_LEASE_EXPIRED",
      `Shard ${shard} has not confirmed what it owns ${since}; limit ${this.leases.leaseMs} ms. Its users are not served until it answers.`,
      { canRetry: true, cause: this.asked[shard]?.failure?.error },
    );
  }
}
