/** The queue contract with a real RabbitMQ between two shards and their handlers. */
import { queueContract } from "@rungs/contract/queue-contract";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import { testQueues } from "./queue-under-test.ts";

let server: Promise<TestRabbitmq> | undefined;
const queues = testQueues(async (queue) => {
  server ??= startTestRabbitmq();
  return rabbitmqBroker({ url: (await server).url, prefix: `queue-${queue}`, partitions: 4 });
});

queueContract({
  name: "RabbitMQ",
  hasBroker: true,
  open: queues.open,
  async close() {
    await queues.close();
    await (await server)?.stop();
  },
});
