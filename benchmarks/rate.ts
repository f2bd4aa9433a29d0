/** How fast a query can be run over and over, and what it costs this process: for rounds that are compared with each other. */

export interface Sample {
  /** Queries a second. */
  readonly rate: number;
  /** CPU time of this process for each, in microseconds. */
  readonly cpuUs: number;
}

/** Runs the query with 0, 1, 2, ... by so many callers at once. */
export async function measure(
  query: (index: number) => Promise<unknown>,
  { callers, forMs }: { readonly callers: number; readonly forMs: number },
): Promise<Sample> {
  let count = 0;
  const cpuBefore = process.cpuUsage();
  const since = performance.now();
  const until = since + forMs;
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() < until) {
        await query(count);
        count++;
      }
    }),
  );
  const { user, system } = process.cpuUsage(cpuBefore);
  return { rate: (count / (performance.now() - since)) * 1_000, cpuUs: (user + system) / count };
}

/** The value below which that share of the values lies; NaN for none. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * share)] ?? Number.NaN;
}
