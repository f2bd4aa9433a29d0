/** The queue contract: schedules. */
import { handle } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { other, type QueueHarness, until } from "./harness.ts";

export function schedulesContract({ withQueue }: QueueHarness): void {
  describe("schedules", () => {
    it("publish once each time they fall due, however many workers run", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({ tick: handle(other, async ({ payload }) => void seen.push(payload.number)) }),
        async (queue) => {
          const since = performance.now();
          await queue.startWorker();
          await queue.startWorker();
          await until(() => seen.length >= 2, 8_000);
          const elapsedMs = performance.now() - since;
          expect(seen.length).toBeLessThanOrEqual(Math.floor(elapsedMs / 1_000));
        },
        [{ name: "ticks", schedule: { event: other, payload: { number: 7 }, everyMs: 1_000 } }],
      );
    });
  });
}
