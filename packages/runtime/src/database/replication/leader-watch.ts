/** The leader's position and timeline, and what a fail-over may have lost. */
import type { Clock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { ShardConnection } from "../database.ts";
import type { LagRecord } from "./lag-record.ts";
import { encodePosition, formatLsn, isAfter, type Position } from "./position.ts";
import { onLeaders, type PositionSource, type ReadContext } from "./read-context.ts";
import type { ReplicationCounters } from "./replication-stats.ts";
import { ServerPosition } from "./server-position.ts";
import { historyByFunctionSql, historySql, isBeyond, parseHistory, type TimelineHistory } from "./timeline-history.ts";

const earlyMax = 1_000;
/** Losses are logged no oftener than this. */
const logEveryMs = 10_000;

export class LeaderWatch implements PositionSource {
  /** Called with the first position of a new timeline. */
  onTimeline: (position: Position) => void = () => {};
  private readonly server: ShardConnection;
  private readonly clock: Clock;
  private readonly log: Logger;
  private readonly lag: LagRecord;
  private readonly counters: ReplicationCounters;
  private readonly asked: ServerPosition;
  /** Of the present timeline; undefined while it is not known. */
  private history: TimelineHistory | undefined;
  private readonly compared = new WeakSet<ReadContext>();
  /** Demands of before the fail-over that came while the history was being read. */
  private readonly early = new Map<ReadContext, Position>();
  private isReadingHistory = false;
  private loggedAt = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly server: ShardConnection;
    readonly clock: Clock;
    readonly log: Logger;
    readonly lag: LagRecord;
    readonly counters: ReplicationCounters;
    readonly lookMsMax: number;
  }) {
    const { server, clock, lag } = options;
    this.server = server;
    this.clock = clock;
    this.log = options.log;
    this.lag = lag;
    this.counters = options.counters;
    this.asked = new ServerPosition({
      connection: server,
      clock,
      timeoutMs: options.lookMsMax,
      onObserved: ({ follows, position, askedAt }) => {
        if (!follows && position !== undefined) this.observed(position, askedAt);
      },
    });
  }

  /** The newest position known. */
  get newest(): Position | undefined {
    return this.lag.newest;
  }

  /** Looks at it; never raises. */
  async look(): Promise<void> {
    await this.asked.observe().catch(() => {});
  }

  /** Raises `UnavailableError` when the leader does not answer in time, or does not lead. */
  async positionNow(): Promise<Position> {
    const { follows, position } = await this.asked.observe();
    if (!follows && position !== undefined) return position;
    throw new UnavailableError(
      "DATABASE_UNREACHABLE",
      `The server at the address of ${this.server.name}'s leader is a follower now.`,
      { canRetry: true },
    );
  }

  /** Reports, once a unit of work, that it has seen what is not part of the leader's history. */
  compare(required: Position, context: ReadContext): void {
    const { newest, history } = this;
    if (newest === undefined || required.timeline === newest.timeline) return;
    // A later one than is known: there was a fail-over that this process has not noticed yet.
    if (required.timeline > newest.timeline) return void onLeaders(() => this.look());
    if (history === undefined) {
      if (this.isReadingHistory && this.early.size < earlyMax) this.early.set(context, required);
      return;
    }
    if (this.compared.has(context) || !isBeyond(required, history)) return;
    this.compared.add(context);
    this.counters.possibleLosses++;
    const now = this.clock.monotonic();
    if (now - this.loggedAt < logEveryMs) return;
    this.loggedAt = now;
    this.log.error(
      { shard: this.server.name, seen: encodePosition(required), end: formatLsn(history.get(required.timeline) ?? 0n) },
      "a session has seen or written what the present leader does not have: a fail-over lost it",
    );
  }

  private observed(position: Position, askedAt: number): void {
    const { newest } = this;
    this.lag.note(position, askedAt);
    if (newest === undefined || newest.timeline === position.timeline) {
      if (newest === undefined) void this.readHistory(position.timeline);
      return;
    }
    this.counters.timelineChanges++;
    this.history = undefined;
    const { timeline } = position;
    this.log.warn({ shard: this.server.name, before: newest.timeline, timeline }, "the shard has a new leader");
    if (isAfter(position, newest)) this.onTimeline(position);
    void this.readHistory(timeline);
  }

  private async readHistory(timeline: number): Promise<void> {
    if (timeline === 1) {
      this.history = new Map();
      return;
    }
    this.isReadingHistory = true;
    try {
      const ask = (name: string, sql: string) => this.server.ask<{ history: string | null }>(name, sql, [timeline]);
      const [row] = await ask("rungs_history_by_function", historyByFunctionSql).catch(() =>
        ask("rungs_history", historySql),
      );
      if (this.lag.timeline === timeline && row?.history != null) this.history = parseHistory(row.history);
    } catch (error) {
      this.log.warn(
        { error, shard: this.server.name, timeline },
        "the history of the timeline cannot be read, so what a fail-over lost is not reported: make the function rungs_timeline_history, see docs/operating/replication.md",
      );
    }
    this.isReadingHistory = false;
    const early = [...this.early];
    this.early.clear();
    if (this.history !== undefined) for (const [context, required] of early) this.compare(required, context);
  }
}
