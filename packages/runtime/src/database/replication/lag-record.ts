/**
 * How many milliseconds a follower is behind, by comparing positions: when was the leader where the follower is now?
 *
 * `pg_last_xact_replay_timestamp()` does not tell: it stands still while nothing is written, and names the leader's clock.
 * The record gives an upper bound, too high by at most the time between two looks at the leader. While the leader cannot be
 * asked, a follower that has all that was known of it counts as current.
 */
import type { Position } from "./position.ts";

interface Sample {
  readonly lsn: bigint;
  /** When the leader was last known to be no further, monotonic ms. */
  lastAt: number;
}

/** With a look every 250 ms and more often under use, some minutes. What is older counts as the oldest. */
const samplesMax = 1_000;

/** Where the leader was, and when. */
export class LagRecord {
  timeline = 0;
  private samples: Sample[] = [];

  /** The leader's newest known position. */
  get newest(): Position | undefined {
    const last = this.samples.at(-1);
    return last === undefined ? undefined : { timeline: this.timeline, lsn: last.lsn };
  }

  /** `at`: when the leader was asked, so that it was no further before. */
  note({ timeline, lsn }: Position, at: number): void {
    if (timeline !== this.timeline) {
      this.timeline = timeline;
      this.samples = [];
    }
    const last = this.samples.at(-1);
    if (last !== undefined && lsn <= last.lsn) {
      if (lsn === last.lsn && at > last.lastAt) last.lastAt = at;
      return;
    }
    this.samples.push({ lsn, lastAt: at });
    if (this.samples.length > samplesMax) this.samples.splice(0, samplesMax / 10);
  }

  /** How far behind a server with this position is; undefined when it is on another timeline than the leader. */
  lagMs({ timeline, lsn }: Position, now: number): number | undefined {
    const newest = this.samples.at(-1);
    if (newest === undefined) return 0;
    // A leader promoted a moment ago is not known yet: its followers are on a later timeline.
    if (timeline !== this.timeline) return timeline > this.timeline ? 0 : undefined;
    if (lsn >= newest.lsn) return 0;
    const reached = this.samples.findLast((sample) => sample.lsn <= lsn) ?? (this.samples[0] as Sample);
    return now - reached.lastAt;
  }
}
