/** The queue contract: trouble. */
import { handle } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { note, noted, ownerAt, type QueueHarness, until } from "./harness.ts";

export function troubleContract({ withQueue, publish, effects, isEmpty, write }: QueueHarness): void {
  describe("trouble", () => {
    it("makes a message a dead letter after its last try, with the reason, and others go on meanwhile", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({
          work: handle(
            noted,
            async ({ payload }) => {
              if (payload.name === "poison") throw new Error("poisoned");
              seen.push(payload.number);
            },
            { attemptsMax: 3, backoff: { firstMs: 20, maxMs: 20 }, concurrency: 2 },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          for (let number = 0; number < 5; number++) await publish(queue, note("poison", number));
          for (let number = 0; number < 5; number++) await publish(queue, note("fine", number));
          await until(() => isEmpty(queue));
          expect(seen.sort()).toEqual([0, 1, 2, 3, 4]);
          const { jobs } = await queue.admin.list({ state: "dead", limit: 10 });
          expect(jobs).toHaveLength(5);
          expect(jobs[0]).toMatchObject({ attempts: 3, lastError: "poisoned", handler: "work" });
        },
      );
    });

    it("ends a try at its time limit, tells the handler, and refuses its late effects", async () => {
      const late: unknown[] = [];
      let aborted = 0;
      await withQueue(
        (queue) => ({
          work: handle(
            noted,
            async (delivery) => {
              if (delivery.attempt > 1) return write(queue)(delivery);
              delivery.signal.addEventListener("abort", () => aborted++);
              await new Promise((resolve) => setTimeout(resolve, 400));
              await write(queue)(delivery).catch((error: unknown) => late.push(error));
            },
            { timeLimitMs: 100, backoff: { firstMs: 10 } },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await publish(queue, note("a", 1));
          await until(() => late.length === 1);
          await until(() => isEmpty(queue));
          expect(aborted).toBe(1);
          expect(late).toMatchObject([{ code: "LEASE_LOST" }]);
          expect(await effects(queue)).toHaveLength(1);
        },
      );
    });

    it("holds up no other message by one whose transaction hangs past its limit", async () => {
      const seen: number[] = [];
      const gate = Promise.withResolvers<void>();
      await withQueue(
        (queue) => ({
          work: handle(
            noted,
            async ({ payload, once, attempt }) => {
              if (payload.name !== "hang") return void seen.push(payload.number);
              if (attempt === 1) await once(queue().db.for(payload.ownerId), async () => gate.promise);
            },
            { timeLimitMs: 100, backoff: { firstMs: 10 } },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await publish(queue, note("hang", 0));
          await new Promise((resolve) => setTimeout(resolve, 250));
          for (let number = 0; number < 30; number++) await publish(queue, note("fine", number));
          await until(() => seen.length === 30, 3_000);
          gate.resolve();
          await until(() => isEmpty(queue));
        },
      );
    });

    it("runs no more than the handler's concurrency at a time", async () => {
      let running = 0;
      let most = 0;
      await withQueue(
        () => ({
          work: handle(
            noted,
            async () => {
              most = Math.max(most, ++running);
              await new Promise((resolve) => setTimeout(resolve, 10));
              running--;
            },
            { concurrency: 3 },
          ),
        }),
        async (queue) => {
          for (let owner = 0; owner < 40; owner++) await publish(queue, note("a", owner, ownerAt(owner)));
          await queue.startWorker();
          await until(() => isEmpty(queue));
          expect(most).toBe(3);
        },
      );
    });

    it("stops by finishing what runs and handing back the rest, which others then run at their first try", async () => {
      const seen: string[] = [];
      const gate = Promise.withResolvers<void>();
      let begun = 0;
      await withQueue(
        () => ({
          work: handle(
            noted,
            async ({ payload, attempt }) => {
              begun++;
              await gate.promise;
              seen.push(`${payload.number} at ${attempt}`);
            },
            { concurrency: 4 },
          ),
        }),
        async (queue) => {
          for (let number = 0; number < 12; number++) await publish(queue, note("a", number));
          const worker = await queue.startWorker();
          await until(() => begun === 4);
          const stopping = worker.stop();
          gate.resolve();
          await stopping;
          expect(seen).toHaveLength(4);
          await until(async () => (await queue.admin.counts())[0]?.ready === 8);
          expect((await queue.admin.counts())[0]).toMatchObject({ ready: 8, running: 0 });
          await queue.startWorker();
          await until(() => seen.length === 12);
          expect(seen.every((line) => line.endsWith("at 1"))).toBe(true);
        },
      );
    });

    it("breaks off at the end of its grace what does not finish, and hands it back", async () => {
      let isAborted = false;
      let isBegun = false;
      await withQueue(
        () => ({
          work: handle(noted, async ({ signal }) => {
            isBegun = true;
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
            isAborted = true;
          }),
        }),
        async (queue) => {
          const worker = await queue.startWorker({ graceMs: 50 });
          await publish(queue, note("a", 1));
          await until(() => isBegun);
          await worker.stop();
          expect(isAborted).toBe(true);
          await until(async () => (await queue.admin.counts())[0]?.ready === 1);
          expect((await queue.admin.counts())[0]).toMatchObject({ ready: 1, running: 0 });
        },
      );
    });
  });
}
