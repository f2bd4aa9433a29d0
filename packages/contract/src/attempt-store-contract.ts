/** What every store of attempt counts must do. Run it against the real server behind each driver. */
import { randomUUID } from "node:crypto";
import type { AttemptStore } from "rungs/session";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** The suite. `makeStores` opens the stores of two processes, which share their counts unless the driver is for one only. */
export function attemptStoreContract(options: {
  readonly name: string;
  readonly makeStores: () => Promise<{
    readonly stores: readonly [AttemptStore, AttemptStore];
    close(): Promise<void>;
  }>;
}): void {
  describe(`attempt store contract: ${options.name}`, () => {
    let opened: Awaited<ReturnType<typeof options.makeStores>>;
    let here: AttemptStore;
    let there: AttemptStore;
    beforeAll(async () => {
      opened = await options.makeStores();
      [here, there] = opened.stores;
    });
    afterAll(() => opened?.close());
    const windowAt = (index: number) => ({ index, windowMs: 60_000 });

    it("counts by key and window, in every process", async () => {
      const [key, other] = [randomUUID(), randomUUID()];
      expect(await here.add(key, windowAt(7), 1)).toEqual({ current: 1, previous: 0 });
      expect(await there.add(key, windowAt(7), 2)).toEqual({ current: 3, previous: 0 });
      expect(await here.add(other, windowAt(7), 1)).toEqual({ current: 1, previous: 0 });
    });

    it("keeps the count of the window before, and no older one", async () => {
      const key = randomUUID();
      await here.add(key, windowAt(7), 5);
      expect(await there.add(key, windowAt(8), 1)).toEqual({ current: 1, previous: 5 });
      expect(await here.add(key, windowAt(9), 1)).toEqual({ current: 1, previous: 1 });
      expect(await there.add(key, windowAt(11), 1)).toEqual({ current: 1, previous: 0 });
    });

    it("never counts below 0", async () => {
      const key = randomUUID();
      expect(await here.add(key, windowAt(7), -3)).toEqual({ current: 0, previous: 0 });
      expect(await here.add(key, windowAt(7), 1)).toEqual({ current: 1, previous: 0 });
    });

    it("loses none of many counts at once, and gives each its own", async () => {
      const key = randomUUID();
      const counts = await Promise.all(
        Array.from({ length: 100 }, (_, index) => (index % 2 === 0 ? here : there).add(key, windowAt(7), 1)),
      );
      const numbers = counts.map(({ current }) => current).sort((a, b) => a - b);
      expect(numbers).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
    });

    it("forgets a key when told to", async () => {
      const key = randomUUID();
      await here.add(key, windowAt(7), 5);
      await there.clear(key);
      expect(await here.add(key, windowAt(8), 1)).toEqual({ current: 1, previous: 0 });
    });
  });
}
