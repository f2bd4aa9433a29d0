/** The queue contract: order. */
import { seededRandom } from "rungs";
import { handle } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { ann, type Noted, note, noted, type QueueHarness, until } from "./harness.ts";

export function orderContract({ withQueue, publish, publishMany, isEmpty, write, hasBroker }: QueueHarness): void {
  describe("order", () => {
    it("within a key is that of the transactions, over two workers and random failures", async () => {
      const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
      console.info(`order within a key: RUNGS_TEST_SEED=${seed}`);
      const random = seededRandom(seed);
      const keys = ["a", "b", "c", "d", "e"];
      await withQueue(
        (queue) => ({
          work: handle(
            noted,
            async (delivery) => {
              if (random.next() < 0.15) throw new Error("before the effect");
              await write(queue)(delivery);
              if (random.next() < 0.15) throw new Error("after the effect");
            },
            { backoff: { firstMs: 5, maxMs: 20 }, attemptsMax: 1_000 },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await queue.startWorker();
          for (let number = 0; number < 60; number += 4) {
            const batch = [0, 1, 2, 3].flatMap((step) =>
              keys.map((key): [Noted, string] => [note(key, number + step), key]),
            );
            await publishMany(queue, ann, batch);
          }
          await until(() => isEmpty(queue), 30_000);
          const rows = await queue.db
            .for(ann)
            .selectFrom("effects")
            .orderBy("position")
            .selectAll()
            .where("owner_id", "=", ann)
            .execute();
          for (const key of keys) {
            const numbers = rows.filter(({ name }) => name === key).map(({ number }) => number);
            expect(numbers, `key ${key}`).toEqual(Array.from({ length: 60 }, (_, index) => index));
          }
        },
      );
    });

    it("of a key holds while its first message is retried, and other keys and keyless messages go on", async () => {
      const seen: string[] = [];
      await withQueue(
        () => ({
          work: handle(
            noted,
            async ({ payload, attempt }) => {
              if (payload.name === "slow" && payload.number === 0 && attempt < 3) throw new Error("again");
              seen.push(`${payload.name} ${payload.number}`);
            },
            { backoff: { firstMs: 300, maxMs: 300 } },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await publishMany(queue, ann, [
            [note("slow", 0), "slow"],
            [note("slow", 1), "slow"],
            [note("quick", 0), "quick"],
            [note("none", 0), undefined],
            [note("slow", 2), "slow"],
            [note("quick", 1), "quick"],
          ]);
          await until(() => seen.length === 6);
          const slow = seen.filter((line) => line.startsWith("slow"));
          expect(slow).toEqual(["slow 0", "slow 1", "slow 2"]);
          expect(seen.slice(0, 3).sort()).toEqual(["none 0", "quick 0", "quick 1"]);
        },
      );
    });

    it("of a key with a long queue costs others nothing: they go first", async () => {
      const seen: string[] = [];
      await withQueue(
        () => ({
          work: handle(noted, async ({ payload }) => {
            if (payload.name === "hot") await new Promise((resolve) => setTimeout(resolve, 5));
            seen.push(payload.name);
          }),
        }),
        async (queue) => {
          await publishMany(
            queue,
            ann,
            Array.from({ length: 3_000 }, (_, index) => [note("hot", index), "hot"]),
          );
          await publishMany(
            queue,
            ann,
            Array.from({ length: 20 }, (_, index) => [note("other", index), `k${index}`]),
          );
          const worker = await queue.startWorker();
          await until(() => seen.filter((name) => name === "other").length === 20, 20_000);
          expect(seen.filter((name) => name === "hot").length).toBeLessThan(500);
          await worker.stop();
        },
      );
    });

    it("keeps a message of a key that has died from holding up the next", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({
          work: handle(noted, async ({ payload, giveUp }) => {
            if (payload.number === 0) giveUp("cannot be helped");
            seen.push(payload.number);
          }),
        }),
        async (queue) => {
          await queue.startWorker();
          await publishMany(
            queue,
            ann,
            [0, 1, 2].map((number) => [note("a", number), "a"]),
          );
          await until(() => seen.length === 2);
          expect(seen).toEqual([1, 2]);
        },
      );
    });

    it("puts higher priorities first and delays until due; a delayed message of a key takes its place then", async () => {
      const seen: string[] = [];
      await withQueue(
        () => ({ work: handle(noted, async ({ payload }) => void seen.push(payload.name), { concurrency: 1 }) }),
        async (queue) => {
          await publish(queue, note("later", 0), { key: "k", delayMs: 2_400 });
          await publish(queue, note("low", 0), { priority: "low" });
          await publish(queue, note("normal", 0));
          await publish(queue, note("delayed", 0), { priority: "high", delayMs: 2_000 });
          await publish(queue, note("keyed", 0), { key: "k" });
          await publish(queue, note("high", 0), { priority: "high" });
          const publishedAt = performance.now();
          await queue.startWorker();
          await until(() => seen.length === 6);
          if (hasBroker) {
            expect(seen.filter((name) => name !== "normal" && name !== "keyed")).toEqual([
              "high",
              "low",
              "delayed",
              "later",
            ]);
          } else expect(seen).toEqual(["high", "normal", "keyed", "low", "delayed", "later"]);
          expect(performance.now() - publishedAt).toBeGreaterThan(1_900);
        },
      );
    });
  });
}
