/**
 * Which keys are read most, by space-saving (Metwally and others, 2005) over a sample of the reads: a bounded number of counters;
 * a new key takes over the smallest one with its count, which is then its error at most. A read that is not in the sample costs one
 * decrement.
 */

/** A key that is read much. Both numbers are of reads, estimated from the sample. */
export interface HotKey {
  readonly key: string;
  readonly reads: number;
  /** So much of it may be of other keys. */
  readonly errorMax: number;
}

/** The keys read most, and all reads they are a part of. */
export interface HottestKeys {
  readonly reads: number;
  readonly keys: readonly HotKey[];
}

const countersMax = 256;
/** On average; odd and scattered, so that it does not fall into step with how a page reads its keys. */
const sampleEvery = 64;
/** After so many samples all counts are halved: what was hot long ago fades. */
const halveAfter = 65_536;

/** Counts a sample of the reads of one process. */
export class HotKeys {
  private readonly counters = new Map<string, { count: number; error: number }>();
  private untilNext = 1;
  private scatter = 1;
  private samples = 0;
  private untilHalved = halveAfter;

  /** Told of each read. */
  saw(key: string): void {
    if (--this.untilNext === 0) this.take(key);
  }

  /** The hottest first; at most 256. */
  hottest(keysMax: number): HottestKeys {
    const keys = [...this.counters]
      .sort(([, a], [, b]) => b.count - a.count)
      .slice(0, keysMax)
      .map(([key, { count, error }]) => ({ key, reads: count * sampleEvery, errorMax: error * sampleEvery }));
    return { reads: this.samples * sampleEvery, keys };
  }

  private take(key: string): void {
    this.scatter = (Math.imul(this.scatter, 1_664_525) + 1_013_904_223) >>> 0;
    this.untilNext = 1 + ((this.scatter >>> 16) % (2 * sampleEvery - 1));
    this.samples++;
    if (--this.untilHalved === 0) this.halve();
    const counter = this.counters.get(key);
    if (counter !== undefined) counter.count++;
    else if (this.counters.size < countersMax) this.counters.set(key, { count: 1, error: 0 });
    else this.takeOver(key);
  }

  private takeOver(key: string): void {
    let smallest = "";
    let least = Number.POSITIVE_INFINITY;
    for (const [other, { count }] of this.counters) {
      if (count >= least) continue;
      least = count;
      smallest = other;
    }
    this.counters.delete(smallest);
    this.counters.set(key, { count: least + 1, error: least });
  }

  private halve(): void {
    this.untilHalved = halveAfter;
    this.samples = Math.ceil(this.samples / 2);
    for (const [key, counter] of this.counters) {
      counter.count = Math.floor(counter.count / 2);
      counter.error = Math.floor(counter.error / 2);
      if (counter.count === 0) this.counters.delete(key);
    }
  }
}
