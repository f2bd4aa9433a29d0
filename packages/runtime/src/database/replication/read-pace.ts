/** How long reads take lately, and how many of them may be sent twice. */

/** Upper ends of the classes, in ms: each 1.5 times the one before, from 0.25 ms to 16 s. */
const ends = Array.from({ length: 28 }, (_, index) => 0.25 * 1.5 ** index);
/** Counts are halved after this many, so that what was long ago fades. */
const halfLife = 1_000;
/** Before this many nothing is known. */
const countMin = 50;
/** At most this many hedges can be saved up, so that a quiet hour does not pay for a storm. */
const savedMax = 10;

/** Counts durations and pays for hedges. */
export class ReadPace {
  private readonly counts = new Array<number>(ends.length + 1).fill(0);
  private total = 0;
  private saved: number;
  private readonly hedgeShare: number;

  /** `hedgeShare`: hedges per read at most, e.g. 0.05. */
  constructor(hedgeShare: number) {
    this.hedgeShare = hedgeShare;
    this.saved = hedgeShare > 0 ? 1 : 0;
  }

  /** A read was answered. */
  note(durationMs: number): void {
    let index = 0;
    while (index < ends.length && durationMs > (ends[index] as number)) index++;
    this.counts[index] = (this.counts[index] as number) + 1;
    if (++this.total >= halfLife) {
      this.total = 0;
      for (const [at, count] of this.counts.entries()) {
        this.counts[at] = count / 2;
        this.total += count / 2;
      }
    }
    if (this.saved < savedMax) this.saved += this.hedgeShare;
  }

  /** What 95 of 100 reads stayed below; undefined while too few were seen. */
  get p95Ms(): number | undefined {
    if (this.total < countMin) return undefined;
    let below = 0;
    for (const [index, count] of this.counts.entries()) {
      below += count;
      if (below >= this.total * 0.95) return ends[Math.min(index, ends.length - 1)];
    }
    return ends.at(-1);
  }

  /** Takes one hedge from the budget; false when there is none. */
  takeHedge(): boolean {
    if (this.saved < 1) return false;
    this.saved--;
    return true;
  }
}
