/**
 * Attempt counts in this process's memory, bounded. With several processes each counts for itself, so limits are
 * multiplied by their number until the counts move to a shared store.
 */
import { LRUCache } from "lru-cache";
import type { AttemptStore } from "../attempt-store.ts";

interface Counter {
  index: number;
  current: number;
  previous: number;
}

/**
 * Opens an empty store. `keysMax`: keys remembered, the least recently used forgotten first; default 100,000, about
 * 20 MiB. Pushing a key out takes that many failed sign-ins, each of which costs the attacker a password hash.
 */
export function localAttemptStore(options: { readonly keysMax?: number } = {}): AttemptStore {
  const counters = new LRUCache<string, Counter>({ max: options.keysMax ?? 100_000 });
  return {
    async add(key, { index }, change) {
      const counter = counters.get(key) ?? { index, current: 0, previous: 0 };
      if (counter.index !== index) {
        counter.previous = counter.index === index - 1 ? counter.current : 0;
        counter.current = 0;
        counter.index = index;
      }
      counter.current = Math.max(0, counter.current + change);
      counters.set(key, counter);
      return { current: counter.current, previous: counter.previous };
    },
    async clear(key) {
      counters.delete(key);
    },
  };
}
