/** Work on the shard that owns a key, done again elsewhere when the owner changed meanwhile. */
import { ConfigError, RungsError } from "../../kernel/errors.ts";
import type { Lease } from "./placement-lease.ts";
import type { PlacementSource } from "./placement-watch.ts";

/** Owners that one piece of work may be sent to one after the other; a key does not move faster. */
const ownersMax = 3;
/** Times a shard is asked whose guard and record do not agree yet: with the pauses, about two seconds. */
const disagreementsMax = 40;

/**
 * Does the work on the owner of the key.
 *
 * A shard that refuses the key makes the placement be asked for anew, and the work is done again on the new owner if
 * `canRepeat` allows.
 *
 * Raises what the work does, `SHARD_MOVED` and `SHARD_LEASE_EXPIRED`, and `SHARD_KEY_MISMATCH` when the refused row is another
 * key's than the one asked for.
 */
export async function onOwner<R>(
  source: PlacementSource,
  key: string,
  work: (shard: number) => Promise<R>,
  canRepeat: () => boolean = () => true,
): Promise<R> {
  let owners = 1;
  for (let tries = 1; ; tries++) {
    const lease = source.leaseOf(key) ?? (await source.obtain(key));
    try {
      return await work(lease.shard);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      source.noteRefusal(lease.shard);
      await source.refresh();
      const owner = await source.obtain(key);
      if (owner.shard === lease.shard) {
        // A guard of the same epoch says the same as the claim. An older one has not been changed yet; a newer one was told of by
        // no claim so far.
        if (epochOf(error) === owner.epoch) throw otherKey(lease, error);
        if (tries >= disagreementsMax || !canRepeat()) throw error;
        await source.pause();
      } else if (++owners > ownersMax || !canRepeat()) throw error;
    }
  }
}

/** Whether the error is a shard's word that it does not own the key. Then nothing was written. */
export function isRefusal(error: unknown): boolean {
  return error instanceof RungsError && error.code === "SHARD_MOVED" && epochOf(error) > 0;
}

/** Epoch of the guard that refused; 0 for an error that comes from no guard. */
function epochOf(error: unknown): number {
  const { cause } = error as { cause?: unknown };
  const { detail } = (cause ?? {}) as { detail?: unknown };
  return typeof detail === "string" ? Number(/^epoch (\d+)$/.exec(detail)?.[1] ?? 0) : 0;
}

function otherKey(lease: Lease, cause: unknown): ConfigError {
  return new ConfigError(
    "SHARD_KEY_MISMATCH",
    `Shard ${lease.shard} refused a row that was written through db.for(...) for a key it owns: the row's own key is another shard's. ` +
      "Ask db.for(...) for the key of the row.",
    { cause },
  );
}
