/** What calls came to, and how long they took. As many series as there are methods and outcomes, which are both closed lists. */

/** Upper bounds in ms: from a call within the process to the longest deadline. */
export const durationBoundsMs = [0.1, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000];

/** Of one method. */
export interface MethodStats {
  readonly method: string;
  /** Calls by outcome: "ok", "declared" for the method's own errors, else an error's code. */
  readonly outcomes: ReadonlyMap<string, number>;
  /** Calls that took at most as long, by each of {@link durationBoundsMs}, and all of them at the end. */
  readonly withinMs: readonly number[];
  readonly totalMs: number;
}

interface Series {
  readonly outcomes: Map<string, number>;
  readonly counts: Float64Array;
  totalMs: number;
}

/** Counts since the start. */
export class CallStats {
  private readonly series = new Map<string, Series>();

  note(method: string, outcome: string, ms: number): void {
    let series = this.series.get(method);
    if (series === undefined) {
      series = { outcomes: new Map(), counts: new Float64Array(durationBoundsMs.length + 1), totalMs: 0 };
      this.series.set(method, series);
    }
    series.outcomes.set(outcome, (series.outcomes.get(outcome) ?? 0) + 1);
    series.totalMs += ms;
    let at = 0;
    while (at < durationBoundsMs.length && ms > (durationBoundsMs[at] as number)) at++;
    series.counts[at] = (series.counts[at] as number) + 1;
  }

  all(): MethodStats[] {
    return [...this.series].map(([method, { outcomes, counts, totalMs }]) => {
      let sum = 0;
      return { method, outcomes: new Map(outcomes), withinMs: Array.from(counts, (count) => (sum += count)), totalMs };
    });
  }
}
