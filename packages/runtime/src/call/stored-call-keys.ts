/**
 * The app's keys for signing calls, read from where all its processes find them. A new key is signed by as soon as a process has read
 * it, and believed at once: whoever is shown one that it does not know looks for it. An old one may be removed when all have read
 * the new one, a minute later.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import type { CallKey, CallKeys } from "./call-signature.ts";

export interface StoredCallKeysOptions {
  /** All keys, the newest last; 1 or more. */
  readonly read: () => Promise<readonly CallKey[]>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** They are read again after this. */
const freshMs = 60_000;
/** Unknown keys are looked for no oftener: whoever makes them up does not reach the database with each. */
const lookEveryMs = 1_000;

/** Reads the keys. Raises as `read` does; later failures leave the keys as they are. */
export async function storedCallKeys({ read, clock, log }: StoredCallKeysOptions): Promise<CallKeys> {
  let keys = await read();
  let readAt = clock.monotonic();
  let lookedAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;

  function readAgain(): Promise<void> {
    readAt = clock.monotonic();
    reading ??= read()
      .then(
        (found) => {
          keys = found;
        },
        (error: unknown) => log.warn({ error }, "the keys of calls could not be read again"),
      )
      .finally(() => {
        reading = undefined;
      });
    return reading;
  }

  return {
    newest() {
      if (clock.monotonic() - readAt > freshMs) void readAgain();
      return keys.at(-1) as CallKey;
    },
    async find(id) {
      const known = keys.find((key) => key.id === id);
      if (known !== undefined) {
        // A key that was removed must be forgotten by those that only check, too.
        if (clock.monotonic() - readAt > freshMs) void readAgain();
        return known;
      }
      if (reading === undefined && clock.monotonic() - lookedAt < lookEveryMs) return undefined;
      lookedAt = clock.monotonic();
      await readAgain();
      return keys.find((key) => key.id === id);
    },
  };
}
