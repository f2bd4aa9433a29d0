/** What replication did since the start, by reason. */
import type { FollowerStats } from "./follower.ts";

/**
 * Why the leader answered a read.
 *
 * - `outside`: not in a unit of work. `own-write`: the unit wrote to the shard. `held`: the unit may write, or its session is
 *   not known yet. `in-doubt`: the floor of the process is not known. `same-server`: the unit read from the leader before, or from
 *   several servers.
 * - `none-up`: no follower takes reads. `lagging`: those there are lag. `behind`: none had replayed the demand in time.
 *   `timeline`: the demand is of another timeline. `crowded`: too many wait already. `failed`: a follower failed at it.
 */
export const leaderReasons = [
  "outside",
  "held",
  "own-write",
  "held",
  "in-doubt",
  "same-server",
  "none-up",
  "lagging",
  "behind",
  "timeline",
  "crowded",
  "failed",
] as const;
export type LeaderReason = (typeof leaderReasons)[number];

/** Counters of one shard since the start, and its followers now. */
export interface ReplicationStats {
  readonly shard: string;
  readonly readsByFollowers: number;
  readonly readsByLeader: Readonly<Record<LeaderReason, number>>;
  /** Statements and transactions that may have written. */
  readonly writes: number;
  /** Reads that waited for a follower, and the ms they did in all. */
  readonly waits: number;
  readonly waitedMs: number;
  /** Reads sent to a second server because the first was slow, and how many of these the second answered first. */
  readonly hedges: number;
  readonly hedgesWon: number;
  /** Reads that a follower failed at and another server answered. */
  readonly retries: number;
  readonly ejections: number;
  /** Sessions that had seen what is not part of the leader's history: lost in a fail-over. */
  readonly possibleLosses: number;
  /** Fail-overs seen by this process. */
  readonly timelineChanges: number;
  readonly timeline: number;
  readonly followers: readonly FollowerStats[];
}

/** The counters while they count. */
export class ReplicationCounters {
  readsByFollowers = 0;
  readonly readsByLeader = Object.fromEntries(leaderReasons.map((reason) => [reason, 0])) as Record<
    LeaderReason,
    number
  >;
  writes = 0;
  waits = 0;
  waitedMs = 0;
  hedges = 0;
  hedgesWon = 0;
  retries = 0;
  possibleLosses = 0;
  timelineChanges = 0;
}
