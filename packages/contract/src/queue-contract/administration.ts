/** The queue contract: administration. */
import { handle } from "rungs/queue";
import { describe, expect, it } from "vitest";
import { ann, type Noted, note, noted, ownerAt, type QueueHarness, until } from "./harness.ts";

export function administrationContract({ withQueue, publish, publishMany, isEmpty, hasBroker }: QueueHarness): void {
  describe("administration", () => {
    it("counts, lists in pages, shows with redaction, retries and drops", async () => {
      const seen: number[] = [];
      let isMended = false;
      await withQueue(
        () => ({
          work: handle(noted, async ({ payload, giveUp }) => {
            if (!isMended) giveUp("not mended yet");
            seen.push(payload.number);
          }),
        }),
        async (queue) => {
          for (let number = 0; number < 7; number++) {
            await publish(queue, { ...note("a", number, ownerAt(number)), secret: "hush" } as Noted, { key: "k" });
          }
          await publish(queue, note("a", 99), { delayMs: 3_600_000 });
          await queue.startWorker();
          await until(async () => {
            const [counts] = await queue.admin.counts();
            // A broker learns a moment later that a dead letter is kept elsewhere.
            return counts?.dead === 7 && counts.ready === 0;
          });
          expect((await queue.admin.counts())[0]).toMatchObject({ handler: "work", dead: 7, scheduled: 1, ready: 0 });

          const ids = new Set<string>();
          let after: string | undefined;
          for (let page = 0; page < 10; page++) {
            const { jobs, next } = await queue.admin.list({ limit: 3, ...(after === undefined ? {} : { after }) });
            for (const { id } of jobs) ids.add(id);
            if (next === null) break;
            after = next;
          }
          expect(ids.size).toBe(8);

          const { jobs: dead } = await queue.admin.list({ state: "dead", limit: 100 });
          const id = dead[0]?.id as string;
          const [shown] = await queue.admin.show(id);
          expect(shown).toMatchObject({ id, state: "dead", lastError: "not mended yet", key: "k" });
          expect(shown?.payload).toMatchObject({ name: "a", secret: "[redacted]" });

          isMended = true;
          expect(await queue.admin.retry({ ids: [id], limit: 10 })).toBe(1);
          await until(() => seen.length === 1);
          expect(await queue.admin.retry({ handler: "work", state: "dead", limit: 4 })).toBe(4);
          await until(() => seen.length === 5);
          expect(await queue.admin.drop({ handler: "work", state: "dead", limit: 100 })).toBe(2);
          expect(await queue.admin.drop({ handler: "work", state: "scheduled", limit: 100 })).toBe(1);
          await until(() => isEmpty(queue));
          await expect(queue.admin.drop({ limit: 5 })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
          await expect(queue.admin.show("x")).rejects.toMatchObject({ code: "CONFIG_INVALID" });
        },
      );
    });

    it("refuses limits, ids and page marks that are none, instead of guessing", async () => {
      await withQueue(
        () => ({ work: handle(noted, async () => {}) }),
        async ({ admin }) => {
          const mark = (content: unknown) => Buffer.from(JSON.stringify(content)).toString("base64url");
          const refused = { code: "CONFIG_INVALID" };
          for (const limit of [0, -1, 1.5, Number.NaN, 1_001]) {
            await expect(admin.list({ limit })).rejects.toMatchObject(refused);
          }
          for (const limit of [0, Number.POSITIVE_INFINITY, 1_000_001]) {
            await expect(admin.drop({ state: "dead", limit })).rejects.toMatchObject(refused);
          }
          for (const after of [
            "",
            "x",
            mark(7),
            mark([99, 0, "1"]),
            mark([0, 0, "1;"]),
            mark([0, 1, "x"]),
            mark([0, 2, "1"]),
          ]) {
            await expect(admin.list({ limit: 1, after })).rejects.toMatchObject(refused);
          }
          await expect(admin.retry({ ids: ["1"], limit: 1 })).rejects.toMatchObject(refused);
          expect(await admin.drop({ ids: [], limit: 10 })).toBe(0);
        },
      );
    });

    it("drops and retries more than fit into one batch, and never more than the limit", async () => {
      await withQueue(
        () => ({ work: handle(noted, async () => {}) }),
        async (queue) => {
          const total = 6_000;
          await queue.db.for(ann).transaction(async (tx) => {
            for (let number = 0; number < total; number++) tx.publish(noted, note("a", number), { delayMs: 3_600_000 });
          });
          const count = async (state: "ready" | "scheduled") => (await queue.admin.counts())[0]?.[state];
          expect(await queue.admin.retry({ handler: "work", state: "scheduled", limit: 5_500 })).toBe(5_500);
          expect(await count("ready")).toBe(5_500);
          expect(await queue.admin.drop({ handler: "work", state: "ready", limit: 5_200 })).toBe(5_200);
          expect(await count("ready")).toBe(300);
          expect(await queue.admin.drop({ handler: "work", limit: 1_000_000 })).toBe(800);
          await until(() => isEmpty(queue));
        },
      );
    });

    it("leaves a job alone that a worker has", async () => {
      await withQueue(
        () => ({ work: handle(noted, async () => {}) }),
        async (queue) => {
          await publish(queue, note("a", 1));
          const { claimed } = await queue.startFrozenWorker("work", 1);
          expect(claimed).toBe(1);
          const { jobs } = await queue.admin.list({ state: "running", limit: 10 });
          if (hasBroker) {
            // It is in no job table, so no tool can take it away.
            expect(jobs).toEqual([]);
            expect(await queue.admin.drop({ handler: "work", state: "ready", limit: 10 })).toBe(0);
            return;
          }
          const ids = jobs.map(({ id }) => id);
          expect(ids).toHaveLength(1);
          expect(await queue.admin.drop({ ids, limit: 10 })).toBe(0);
          expect(await queue.admin.retry({ ids, limit: 10 })).toBe(0);
          const [shown] = await queue.admin.show(ids[0] as string);
          expect(shown).toMatchObject({ state: "running", workerId: expect.any(String) });
        },
      );
    });

    it("lets the next of a key go when the first is dropped", async () => {
      const seen: number[] = [];
      await withQueue(
        () => ({
          work: handle(
            noted,
            async ({ payload }) => {
              if (payload.number === 0) throw new Error("again");
              seen.push(payload.number);
            },
            { backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } },
          ),
        }),
        async (queue) => {
          await queue.startWorker();
          await publishMany(
            queue,
            ann,
            [0, 1].map((number) => [note("a", number), "a"]),
          );
          await until(async () => (await queue.admin.counts())[0]?.retrying === 1);
          expect(seen).toEqual([]);
          expect(await queue.admin.drop({ handler: "work", state: "retrying", limit: 1 })).toBe(1);
          await until(() => seen.length === 1);
        },
      );
    });
  });
}
