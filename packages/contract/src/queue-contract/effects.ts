/** The queue contract: effects. */
import { handle } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { addEffect, note, noted, ownerAt, type QueueHarness, until } from "./harness.ts";

export function effectsContract({ withQueue, publish, effects, isEmpty, write, hasBroker }: QueueHarness): void {
  describe("effects", () => {
    it("happen once although the handler fails after them and is tried again", async () => {
      const tries: number[] = [];
      await withQueue(
        (queue) => ({
          work: handle(
            noted,
            async (delivery) => {
              tries.push(delivery.attempt);
              await write(queue)(delivery);
              if (delivery.attempt < 3) throw new Error("after the effect");
            },
            { backoff: { firstMs: 10 } },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await publish(queue, note("a", 1));
          await until(() => isEmpty(queue));
          expect(tries).toEqual([1, 2, 3]);
          expect(await effects(queue)).toHaveLength(1);
        },
      );
    });

    it("happen once on another shard than the message's, and per step", async () => {
      await withQueue(
        (queue) => ({
          work: handle(
            noted,
            async ({ payload, once, attempt }) => {
              for (let index = 0; index < 8; index++) {
                const effect = note(payload.name, index, ownerAt(index));
                await once(queue().db.for(effect.ownerId), (tx) => tx.run(addEffect, effect), `owner ${index}`);
                if (attempt === index) throw new Error("between the steps");
              }
            },
            { backoff: { firstMs: 5, maxMs: 5 } },
          ),
        }),
        async (queue) => {
          expect(queue.db.shardCount).toBeGreaterThan(1);
          await queue.startWorker();
          await publish(queue, note("a", 1));
          await until(() => isEmpty(queue));
          expect((await effects(queue)).map(({ number }) => number).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
        },
      );
    });

    it("of two steps of one name are refused, since a later try would skip the second", async () => {
      const errors: unknown[] = [];
      await withQueue(
        (queue) => ({
          work: handle(noted, async (delivery) => {
            await write(queue)(delivery);
            await write(queue)(delivery).catch((error: unknown) => errors.push(error));
          }),
        }),
        async (queue) => {
          await queue.startWorker();
          await publish(queue, note("a", 1));
          await until(() => isEmpty(queue));
          expect(errors).toMatchObject([{ code: "CONFIG_INVALID" }]);
        },
      );
    });

    it("of a worker that froze and was taken over are not made again when it thaws", async () => {
      await withQueue(
        (queue) => ({ work: handle(noted, write(queue)) }),
        async (queue) => {
          for (let index = 0; index < 5; index++) await publish(queue, note("a", index));
          const frozen = await queue.startFrozenWorker("work", 5);
          expect(frozen.claimed).toBe(5);
          await queue.startWorker({ leaseMs: 300 });
          await frozen.cutOff();
          await until(() => isEmpty(queue));
          const errors = await frozen.thaw();
          expect(errors).toHaveLength(5);
          for (const error of errors) {
            if (hasBroker) expect(error).toBeUndefined();
            else expect(error).toMatchObject({ code: "LEASE_LOST" });
          }
          expect((await effects(queue)).map(({ number }) => number).sort()).toEqual([0, 1, 2, 3, 4]);
        },
      );
    });
  });
}
