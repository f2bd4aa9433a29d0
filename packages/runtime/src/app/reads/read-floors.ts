/**
 * The floors of a process: how new copies of each shard have to be at least, for all reads, because this process has heard of
 * commits that far. So nothing that is loaded into a cache, or fetched by a CDN after its purge, is older than an invalidation
 * that was heard before.
 *
 * A shard's floor is, at any moment:
 *
 * - *known*: raised by each commit of this process that invalidates, and by each announcement of another's.
 * - *in doubt*: something was announced whose position is not known: a gap in what is heard, an announcement without positions,
 *   a leader that did not answer. Leaders answer all reads until the leader has been asked, after the doubt arose and while all
 *   that is announced is heard again. At a start every floor is in doubt.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { CommitMarks, InvalidationTarget } from "../../cache/index.ts";
import { decodePosition, encodePosition, onLeaders, type Position } from "../../database/index.ts";

/** What the floors need of a shard with followers. */
export interface FlooredShard {
  /** How far the leader's log has got now. Raises `UnavailableError`. */
  positionNow(): Promise<Position>;
  /** Followers that have not got that far are not read from any more. */
  raiseFloor(position: Position): void;
  /** Has the leader answer all reads, until what it gives is called. */
  holdFollowers(): () => void;
}

/** The floors of all shards; as a target of invalidations it has to be told first. */
export interface ReadFloors extends InvalidationTarget {
  /**
   * Raises the floor after a commit of this process; gives what others are to be told of it. `before`: shards that the same unit of work
   * wrote to earlier, as when a name is taken in the home database for a row of another shard: who finds the row has to find its
   * name. Never raises.
   */
  committed(shard: number, before?: readonly number[]): Promise<CommitMarks>;
  /** Shards in doubt now, and doubts since the start. */
  stats(): { readonly inDoubt: number; readonly doubts: number };
  /** Stops asking. */
  close(): void;
}

const retryMs = 250;

/** Makes the floors, by the shard's number. Shards without followers have none. */
export function readFloors(shards: ReadonlyMap<number, FlooredShard>): ReadFloors {
  const floors = new Map([...shards].map(([number, shard]) => [number, new Floor(shard)]));
  const all = [...floors.values()];
  return {
    async committed(shard, before = []) {
      const marks = [...new Set([shard, ...before])].map(async (number) => {
        const floor = floors.get(number);
        return floor === undefined ? [] : [[String(number), await floor.committed()] as const];
      });
      return Object.fromEntries((await Promise.all(marks)).flat());
    },
    drop(_tags, upTo) {
      if (upTo === undefined) for (const floor of all) floor.doubt();
      else for (const [shard, text] of Object.entries(upTo)) floors.get(Number(shard))?.heard(text);
    },
    stepChanged(isInStep) {
      for (const floor of all) floor.stepChanged(isInStep);
    },
    stats: () => ({
      inDoubt: all.filter((floor) => floor.isInDoubt).length,
      doubts: all.reduce((sum, floor) => sum + floor.doubts, 0),
    }),
    close() {
      for (const floor of all) floor.close();
    },
  };
}

class Floor {
  doubts = 0;
  private readonly shard: FlooredShard;
  private release: (() => void) | undefined;
  private isInStep = false;
  private isAsking = false;
  private isClosed = false;

  constructor(shard: FlooredShard) {
    this.shard = shard;
    this.doubt();
  }

  get isInDoubt(): boolean {
    return this.release !== undefined;
  }

  async committed(): Promise<string> {
    try {
      const position = await this.shard.positionNow();
      this.shard.raiseFloor(position);
      return encodePosition(position);
    } catch {
      this.doubt();
      return "";
    }
  }

  heard(text: string): void {
    const position = decodePosition(text);
    if (position === undefined) this.doubt();
    else this.shard.raiseFloor(position);
  }

  doubt(): void {
    this.doubts++;
    this.release ??= this.shard.holdFollowers();
    this.ask();
  }

  stepChanged(isInStep: boolean): void {
    this.isInStep = isInStep;
    if (isInStep) this.ask();
  }

  close(): void {
    this.isClosed = true;
  }

  /** Outside of any request: it may begin in one and goes on until it is answered. */
  private ask(): void {
    if (this.isAsking || !this.isInStep || !this.isInDoubt) return;
    this.isAsking = true;
    void onLeaders(() => this.askUntilKnown()).finally(() => {
      this.isAsking = false;
      // In step again while the last question was under way.
      if (!this.isClosed) this.ask();
    });
  }

  private async askUntilKnown(): Promise<void> {
    while (this.isInDoubt && this.isInStep && !this.isClosed) {
      const { doubts } = this;
      const position = await this.shard.positionNow().catch(() => undefined);
      if (position === undefined) {
        await sleep(retryMs, undefined, { ref: false });
        continue;
      }
      this.shard.raiseFloor(position);
      if (doubts !== this.doubts || !this.isInStep) continue;
      this.release?.();
      this.release = undefined;
    }
  }
}
