/** How long something was away: asked again and again, and the longest time between two good answers counts. */
import { setTimeout as sleep } from "node:timers/promises";

/** A watch that runs until it is stopped. */
export interface PauseWatch {
  /** Waits for one more good answer, `withinMs` at most; gives the longest time between two, in ms. */
  stop(withinMs: number): Promise<number>;
}

const everyMs = 20;

/**
 * Begins to ask; resolves with the first good answer. Raises when there is none within `withinMs`. `ask` raises for a bad answer, and for
 * none within a bound of its own.
 */
export async function watchPause(
  ask: () => Promise<void>,
  { withinMs }: { readonly withinMs: number },
): Promise<PauseWatch> {
  const ending = new AbortController();
  const first = Promise.withResolvers<void>();
  let lastAt: number | undefined;
  let longest = 0;
  let good = 0;
  const run = (async () => {
    while (!ending.signal.aborted) {
      const isGood = await ask().then(
        () => true,
        () => false,
      );
      if (isGood) {
        const now = performance.now();
        longest = Math.max(longest, now - (lastAt ?? now));
        lastAt = now;
        good++;
        first.resolve();
      }
      await sleep(everyMs);
    }
  })();
  const timer = setTimeout(() => first.reject(new Error(`No good answer within ${withinMs} ms.`)), withinMs);
  const end = async () => {
    ending.abort();
    await run;
  };
  try {
    await first.promise;
  } catch (error) {
    await end();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return {
    async stop(within) {
      const before = good;
      const until = performance.now() + within;
      while (good === before && performance.now() < until) await sleep(everyMs);
      await end();
      // One that never came back has been away until now.
      return Math.round(good === before ? performance.now() - (lastAt ?? 0) : longest);
    },
  };
}
