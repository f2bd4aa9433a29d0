/**
 * Orphans: objects that no row refers to. A process may die between storing an object and writing its row, or between
 * deleting the row and removing the object; what is left is found by age.
 */
import type { Clock } from "../kernel/clock.ts";
import type { ObjectStore } from "./object-store.ts";

/** Settings of {@link sweepOrphans}. */
export interface OrphanSweep {
  readonly store: Pick<ObjectStore, "list" | "remove">;
  /** Which objects are looked at. */
  readonly prefix: string;
  /** Younger ones are left alone: their row may be on its way. Longer than any upload and any job may take. */
  readonly olderThanMs: number;
  readonly clock: Clock;
  /** Gives those of the keys that rows refer to; an error ends the sweep. */
  readonly referred: (keys: readonly string[]) => Promise<ReadonlySet<string>>;
  /** Keys after this one; default from the first. */
  readonly after?: string | undefined;
  /** Objects looked at in one call; default 10,000. */
  readonly objectsMax?: number;
  /** Objects of one page; 1 to 1,000, default 200. */
  readonly pageSize?: number;
  readonly signal?: AbortSignal;
}

/** What a sweep did. */
export interface OrphanSweepResult {
  readonly seen: number;
  readonly removed: number;
  /** Where the next call goes on; undefined when all were seen. */
  readonly next: string | undefined;
}

/** Removes orphans, page by page. Raises what the store and `referred` raise, and the signal's reason. */
export async function sweepOrphans(options: OrphanSweep): Promise<OrphanSweepResult> {
  const { store, prefix, olderThanMs, clock, objectsMax = 10_000, pageSize = 200, signal } = options;
  let { after } = options;
  let seen = 0;
  let removed = 0;
  while (seen < objectsMax) {
    signal?.throwIfAborted();
    const limit = Math.min(pageSize, objectsMax - seen);
    const page = await store.list({ prefix, limit, ...(after === undefined ? {} : { after }) });
    const old = oldKeys(page, clock.now() - olderThanMs);
    const referred = old.length === 0 ? new Set<string>() : await options.referred(old);
    for (const key of old.filter((each) => !referred.has(each))) {
      signal?.throwIfAborted();
      await store.remove(key);
      removed++;
    }
    seen += page.length;
    after = page.at(-1)?.key;
    if (page.length < limit) return { seen, removed, next: undefined };
  }
  return { seen, removed, next: after };
}

/** The keys last changed before a time, in ms since the Unix epoch. */
export function oldKeys(objects: readonly { key: string; modifiedAt: Date }[], beforeMs: number): readonly string[] {
  return objects.filter(({ modifiedAt }) => modifiedAt.getTime() < beforeMs).map(({ key }) => key);
}
