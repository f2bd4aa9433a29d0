/** `rungs jobs`, run as the real program, where a broker carries the messages. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { startTestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { kafkaBroker } from "rungs/queue/kafka";
import { rabbitmqBroker } from "rungs/queue/rabbitmq";
import { describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { type OrderBroker, type Orders, openOrders, until } from "./support/orders.ts";

const missing = whyNoKafka();

async function withOrders(through: OrderBroker, use: (orders: Orders, jobs: Jobs) => Promise<void>): Promise<void> {
  const orders = await openOrders(through);
  const folder = await mkdtemp(join(tmpdir(), "rungs-jobs-broker-"));
  await writeFile(join(folder, "rungs.config.json"), JSON.stringify({ queue: { url: { env: "QUEUE_URL" } } }));
  const jobs: Jobs = (...args) => rungs(["jobs", ...args], { environment: orders.environment, folder });
  try {
    await use(orders, jobs);
  } finally {
    await orders.close();
    await rm(folder, { recursive: true });
  }
}

type Jobs = (...args: string[]) => ReturnType<typeof rungs>;

const json = async (jobs: Jobs, ...args: string[]) => {
  const { code, stdout, stderr } = await jobs(...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
};

describe("rungs jobs over RabbitMQ", () => {
  it("counts what waits in the broker for a paused handler, resumes it, and works without the broker", async () => {
    const server = await startTestRabbitmq();
    try {
      await withOrders(
        { url: server.url, connect: () => rabbitmqBroker({ url: server.url }) },
        async (orders, jobs) => {
          orders.mend();
          await orders.startWorker();
          await orders.publish({ number: 0 });
          await until(() => orders.shipped.length === 1);
          await json(jobs, "pause", "orders.ship");
          await until(() => orders.isPaused());
          for (let number = 1; number < 4; number++) await orders.publish({ number });
          await until(async () => (await json(jobs)).handlers[0]?.ready === 3);
          await json(jobs, "resume", "orders.ship");
          await until(() => orders.shipped.length === 4);
          await server.stop();
          const { code, stdout } = await jobs("--json");
          expect(code).toBe(0);
          expect(JSON.parse(stdout).missing).toMatchObject([{ name: "RabbitMQ" }]);
        },
      );
    } finally {
      await server.stop();
    }
  }, 120_000);
});

describe.skipIf(missing !== undefined)(`rungs jobs over Kafka${missing === undefined ? "" : `: ${missing}`}`, () => {
  it("delivers once more what was published since a time, to a paused handler and with leave for what may repeat", async () => {
    const server = await startTestKafka();
    try {
      await withOrders({ url: server.url, connect: () => kafkaBroker({ url: server.url }) }, async (orders, jobs) => {
        orders.mend();
        await orders.startWorker();
        for (let number = 0; number < 3; number++) await orders.publish({ number }, { key: "k" });
        await until(() => orders.shipped.length === 3);
        const early = await jobs("replay", "orders.ship", "--from", "1h");
        expect(early).toMatchObject({ code: 2, stderr: expect.stringContaining("rungs jobs pause orders.ship") });
        await json(jobs, "pause", "orders.ship");
        await until(() => orders.isPaused());
        const far = await jobs("replay", "orders.ship", "--from", "2d");
        expect(far).toMatchObject({ code: 2, stderr: expect.stringContaining("--repeat-effects") });
        let answer = "";
        await until(async () => {
          const { code, stdout } = await jobs("replay", "orders.ship", "--from", "2d", "--repeat-effects", "--json");
          answer = stdout;
          return code === 0;
        });
        expect(JSON.parse(answer)).toEqual({ handler: "orders.ship", from: expect.any(String), isPaused: true });
        expect(orders.shipped).toHaveLength(3);
        await json(jobs, "resume", "orders.ship");
        await until(() => orders.shipped.length === 6);
        expect(orders.shipped.slice(3).sort()).toEqual([0, 1, 2]);
      });
    } finally {
      await server.stop();
    }
  }, 120_000);
});
