/** Limits in this process's memory, bounded. With several processes each counts for itself. */
import { LRUCache } from "lru-cache";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { judgeRate, type RateLimitStore } from "../rate-limit.ts";

/** Settings of {@link localRateLimitStore}. */
export interface LocalRateLimitStoreOptions {
  readonly clock?: Clock;
  /** Keys remembered, the least recently used forgotten first; default 50,000, about 10 MiB. */
  readonly keysMax?: number;
}

/** Opens an empty store. */
export function localRateLimitStore({
  clock = systemClock,
  keysMax = 50_000,
}: LocalRateLimitStoreOptions = {}): RateLimitStore {
  const arrivals = new LRUCache<string, number>({ max: keysMax });
  return {
    async take(requests) {
      const now = clock.monotonic();
      const judged = requests.map(({ limit, key }) => {
        const name = `${limit.name}:${key}`;
        return { name, ...judgeRate(arrivals.get(name), { limit, now }) };
      });
      if (judged.every(({ verdict }) => verdict.isAllowed)) {
        for (const { name, arrivalMs } of judged) arrivals.set(name, arrivalMs);
      }
      return judged.map(({ verdict }) => verdict);
    },
  };
}
