import { brokerContract } from "@rungs/contract/broker-contract";
import { startTestRabbitmq } from "@rungs/contract/test-rabbitmq";

brokerContract({
  name: "RabbitMQ",
  async start() {
    const server = await startTestRabbitmq();
    return {
      driver: (prefix, { isCrashing }) => ({
        module: "rungs/queue/rabbitmq",
        factory: "rabbitmqBroker",
        options: {
          url: server.url,
          prefix,
          partitions: 4,
          publishMs: 3_000,
          ...(isCrashing ? {} : { rememberedMs: 0 }),
        },
      }),
      kill: () => server.kill(),
      restart: () => server.restart(),
      stop: () => server.stop(),
    };
  },
});
