/**
 * One follower, watched.
 *
 * - `up`: may answer reads. `lagging`: behind by more than the limit, or on another timeline than the leader.
 * - `down`: it does not answer, its timeline is not known, or it was ejected after an error: it returns after two good looks.
 * - `not-a-follower`: it is not in recovery. Under Patroni every member is listed, and one of them leads at a time.
 *
 * What is known of it is used for `freshMsMax`; a look is one cheap query, and a reader who waits for it looks at once.
 */
import type { Clock } from "../../kernel/clock.ts";
import type { Logger } from "../../kernel/log.ts";
import type { ShardConnection } from "../database.ts";
import type { LagRecord } from "./lag-record.ts";
import { isAfter, type Position } from "./position.ts";
import type { PositionSource } from "./read-context.ts";
import { type Observation, ServerPosition } from "./server-position.ts";

export type FollowerState = "up" | "lagging" | "down" | "not-a-follower";

/** Figures of a follower at one moment. */
export interface FollowerStats {
  readonly name: string;
  readonly state: FollowerState;
  /** Undefined while it is not known. */
  readonly lagMs: number | undefined;
  /** Reads it has not answered yet. */
  readonly inFlight: number;
  readonly reads: number;
  readonly ejections: number;
}

/** Good looks in a row after which an ejected follower gets reads again. */
const looksToReturn = 2;

/** A look by the clock is not repeated sooner than this after a failure, doubling up to the last. */
const backOffMs = [250, 500, 1_000, 2_000, 5_000] as const;

export class Follower implements PositionSource {
  readonly server: ShardConnection;
  /** What it gives it has from the leader, whose log is at least as far. */
  readonly coveredBy: PositionSource;
  inFlight = 0;
  reads = 0;
  ejections = 0;
  /**
   * How often it was found behind where it had been: a server that restarts answers as soon as it is consistent, and replays the
   * rest of its log again. What was read of it across a restart may be older than it was chosen for.
   */
  restarts = 0;
  lagMs: number | undefined;
  /** What it has replayed at least. */
  position: Position | undefined;
  private readonly clock: Clock;
  private readonly log: Logger;
  private readonly lag: LagRecord;
  private readonly limits: { readonly lagMsMax: number; readonly freshMsMax: number };
  private readonly asked: ServerPosition;
  private follows: boolean | undefined;
  /** The furthest it was, on the newest timeline. */
  private furthest: Position | undefined;
  private goodLooks = looksToReturn;
  private failures = 0;
  private failedAt = Number.NEGATIVE_INFINITY;
  private saidRights = false;

  constructor(options: {
    readonly server: ShardConnection;
    readonly clock: Clock;
    readonly log: Logger;
    readonly lag: LagRecord;
    readonly leader: PositionSource;
    readonly limits: { readonly lagMsMax: number; readonly freshMsMax: number; readonly probeMsMax: number };
  }) {
    const { server, clock, limits } = options;
    this.server = server;
    this.clock = clock;
    this.log = options.log;
    this.lag = options.lag;
    this.coveredBy = options.leader;
    this.limits = limits;
    this.asked = new ServerPosition({
      connection: server,
      clock,
      timeoutMs: limits.probeMsMax,
      onObserved: (observation) => this.observed(observation),
    });
    // A restarted server is only reached by new connections: where it is, is known again before they are used.
    server.beforeUse(async () => void (await this.asked.observe()));
  }

  /** By the newest look, however old it is. */
  get state(): FollowerState {
    if (this.follows === false) return "not-a-follower";
    if (this.position === undefined || this.goodLooks < looksToReturn) return "down";
    // Looked at before the new leader was.
    if (this.position.timeline < this.lag.timeline) return "lagging";
    return this.lagMs === undefined || this.lagMs > this.limits.lagMsMax ? "lagging" : "up";
  }

  /** Whether the newest look is too old to go by. */
  isUnknown(now: number): boolean {
    const { last } = this.asked;
    return last === undefined || now - last.askedAt > this.limits.freshMsMax;
  }

  /** Whether it may answer a read now, and has replayed the demand. */
  canAnswer(demand: Position | undefined, now: number): boolean {
    if (this.state !== "up" || this.isUnknown(now)) return false;
    if (demand === undefined) return true;
    const { timeline, lsn } = this.position as Position;
    return timeline === demand.timeline && lsn >= demand.lsn;
  }

  /** Whether waiting for it makes sense: it may have replayed the demand meanwhile, or do so soon. */
  mayGetThere(demand: Position | undefined, now: number): boolean {
    if (this.failures > 0 && this.goodLooks < looksToReturn) return false;
    if (this.isUnknown(now)) return now >= this.nextLookAt;
    return this.state === "up" && (demand === undefined || this.position?.timeline === demand.timeline);
  }

  /** Looks at it. Never raises: a failure makes it `down`. */
  async look(): Promise<void> {
    try {
      await this.asked.observe();
    } catch (error) {
      this.failed(error);
    }
  }

  /** A look by the clock: a server that does not answer is asked less and less often. */
  async lookAgain(): Promise<void> {
    if (this.clock.monotonic() >= this.nextLookAt) await this.look();
  }

  /**
   * Covers what was read here before the call. A commit becomes visible a moment before its record counts as replayed. So if
   * records wait, a second look is taken: either replay has moved on, past that record, or it holds before the next one.
   */
  async positionNow(): Promise<Position> {
    try {
      const { isReplaying } = await this.asked.observe();
      if (isReplaying) await this.asked.observe();
    } catch (error) {
      this.failed(error);
      throw error;
    }
    return this.position ?? this.asked.positionNow();
  }

  /** It did not answer a look or a read: out it goes, until it has answered twice. */
  failed(error: unknown): void {
    const wasUp = this.state === "up";
    // One outage fails many reads at once, and is one failure.
    if (this.goodLooks > 0 || this.clock.monotonic() >= this.nextLookAt) {
      this.failures++;
      this.failedAt = this.clock.monotonic();
    }
    this.goodLooks = 0;
    this.position = undefined;
    this.lagMs = undefined;
    if (!wasUp) return;
    this.ejections++;
    this.log.warn({ error, follower: this.server.name }, "a follower does not answer and gets no reads until it does");
  }

  stats(): FollowerStats {
    const { state, lagMs, inFlight, reads, ejections } = this;
    return { name: this.server.name, state, lagMs, inFlight, reads, ejections };
  }

  private get nextLookAt(): number {
    if (this.failures === 0) return Number.NEGATIVE_INFINITY;
    return this.failedAt + (backOffMs[Math.min(this.failures, backOffMs.length) - 1] as number);
  }

  private observed({ follows, position, lacksRights, askedAt }: Observation): void {
    const before = this.state;
    this.follows = follows;
    this.position = follows ? position : undefined;
    if (position !== undefined) {
      if (this.furthest !== undefined && isAfter(this.furthest, position)) this.restarts++;
      this.furthest = position;
    }
    this.lagMs = this.position === undefined ? undefined : this.lag.lagMs(this.position, askedAt);
    if (this.goodLooks < looksToReturn) this.goodLooks++;
    if (this.goodLooks === looksToReturn) this.failures = 0;
    if (lacksRights && !this.saidRights) {
      this.saidRights = true;
      this.log.error(
        { follower: this.server.name },
        "a follower's timeline may not be seen, so it gets no reads: grant pg_monitor to the login of the app",
      );
    }
    const after = this.state;
    if (before !== after) this.log.info({ follower: this.server.name, before, after }, "a follower changed its state");
  }
}
