/** The queue contract with a real Kafka between two shards and their handlers. */
import { queueContract } from "@rungs/contract/queue-contract";
import { startTestKafka, type TestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { describe } from "vitest";
import { kafkaBroker } from "../../src/queue/drivers/kafka-broker.ts";
import { testQueues } from "./queue-under-test.ts";

const missing = whyNoKafka();

describe.skipIf(missing !== undefined)(`Kafka under the queue${missing === undefined ? "" : `: ${missing}`}`, () => {
  let server: Promise<TestKafka> | undefined;
  const queues = testQueues(async (queue) => {
    server ??= startTestKafka();
    const times = { sessionMs: 2_000, heartbeatMs: 100 };
    return kafkaBroker({ url: (await server).url, prefix: `queue-${queue}`, partitions: 4, ...times });
  });

  queueContract({
    name: "Kafka",
    hasBroker: true,
    open: queues.open,
    async close() {
      await queues.close();
      await (await server)?.stop();
    },
  });
});
