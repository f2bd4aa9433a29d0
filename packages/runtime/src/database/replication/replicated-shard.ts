/**
 * A shard with a leader and followers, behind the same interface as a single server.
 *
 * - Statements outside transactions that only read (`judge.ts`) go to a follower, if they run in a unit of work
 *   (`read-context.ts`) and one has replayed what the unit must see; else they wait for one a moment; else the leader answers.
 * - Everything else goes to the leader. Transactions do, but those that ask for `access: "read only"` are routed like reads.
 * - A unit of work stays with the follower it read from, so that it never sees less than it saw.
 *
 * What a unit must see is the later of its own demand and the floor: the newest commit this process has heard of.
 */
import { Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from "kysely";
import type { Clock } from "../../kernel/clock.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { ShardConnection } from "../database.ts";
import { Follower } from "./follower.ts";
import { FollowerReads, type ReadStatement } from "./follower-read.ts";
import { mayRunOnFollower } from "./judge.ts";
import { LagRecord } from "./lag-record.ts";
import { LeaderWatch } from "./leader-watch.ts";
import { isAfter, type Position } from "./position.ts";
import { onLeaders, type PositionSource, type ReadContext, readContext } from "./read-context.ts";
import { type Choice, ReadRouter } from "./read-router.ts";
import { type LeaderReason, ReplicationCounters, type ReplicationStats } from "./replication-stats.ts";
import { RoutedDriver, type TransactionServer } from "./routed-driver.ts";

/** Limits of reads from followers. */
export interface ReplicationSettings {
  /** A follower further behind than this answers nothing; default 5,000 ms. */
  readonly lagMsMax?: number;
  /** How long a read waits for a follower to replay what it must see, before the leader answers; default 50 ms. */
  readonly waitMsMax?: number;
  /** Reads that wait at once; default 1,000. One more is answered by the leader. */
  readonly waitersMax?: number;
  /** How often followers and leader are looked at while there are reads; default 250 ms. */
  readonly lookEveryMs?: number;
  /** A server that does not say its position within this is down; default 1,000 ms. */
  readonly lookMsMax?: number;
  /** A read is sent to a second server not before this; default 50 ms. */
  readonly hedgeMsMin?: number;
  /** Share of reads that may be sent twice; default 0.05. 0 turns it off. */
  readonly hedgeShareMax?: number;
}

/** A shard whose reads go to followers. */
export interface ReplicatedShard extends ShardConnection, PositionSource {
  /** Reads in units of work see at least this from now on. */
  raiseFloor(position: Position): void;
  /** Has the leader answer all reads until what it gives is called: while it is not known how high the floor has to be. */
  holdFollowers(): () => void;
  /** The leader's position: covers all that was committed there before the call. */
  positionNow(): Promise<Position>;
  replicationStats(): ReplicationStats;
  /** Looks at every server now; for a start that wants followers known, and for tests. Never raises. */
  look(): Promise<void>;
}

/** Used this recently, the servers are looked at as often as the settings say, and otherwise every 5 s. */
const inUseMs = 10_000;
const idleLookEveryMs = 5_000;

/** Joins servers to a shard and begins to watch them; `close` closes them all. */
export function replicatedShard(options: {
  /** The shard's number, as positions name it. */
  readonly shard: number;
  readonly leader: ShardConnection;
  readonly followers: readonly ShardConnection[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Logger;
  readonly settings?: ReplicationSettings;
}): ReplicatedShard {
  return new RoutedShard(options);
}

class RoutedShard implements ReplicatedShard {
  readonly name: string;
  readonly kysely: Kysely<unknown>;
  readonly driver = new RoutedDriver(this);
  private readonly shard: number;
  private readonly leader: ShardConnection;
  private readonly followers: readonly Follower[];
  private readonly leaderWatch: LeaderWatch;
  private readonly router: ReadRouter;
  private readonly reads: FollowerReads;
  private readonly counters = new ReplicationCounters();
  private readonly onLeader: TransactionServer;
  private readonly clock: Clock;
  private readonly lookEveryMs: number;
  private readonly timer: NodeJS.Timeout;
  private usedAt = Number.NEGATIVE_INFINITY;
  private lookedAt = Number.NEGATIVE_INFINITY;
  private looking: Promise<void> | undefined;

  constructor(options: Parameters<typeof replicatedShard>[0]) {
    const { shard, leader, clock, random, log = silentLogger, settings = {} } = options;
    const { lagMsMax = 5_000, waitMsMax = 50, waitersMax = 1_000, lookEveryMs = 250, lookMsMax = 1_000 } = settings;
    const { hedgeMsMin = 50, hedgeShareMax = 0.05 } = settings;
    this.name = leader.name;
    this.shard = shard;
    this.leader = leader;
    this.onLeader = { server: leader, isLeader: true, isStill: () => true, end() {} };
    this.clock = clock;
    this.lookEveryMs = lookEveryMs;
    const lag = new LagRecord();
    const freshMsMax = 4 * lookEveryMs;
    const { counters } = this;
    this.leaderWatch = new LeaderWatch({ server: leader, clock, log, lag, counters, lookMsMax });
    const limits = { lagMsMax, freshMsMax, probeMsMax: lookMsMax };
    this.followers = options.followers.map(
      (server) => new Follower({ server, clock, log, lag, limits, leader: this.leaderWatch }),
    );
    this.leaderWatch.onTimeline = (position) => {
      // Whatever of the floor survived is covered by where the new leader was found.
      if (this.router.floor !== undefined && isAfter(position, this.router.floor)) this.router.floor = position;
    };
    this.router = new ReadRouter({
      shard,
      leader: this.leaderWatch,
      followers: this.followers,
      clock,
      random,
      counters,
      limits: { waitMsMax, waitersMax },
    });
    this.reads = new FollowerReads({
      shard,
      leader: { server: leader, position: this.leaderWatch },
      router: this.router,
      clock,
      counters,
      hedgeMsMin,
      hedgeShareMax,
    });
    this.kysely = new Kysely<unknown>({
      dialect: {
        createAdapter: () => new PostgresAdapter(),
        createDriver: () => this.driver,
        createIntrospector: (db) => new PostgresIntrospector(db),
        createQueryCompiler: () => new PostgresQueryCompiler(),
      },
    });
    this.timer = setInterval(() => this.tick(), lookEveryMs).unref();
    void this.look();
  }

  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]> {
    const context = readContext();
    if (!mayRunOnFollower(sql)) {
      this.noteWrite(context);
      return this.leader.query(name, sql, values);
    }
    if (context === undefined) {
      this.counters.readsByLeader.outside++;
      return this.leader.query(name, sql, values, true);
    }
    const choice = this.choose(context);
    if (choice !== undefined) return this.read(choice, context, { name, sql, values });
    return this.router.wait(context).then((found) => this.read(found, context, { name, sql, values }));
  }

  ask<R>(name: string, sql: string, values: unknown[]): Promise<R[]> {
    return this.leader.ask(name, sql, values);
  }

  beforeUse(check: () => Promise<void>): void {
    this.leader.beforeUse(check);
  }

  get named(): ShardConnection["named"] {
    return this.leader.named;
  }

  stats() {
    return this.leader.stats();
  }

  raiseFloor(position: Position): void {
    const { router } = this;
    const { newest } = this.leaderWatch;
    // Of a timeline that ended: what survived of it is covered by where the new leader was found.
    if (newest !== undefined && position.timeline < newest.timeline) return;
    if (router.floor === undefined || isAfter(position, router.floor)) router.floor = position;
  }

  holdFollowers(): () => void {
    this.router.holds++;
    let isHeld = true;
    return () => {
      if (isHeld) this.router.holds--;
      isHeld = false;
    };
  }

  positionNow(): Promise<Position> {
    return this.leaderWatch.positionNow();
  }

  replicationStats(): ReplicationStats {
    const { name, counters, followers } = this;
    return {
      shard: name,
      ...counters,
      readsByLeader: { ...counters.readsByLeader },
      timeline: this.leaderWatch.newest?.timeline ?? 0,
      ejections: followers.reduce((sum, follower) => sum + follower.ejections, 0),
      followers: followers.map((follower) => follower.stats()),
    };
  }

  look(): Promise<void> {
    this.lookedAt = this.clock.monotonic();
    this.looking ??= onLeaders(() => this.lookAtAll()).finally(() => {
      this.looking = undefined;
    });
    return this.looking;
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    this.reads.close();
    await this.kysely.destroy();
    await Promise.all([this.leader, ...this.followers.map(({ server }) => server)].map((server) => server.close()));
  }

  /** For the driver of Kysely: where a transaction runs. Notes what it does to the unit of work. */
  async transactionServer(isReadOnly: boolean): Promise<TransactionServer> {
    const context = readContext();
    if (!isReadOnly) {
      this.noteWrite(context);
      return this.onLeader;
    }
    if (context === undefined) {
      this.counters.readsByLeader.outside++;
      return this.onLeader;
    }
    const choice = this.choose(context) ?? (await this.router.wait(context));
    if (!("follower" in choice)) {
      this.noteLeaderRead(context, choice.reason);
      return this.onLeader;
    }
    const { follower } = choice;
    context.noteRead(this.shard, follower);
    this.counters.readsByFollowers++;
    follower.reads++;
    follower.inFlight++;
    const { restarts } = follower;
    return {
      server: follower.server,
      isLeader: false,
      isStill: () => follower.restarts === restarts,
      end: () => void follower.inFlight--,
    };
  }

  /** For the driver of Kysely: the leader, for a transaction that the follower could not begin. */
  leaderInstead(): TransactionServer {
    const context = readContext();
    if (context !== undefined) this.noteLeaderRead(context, "failed");
    return this.onLeader;
  }

  private choose(context: ReadContext): Choice | undefined {
    if (this.followers.length === 0) return { reason: "none-up" };
    const now = this.clock.monotonic();
    // After a quiet time nothing is known of the followers: the first reader looks.
    if (now - this.usedAt > inUseMs && now - this.lookedAt > this.lookEveryMs) void this.look();
    this.usedAt = now;
    const required = context.requiredOf(this.shard);
    if (required !== undefined) this.leaderWatch.compare(required, context);
    return this.router.choose(context);
  }

  private read<R>(choice: Choice, context: ReadContext, statement: ReadStatement): Promise<R[]> {
    if ("follower" in choice) return this.reads.run(choice.follower, context, statement);
    this.noteLeaderRead(context, choice.reason);
    return this.leader.query(statement.name, statement.sql, statement.values, true);
  }

  private noteLeaderRead(context: ReadContext, reason: LeaderReason): void {
    this.counters.readsByLeader[reason]++;
    context.noteRead(this.shard, this.leaderWatch);
  }

  private noteWrite(context: ReadContext | undefined): void {
    this.counters.writes++;
    context?.noteWrite(this.shard, this.leaderWatch);
  }

  private async lookAtAll(): Promise<void> {
    if (this.followers.length === 0) return;
    await Promise.all([this.leaderWatch.look(), ...this.followers.map((follower) => follower.lookAgain())]);
  }

  private tick(): void {
    const now = this.clock.monotonic();
    if (now - this.usedAt > inUseMs && now - this.lookedAt < idleLookEveryMs) return;
    void this.look();
  }
}
