/** Checks of many items: a bounded number at once, each item by one check at a time, first come first served. */
export interface CheckQueue<T> {
  /** Has the item checked. During its own check: once more afterwards, as what is asked for may be newer than the answer. */
  add(item: T): void;
  /** Forgets a check that has not begun. */
  drop(item: T): void;
}

/** `check` must not raise. */
export function createCheckQueue<T>(options: {
  readonly concurrencyMax: number;
  readonly check: (item: T) => Promise<void>;
}): CheckQueue<T> {
  const due = new Set<T>();
  const running = new Set<T>();

  function next(): void {
    for (const item of due) {
      if (running.size >= options.concurrencyMax) return;
      if (running.has(item)) continue;
      due.delete(item);
      running.add(item);
      options.check(item).finally(() => {
        running.delete(item);
        next();
      });
    }
  }

  return {
    add(item) {
      due.add(item);
      next();
    },
    drop: (item) => void due.delete(item),
  };
}
