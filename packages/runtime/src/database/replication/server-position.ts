/**
 * How far a server's log has got, asked of the server itself.
 *
 * - *Leader*: what it has flushed, which covers every commit it acknowledged; with `synchronous_commit` off what it has
 *   inserted, because commits are acknowledged and visible before they are flushed. (The inserted position points past the
 *   header at the end of a log page, where a follower arrives only with the next record; so it is not used when on.)
 * - *Follower*: what it has replayed.
 *
 * The timeline of a leader is that of the file it writes to: the control file shows the old one until the first checkpoint
 * after a promotion. A follower's is that of what its receiver got last, remembered while the receiver is down; then no more
 * is claimed than had been received, for what comes from elsewhere may be of another timeline. The replayed position is read
 * before the timeline, so that a change in between makes too little of it and never too much.
 */

import type { Clock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import { type Position, parseLsn } from "./position.ts";
import { onLeaders, type PositionSource } from "./read-context.ts";

/** What a server said of itself. */
export interface Observation {
  /** Whether it is in recovery: a follower. */
  readonly follows: boolean;
  /** Undefined for a follower whose timeline is not known. */
  readonly position: Position | undefined;
  /** Whether it has received more than it has replayed, and replay is not paused. */
  readonly isReplaying: boolean;
  /** Whether this login may not see the timeline: it needs the role `pg_read_all_stats` (part of `pg_monitor`). */
  readonly lacksRights: boolean;
  /** When it was asked, monotonic ms: the position is of then or later. */
  readonly askedAt: number;
}

interface Row {
  readonly follows: boolean;
  readonly lsn: string | null;
  readonly timeline: number | null;
  readonly received: string | null;
  readonly paused: boolean | null;
  readonly receives: boolean;
}

/** The subquery is not flattened, because it is volatile: one answer to "is it in recovery" holds for the whole row. */
const positionSql = `select follows,
  (case when follows then pg_last_wal_replay_lsn()
    when current_setting('synchronous_commit') = 'off' then pg_current_wal_insert_lsn()
    else pg_current_wal_flush_lsn() end)::text as lsn,
  case when follows then (select received_tli from pg_stat_get_wal_receiver())
    else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end as timeline,
  (case when follows then pg_last_wal_receive_lsn() end)::text as received,
  case when follows then pg_get_wal_replay_pause_state() = 'paused' end as paused,
  follows and (select pid from pg_stat_get_wal_receiver()) is not null as receives
  from (select pg_is_in_recovery() as follows) server`;

/** Asks one server; one question answers all callers who came before it was sent. */
export class ServerPosition implements PositionSource {
  /** The newest answer; undefined before the first and after a failure. */
  last: Observation | undefined;
  private readonly connection: ShardConnection;
  private readonly clock: Clock;
  private readonly timeoutMs: number;
  private readonly onObserved: (observation: Observation) => void;
  private underWay: Promise<Observation> | undefined;
  private pending: Promise<Observation> | undefined;
  /** The receiver's timeline when it was last up. */
  private receivedTimeline: number | undefined;

  constructor(options: {
    readonly connection: ShardConnection;
    readonly clock: Clock;
    readonly timeoutMs: number;
    readonly onObserved?: (observation: Observation) => void;
  }) {
    this.connection = options.connection;
    this.clock = options.clock;
    this.timeoutMs = options.timeoutMs;
    this.onObserved = options.onObserved ?? (() => {});
  }

  /** Asks the server after this call. Raises `UnavailableError` when it does not answer within the timeout. */
  observe(): Promise<Observation> {
    this.pending ??= onLeaders(() => this.askNext());
    return this.pending;
  }

  async positionNow(): Promise<Position> {
    const { position } = await this.observe();
    if (position !== undefined) return position;
    throw new UnavailableError("DATABASE_UNREACHABLE", `${this.connection.name} cannot say on which timeline it is.`, {
      canRetry: true,
    });
  }

  private async askNext(): Promise<Observation> {
    // Also without one under way a turn of the loop is waited for: callers of the same turn share the question.
    await this.underWay?.catch(() => {});
    this.pending = undefined;
    this.underWay = this.ask();
    return this.underWay;
  }

  private async ask(): Promise<Observation> {
    const askedAt = this.clock.monotonic();
    try {
      const rows = await withTimeout(
        this.connection.ask<Row>("rungs_position", positionSql, []),
        this.timeoutMs,
        this.connection.name,
      );
      this.last = this.observation(rows[0] as Row, askedAt);
    } catch (error) {
      this.last = undefined;
      throw error;
    }
    this.onObserved(this.last);
    return this.last;
  }

  private observation({ follows, lsn, timeline, received, paused, receives }: Row, askedAt: number): Observation {
    const reached = lsn === null ? undefined : parseLsn(lsn);
    const limit = received === null ? undefined : parseLsn(received);
    const lacksRights = receives && timeline === null;
    const isReplaying = paused === false && reached !== undefined && limit !== undefined && reached < limit;
    const seen = (position: Position | undefined) => ({ follows, position, isReplaying, lacksRights, askedAt });
    if (timeline !== null) this.receivedTimeline = follows ? timeline : undefined;
    if (reached === undefined) return seen(undefined);
    if (timeline !== null) return seen({ timeline, lsn: reached });
    if (this.receivedTimeline === undefined || limit === undefined) return seen(undefined);
    const isBeyond = reached > limit;
    return seen({ timeline: this.receivedTimeline, lsn: isBeyond ? limit : reached });
  }
}

/** Raises `UnavailableError` when the answer takes longer; the answer itself is then dropped. */
async function withTimeout<R>(answer: Promise<R>, timeoutMs: number, name: string): Promise<R> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new UnavailableError("DATABASE_UNREACHABLE", `${name} did not say its position within ${timeoutMs} ms.`, {
          canRetry: true,
        }),
      );
    }, timeoutMs);
  });
  try {
    return await Promise.race([answer, silence]);
  } finally {
    clearTimeout(timer);
  }
}
