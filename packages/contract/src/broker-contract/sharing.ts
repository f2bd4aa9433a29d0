/** The broker contract: several processes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import {
  acknowledge,
  type BrokerDriver,
  type BrokerHarness,
  messageOf,
  numberOf,
  OrderedWork,
  until,
} from "./harness.ts";

const childProgram = fileURLToPath(new URL("child.ts", import.meta.url));

export function sharingContract({ withApp, takeoverMs }: BrokerHarness): void {
  const keys = Array.from({ length: 12 }, (_, index) => `key ${index}`);
  const round = (number: number) => keys.map((key) => messageOf(key, number));
  const expectAll = ({ doneByKey, breaches }: OrderedWork, count: number) => {
    expect(breaches).toEqual([]);
    for (const key of keys) {
      expect(doneByKey.get(key), key).toEqual(Array.from({ length: count }, (_, index) => index));
    }
  };

  describe("several processes", () => {
    it("share the messages of a handler, each key in order in one at a time", async () => {
      await withApp(async (app) => {
        const work = new OrderedWork(() => Math.random() * 2);
        const shares = [await app.consume(work.work), await app.consume(work.work)];
        // A share comes some time after a process has joined.
        let number = 0;
        while (shares.some(({ done }) => done.length < 5 * keys.length) && number < 500) {
          await app.first.publish(round(number++));
          await until(() => work.count > (number - 5) * keys.length);
        }
        await until(() => work.count === number * keys.length);
        expectAll(work, number);
        for (const { done } of shares) expect(done.length).toBeGreaterThanOrEqual(5 * keys.length);
      });
    });

    it("take over from each other as they come and go, without losing anything or its order", async () => {
      await withApp(async (app) => {
        const work = new OrderedWork(() => Math.random() * 2);
        let number = 0;
        let isOver = false;
        const publishing = (async () => {
          while (!isOver) {
            await app.first.publish(round(number++));
            await until(() => work.count > (number - 10) * keys.length, takeoverMs);
          }
        })();
        try {
          const first = await app.consume(work.work);
          await until(() => first.done.length > 50);
          const second = await app.consume(work.work);
          await until(() => second.done.length > 50);
          const third = await app.consume(work.work);
          await until(() => third.done.length > 50);
          await second.consumer.close();
          const before = first.done.length + third.done.length;
          await until(() => first.done.length + third.done.length > before + 50);
          await first.consumer.close();
          const fourth = await app.consume(work.work);
          await until(() => fourth.done.length > 50);
        } finally {
          isOver = true;
          await publishing;
        }
        await until(() => work.count === number * keys.length);
        expectAll(work, number);
      });
    });

    it("get what a process held that was killed, repeated and in order", async () => {
      await withApp(async (app) => {
        const child = await startChild(app.driver);
        try {
          const messages = Array.from({ length: 60 }, (_, index) => messageOf(keys[index % 3] as string, index));
          await app.first.publish(messages);
          await until(() => child.begun.length >= 10);
          const survivor = await app.consume(acknowledge);
          await child.kill();
          await until(() => survivor.done.length === messages.length, takeoverMs);
          const repeated = new Set(
            survivor.delivered.filter(({ isRepeated }) => isRepeated).map(({ message }) => message.id),
          );
          expect(child.begun.every((id) => repeated.has(id))).toBe(true);
          for (const key of keys.slice(0, 3)) {
            const numbers = survivor.done.filter((message) => message.key === key).map(numberOf);
            expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
          }
        } finally {
          await child.kill();
        }
      });
    });
  });
}

/** A process that begins whatever it gets and settles nothing. */
async function startChild(driver: BrokerDriver) {
  const child = spawn(process.execPath, [childProgram], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(driver));
  const begun: string[] = [];
  const lines = createInterface({ input: child.stdout });
  const isReady = once(lines, "line");
  lines.on("line", (line) => line !== "ready" && begun.push(line));
  await isReady;
  return {
    begun,
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}
