/**
 * How much each handler has to do, and how many processes that would take: the signal for whoever scales them.
 *
 * By Little's law (J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9(3), 1961) a handler that gets λ
 * messages a second and takes W seconds for one has λW of them at work on average. What waits beyond that is to be worked off within
 * {@link drainMs}. One process works on `concurrency` at a time, and is to be busy for {@link utilisation} of that on average:
 *
 *   processes = (λW + (waiting - λW)·W / drain) / (concurrency · utilisation)
 *
 * W is what a try takes here and now. Where handlers wait for each other's processor time it grows, and so does the answer, until
 * more processes have brought it down again.
 */

/** What was counted of one handler, over all processes and databases. */
export interface HandlerCount {
  readonly handler: string;
  /** Messages due that are not settled: in the outboxes, in the broker and in the job tables, those at work included. */
  readonly waiting: number;
  /** Time since the oldest of them was due; null when that is not known, because there is none or only the broker has some. */
  readonly oldestAgeMs: number | null;
  /** Sums over all time: tries that ended, those that were successes, and the ms that all took. */
  readonly delivered: number;
  readonly done: number;
  readonly busyMs: number;
  /** When it was counted, in ms since 1970 by the home database's clock. */
  readonly atMs: number;
}

/** What that says, averaged over about the last half minute. */
export interface HandlerLoad extends HandlerCount {
  /** Messages that came to be due, a second. */
  readonly arrivalsPerS: number;
  readonly donePerS: number;
  /** What one try takes; null before the first. */
  readonly msPerTry: number | null;
  /** How long what waits takes at the rate of `donePerS`; null while nothing gets done. */
  readonly drainMs: number | null;
}

/** After this time an old figure counts for a third. */
const averagedMs = 30_000;
/** What waits is to be worked off within this. */
const drainMs = 60_000;
/** Above, waits grow steeply with each bit of load (M/M/c). */
const utilisation = 0.7;

/** Goes on from the load before, if there was one. */
export function nextLoad(before: HandlerLoad | undefined, count: HandlerCount): HandlerLoad {
  const elapsedMs = before === undefined ? 0 : count.atMs - before.atMs;
  if (before === undefined || elapsedMs <= 0) {
    const rates = {
      arrivalsPerS: 0,
      donePerS: 0,
      msPerTry: count.delivered > 0 ? count.busyMs / count.delivered : null,
    };
    return { ...count, ...rates, drainMs: drainOf(count.waiting, 0) };
  }
  const share = 1 - Math.exp(-elapsedMs / averagedMs);
  const average = (old: number, fresh: number) => old + (fresh - old) * share;
  const perS = (change: number) => Math.max(0, (change * 1_000) / elapsedMs);
  const delivered = Math.max(0, count.delivered - before.delivered);
  const busyMs = Math.max(0, count.busyMs - before.busyMs);
  const donePerS = average(before.donePerS, perS(count.done - before.done));
  return {
    ...count,
    // What came either waits now or was tried meanwhile; what failed comes again.
    arrivalsPerS: average(before.arrivalsPerS, perS(count.waiting - before.waiting + delivered)),
    donePerS,
    msPerTry: delivered === 0 ? before.msPerTry : average(before.msPerTry ?? busyMs / delivered, busyMs / delivered),
    drainMs: drainOf(count.waiting, donePerS),
  };
}

function drainOf(waiting: number, donePerS: number): number | null {
  if (waiting === 0) return 0;
  return donePerS < 0.001 ? null : (waiting / donePerS) * 1_000;
}

/** What bounds the processes that can work on a handler. */
export interface HandlerBounds {
  /** Of one process. */
  readonly concurrency: number;
  /** Most processes that can take messages of it out of the broker; default no bound. */
  readonly partitions?: number;
}

/** How many processes with this handler there should be; at least 1. */
export function processesFor(
  { waiting, arrivalsPerS, msPerTry }: HandlerLoad,
  { concurrency, partitions = Number.POSITIVE_INFINITY }: HandlerBounds,
): number {
  const workS = (msPerTry ?? 0) / 1_000;
  const atWork = arrivalsPerS * workS;
  const behind = (Math.max(0, waiting - atWork) * workS * 1_000) / drainMs;
  const processes = Math.ceil((atWork + behind) / (concurrency * utilisation));
  return Math.min(partitions, Math.max(1, processes));
}
