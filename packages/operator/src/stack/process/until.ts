/** Waiting for what nobody announces. */
import { setTimeout as sleep } from "node:timers/promises";

/** How long is waited, and what is said when that was in vain. */
interface Wait {
  readonly withinMs: number;
  /** Pause between two questions; default 50 ms. */
  readonly everyMs?: number;
  readonly signal: AbortSignal;
  /** Made of the last question's error, if there was one. */
  readonly late: (cause: unknown) => Error;
}

/**
 * Asks again and again until it holds; a question that fails is asked again. Once `withinMs` have passed raises what `late` makes; when
 * the signal is aborted, its reason.
 */
export async function untilHolds(options: Wait & { readonly holds: () => Promise<boolean> }): Promise<void> {
  await untilFound({ ...options, find: async () => (await options.holds()) || undefined });
}

/** The same, until there is something to give. */
export async function untilFound<T>(options: Wait & { readonly find: () => Promise<T | undefined> }): Promise<T> {
  const { withinMs, everyMs = 50, signal, find, late } = options;
  const end = performance.now() + withinMs;
  for (;;) {
    let cause: unknown;
    try {
      const found = await find();
      if (found !== undefined) return found;
    } catch (error) {
      cause = error;
    }
    signal.throwIfAborted();
    if (performance.now() > end) throw late(cause);
    await sleep(everyMs, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
