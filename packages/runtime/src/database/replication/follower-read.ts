/**
 * A read on a follower until it is answered: sent again elsewhere when the follower fails, and sent twice when it is slow.
 *
 * Both are safe because these statements only read, on their own, outside any transaction.
 */
import type { Clock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import type { Follower } from "./follower.ts";
import { neverOnFollower } from "./judge.ts";
import { onLeaders, type PositionSource, type ReadContext } from "./read-context.ts";
import { ReadPace } from "./read-pace.ts";
import type { ReadRouter } from "./read-router.ts";
import type { ReplicationCounters } from "./replication-stats.ts";

/** What is sent. */
export interface ReadStatement {
  readonly name: string | undefined;
  readonly sql: string;
  readonly values: unknown[];
}

interface ReadUnderWay {
  readonly statement: ReadStatement;
  readonly context: ReadContext;
  readonly first: Follower;
  readonly startedAt: number;
  readonly resolve: (rows: never[]) => void;
  readonly reject: (error: unknown) => void;
  /** Answers still to come. */
  outstanding: number;
  /** Nothing of the shard was read before in the unit of work: another follower cannot give less than what was seen. */
  readonly isFirst: boolean;
  isRepeated: boolean;
  isHedged: boolean;
  wasAtLeader: boolean;
  isDone: boolean;
  older: ReadUnderWay | undefined;
  newer: ReadUnderWay | undefined;
}

/** How often slow reads are looked for. */
const sweepEveryMs = 10;
/** Sweeps without any read after which the timer rests. */
const idleSweepsMax = 50;

/** The reads of a shard that followers have not answered yet. */
export class FollowerReads {
  /** The oldest and the newest under way; a list of their own links, because each read goes in and out of it. */
  private oldest: ReadUnderWay | undefined;
  private newest: ReadUnderWay | undefined;
  private readonly pace: ReadPace;
  private readonly shard: number;
  private readonly leader: { readonly server: ShardConnection; readonly position: PositionSource };
  private readonly router: ReadRouter;
  private readonly clock: Clock;
  private readonly counters: ReplicationCounters;
  private readonly hedgeMsMin: number;
  private timer: NodeJS.Timeout | undefined;
  private idleSweeps = 0;

  constructor(options: {
    readonly shard: number;
    readonly leader: { readonly server: ShardConnection; readonly position: PositionSource };
    readonly router: ReadRouter;
    readonly clock: Clock;
    readonly counters: ReplicationCounters;
    readonly hedgeMsMin: number;
    readonly hedgeShareMax: number;
  }) {
    this.shard = options.shard;
    this.leader = options.leader;
    this.router = options.router;
    this.clock = options.clock;
    this.counters = options.counters;
    this.hedgeMsMin = options.hedgeMsMin;
    this.pace = new ReadPace(options.hedgeShareMax);
  }

  /** Runs the statement on the follower, or on another server if need be. */
  run<R>(follower: Follower, context: ReadContext, statement: ReadStatement): Promise<R[]> {
    return new Promise<R[]>((resolve, reject) => {
      const read: ReadUnderWay = {
        statement,
        context,
        first: follower,
        startedAt: this.clock.monotonic(),
        resolve: resolve as (rows: never[]) => void,
        reject,
        outstanding: 0,
        isFirst: context.readersOf(this.shard) === undefined,
        isRepeated: false,
        isHedged: false,
        wasAtLeader: false,
        isDone: false,
        older: this.newest,
        newer: undefined,
      };
      if (this.newest === undefined) this.oldest = read;
      else this.newest.newer = read;
      this.newest = read;
      this.timer ??= onLeaders(() => setInterval(() => this.sweep(), sweepEveryMs).unref());
      this.send(read, follower);
    });
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.idleSweeps = 0;
  }

  private send(read: ReadUnderWay, follower: Follower | undefined): void {
    const { name, sql, values } = read.statement;
    read.outstanding++;
    read.context.noteAsked(this.shard, follower ?? this.leader.position);
    if (follower === undefined) read.wasAtLeader = true;
    else {
      follower.inFlight++;
      follower.reads++;
    }
    const server = follower?.server ?? this.leader.server;
    const restarts = follower?.restarts;
    server.query<never>(name, sql, values, true).then(
      (rows) => {
        if (follower?.restarts === restarts) this.answered(read, follower, rows);
        else this.failed(read, follower, restarted(server));
      },
      (error: unknown) => this.failed(read, follower, error),
    );
  }

  private answered(read: ReadUnderWay, follower: Follower | undefined, rows: never[]): void {
    if (follower !== undefined) follower.inFlight--;
    read.outstanding--;
    if (read.isDone) return;
    // What one that was too late gave is nobody's.
    read.context.noteRead(this.shard, follower ?? this.leader.position);
    this.pace.note(this.clock.monotonic() - read.startedAt);
    if (follower === undefined) this.counters.readsByLeader.failed++;
    else this.counters.readsByFollowers++;
    if (read.isHedged && follower !== read.first && read.outstanding > 0) this.counters.hedgesWon++;
    this.done(read);
    read.resolve(rows);
  }

  private failed(read: ReadUnderWay, follower: Follower | undefined, error: unknown): void {
    if (follower !== undefined) follower.inFlight--;
    read.outstanding--;
    const fault = follower === undefined ? undefined : faultOf(error);
    if (fault === "server") follower?.failed(error);
    if (fault === "write") neverOnFollower(read.statement.sql);
    if (read.isDone) return;
    if (read.outstanding > 0 && (fault !== undefined || follower === undefined)) return;
    if (fault === undefined || read.wasAtLeader) {
      this.done(read);
      read.reject(error);
      return;
    }
    this.counters.retries++;
    // Once to another follower; the leader is the last resort, and knows what followers may not know yet.
    const isLeaders = fault === "write" || fault === "schema" || read.isRepeated;
    read.isRepeated = true;
    // A statement that writes after all: what it did on the leader is the unit's own.
    if (fault === "write") read.context.noteWrite(this.shard, this.leader.position);
    this.send(read, isLeaders ? undefined : this.another(read));
  }

  private done(read: ReadUnderWay): void {
    read.isDone = true;
    const { older, newer } = read;
    if (older === undefined) this.oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.newest = older;
    else newer.older = older;
    // An old one would keep all that came after it from being collected.
    read.older = undefined;
    read.newer = undefined;
  }

  /** Sends reads a second time: those of followers that went down, and those unanswered for thrice what nearly all take. */
  private sweep(): void {
    if (this.oldest === undefined) {
      if (++this.idleSweeps >= idleSweepsMax) this.close();
      return;
    }
    this.idleSweeps = 0;
    const slowMs = Math.max(this.hedgeMsMin, 3 * (this.pace.p95Ms ?? 0));
    const now = this.clock.monotonic();
    for (let read: ReadUnderWay | undefined = this.oldest; read !== undefined; read = read.newer) {
      if (read.isRepeated) continue;
      // A follower that was found to be down meanwhile may never answer: that is no hedge, and costs no budget.
      const isLost = read.first.state === "down";
      if (!isLost && (now - read.startedAt < slowMs || !this.pace.takeHedge())) continue;
      read.isRepeated = true;
      read.isHedged = !isLost;
      if (isLost) this.counters.retries++;
      else this.counters.hedges++;
      this.send(read, this.another(read));
    }
  }

  private another(read: ReadUnderWay): Follower | undefined {
    return read.isFirst ? this.router.another(read.context, read.first) : undefined;
  }
}

/**
 * What makes a follower fail at a read that another server can answer; undefined when the statement itself is at fault.
 *
 * - `server`: it is gone, or says that it goes. `conflict`: replay needed what the read looked at (40001, 40P01), or its
 *   connections are all busy. `schema`: a migration has not arrived there. `write`: the statement writes.
 */
function faultOf(error: unknown): "server" | "conflict" | "schema" | "write" | undefined {
  const code = stateOf(error) ?? stateOf((error as { cause?: unknown } | undefined)?.cause);
  if (code === "25006") return "write";
  if (code === "40001" || code === "40P01" || code === "57P04") return "conflict";
  if (code !== undefined && schemaStates.has(code)) return "schema";
  if (!(error instanceof UnavailableError)) return undefined;
  if (error.code === "DATABASE_UNREACHABLE") return "server";
  return error.code === "POOL_EXHAUSTED" ? "conflict" : undefined;
}

/** What it answered may be older than it was chosen for; counts as a conflict with replay. */
function restarted({ name }: ShardConnection): Error {
  return Object.assign(new Error(`${name} was restarted during a read.`), { code: "40001" });
}

/** An unknown column, function, table, schema or type; a prepared plan that no longer fits. */
const schemaStates: ReadonlySet<string> = new Set(["42703", "42883", "42P01", "3F000", "42704", "0A000"]);

/** The SQLSTATE, as opposed to the codes of Rungs and of the system. */
function stateOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}
