/** The queue contract: publishing. */
import { handle, publication } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { addEffect, ann, note, noted, other, type QueueHarness, renameEffects, renameOnce, until } from "./harness.ts";

export function publishingContract({ withQueue, publish, effects, isEmpty }: QueueHarness): void {
  describe("publishing", () => {
    it("delivers a message once its transaction has committed, and never one that was rolled back", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
        async (queue) => {
          await queue.startWorker();
          const gate = Promise.withResolvers<void>();
          const open = queue.db.for(ann).transaction(async (tx) => {
            tx.publish(noted, note("a", 1));
            await gate.promise;
          });
          const failed = queue.db.for(ann).transaction(async (tx) => {
            tx.publish(noted, note("a", 2));
            throw new Error("no");
          });
          await expect(failed).rejects.toThrow("no");
          await publish(queue, note("a", 3));
          await until(() => seen.includes(3));
          expect(seen).toEqual([3]);
          gate.resolve();
          await open;
          await until(() => seen.length === 2);
          expect(seen).toEqual([3, 1]);
        },
      );
    });

    it("gives each handler of the event its own copy, with one id", async () => {
      const seen: string[] = [];
      const see = (name: string) => handle(noted, async ({ id }) => void seen.push(`${name} ${id}`));
      await withQueue(
        () => ({ one: see("one"), two: see("two"), none: handle(other, async () => void seen.push("none")) }),
        async (queue) => {
          await queue.startWorker();
          await publish(queue, note("a", 1));
          await until(async () => seen.length === 2 && (await isEmpty(queue)));
          const ids = seen.map((line) => line.split(" ")[1]);
          expect(seen.map((line) => line.split(" ")[0]).sort()).toEqual(["one", "two"]);
          expect(new Set(ids).size).toBe(1);
        },
      );
    });

    it("publishes with a one-statement write only when the statement gave a row", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
        async (queue) => {
          await queue.startWorker();
          const shard = queue.db.for(ann);
          const message = (number: number) => ({ publish: [publication(noted, note("a", number))] });
          await shard.run(renameEffects, { ownerId: ann, name: "b" }, message(1));
          await shard.run(addEffect, note("a", 7), message(2));
          await shard.run(renameEffects, { ownerId: ann, name: "b" }, message(3));
          await until(() => seen.length === 2);
          expect(seen.sort()).toEqual([2, 3]);
        },
      );
    });

    it("publishes with a one-statement write only when the column asked for has a value in its first row", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
        async (queue) => {
          await queue.startWorker();
          const shard = queue.db.for(ann);
          const rename = (number: number) =>
            shard.run(
              renameOnce,
              { ownerId: ann, name: "b" },
              { publish: [publication(noted, note("a", number))], publishIf: "renamed" },
            );
          expect(await rename(1)).toEqual([{ owner: ann, renamed: null }]);
          await shard.run(addEffect, note("a", 7));
          expect(await rename(2)).toEqual([{ owner: ann, renamed: 7 }]);
          expect(await rename(3)).toEqual([{ owner: ann, renamed: null }]);
          await publish(queue, note("a", 4));
          await until(() => seen.length >= 2);
          expect(seen.sort()).toEqual([2, 4]);
          expect((await effects(queue)).map(({ name }) => name)).toEqual(["b"]);
        },
      );
    });

    it("refuses a payload that does not fit the schema at once, naming the field and not its value", async () => {
      await withQueue(
        () => ({ see: handle(noted, async () => {}) }),
        async (queue) => {
          const wrong = { ...note("a", 1), number: "x-secret-x" as unknown as number };
          await expect(publish(queue, wrong)).rejects.toMatchObject({ code: "EVENT_INVALID" });
          await expect(publish(queue, wrong)).rejects.toThrow(/number/);
          await expect(publish(queue, wrong)).rejects.not.toThrow(/x-secret-x/);
          expect(await queue.admin.counts()).toEqual([]);
        },
      );
    });

    it("publishes from serializable transactions and from handlers' own", async () => {
      const seen: number[] = [];
      await withQueue(
        (queue) => ({
          chain: handle(noted, async ({ payload, once }) => {
            await once(queue().db.for(payload.ownerId), async (tx) =>
              tx.publish(other, { number: payload.number + 1 }),
            );
          }),
          see: handle(other, async ({ payload }) => void seen.push(payload.number)),
        }),
        async (queue) => {
          await queue.startWorker();
          await queue.db.for(ann).transaction(async (tx) => tx.publish(noted, note("a", 1)), {
            isolation: "serializable",
          });
          await until(() => seen.length === 1);
          expect(seen).toEqual([2]);
        },
      );
    });
  });
}
