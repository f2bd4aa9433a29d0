/** The broker contract: a server that crashes. */
import { setTimeout as sleep } from "node:timers/promises";
import { UnavailableError } from "rungs";
import type { BrokerMessage } from "rungs/queue/broker";
import { describe, expect, it } from "vitest";
import { acknowledge, type BrokerHarness, messageOf, OrderedWork, until, wentOff } from "./harness.ts";

export function troubleContract({ withApp: withAnyApp, server }: BrokerHarness): void {
  const withApp = (use: Parameters<typeof withAnyApp>[0]) => withAnyApp(use, [wentOff], true);

  describe("a server that crashes", () => {
    it("has kept what it confirmed; while it is away calls say so in time", async () => {
      await withApp(async (app) => {
        const sent = Array.from({ length: 500 }, (_, index) =>
          messageOf(index % 4 === 0 ? null : `k${index % 7}`, index),
        );
        await app.first.publish(sent);
        await server().kill();
        try {
          const since = performance.now();
          const unreachable = { code: "BROKER_UNREACHABLE", canRetry: true };
          await Promise.all([
            expect(app.first.publish([messageOf("a", 0)])).rejects.toMatchObject(unreachable),
            expect(app.first.declare([wentOff])).rejects.toMatchObject(unreachable),
            expect(app.first.backlog([wentOff])).rejects.toMatchObject(unreachable),
            expect(app.first.check()).rejects.toMatchObject(unreachable),
            expect(app.consume(acknowledge)).rejects.toMatchObject(unreachable),
          ]);
          expect(performance.now() - since).toBeLessThan(15_000);
        } finally {
          await server().restart();
        }
        await until(() =>
          app.first.check().then(
            () => true,
            () => false,
          ),
        );
        const { done } = await app.consume(acknowledge);
        const ids = () => new Set(done.map(({ id }) => id));
        await until(() => sent.every(({ id }) => ids().has(id)), 30_000);
      });
    }, 90_000);

    it("under way stops nobody for good: publishers know what is stored, consumers come back by themselves", async () => {
      await withApp(async (app) => {
        const work = new OrderedWork();
        const both = [await app.consume(work.work), await app.consume(work.work)];
        const keys = ["a", "b", "c", "d", "e"];
        let isOver = false;
        let number = 0;
        let failures = 0;
        // As the relay does: the same messages again until they are confirmed.
        const publishing = (async () => {
          while (!isOver) {
            const messages: BrokerMessage[] = keys.map((key) => messageOf(key, number));
            while (!(await isPublished(app.first.publish(messages)))) {
              failures++;
              await sleep(100);
            }
            number++;
            await sleep(2);
          }
        })();
        await until(() => work.count > 100);
        await server().restart();
        const before = both.map(({ done }) => done.length);
        await until(() => both.every(({ done }, index) => done.length > (before[index] ?? 0) + 50), 30_000);
        isOver = true;
        await publishing;
        expect(failures).toBeGreaterThan(0);
        await until(() => work.count === number * keys.length, 30_000);
        for (const key of keys) {
          expect(work.doneByKey.get(key), key).toEqual(Array.from({ length: number }, (_, index) => index));
        }
      });
    }, 90_000);
  });
}

/** Raises what is not the server's absence. */
async function isPublished(publishing: Promise<void>): Promise<boolean> {
  try {
    await publishing;
    return true;
  } catch (error) {
    if (error instanceof UnavailableError && error.code === "BROKER_UNREACHABLE") return false;
    throw error;
  }
}
