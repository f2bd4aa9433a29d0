/** Waiting for what nobody announces. */
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Asks again and again until it holds; a question that fails is asked again. Once `withinMs` have passed raises what `late` makes, of the
 * last question's error if there was one; when the signal is aborted, its reason.
 */
export async function untilHolds(options: {
  readonly withinMs: number;
  /** Pause between two questions; default 50 ms. */
  readonly everyMs?: number;
  readonly signal: AbortSignal;
  readonly holds: () => Promise<boolean>;
  readonly late: (cause: unknown) => Error;
}): Promise<void> {
  const { withinMs, everyMs = 50, signal, holds, late } = options;
  const end = performance.now() + withinMs;
  for (;;) {
    let cause: unknown;
    try {
      if (await holds()) return;
    } catch (error) {
      cause = error;
    }
    signal.throwIfAborted();
    if (performance.now() > end) throw late(cause);
    await sleep(everyMs, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
