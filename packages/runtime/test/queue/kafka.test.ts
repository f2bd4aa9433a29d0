/** Kafka as a broker: what every broker must do. */
import { brokerContract } from "@rungs/contract/broker-contract";
import { startTestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { describe } from "vitest";

const missing = whyNoKafka();

describe.skipIf(missing !== undefined)(`Kafka as a broker${missing === undefined ? "" : `: ${missing}`}`, () => {
  brokerContract({
    name: "Kafka",
    async start() {
      const { url, kill, restart, stop } = await startTestKafka();
      return {
        driver: (app) => ({
          module: "rungs/queue/kafka",
          factory: "kafkaBroker",
          options: {
            url,
            prefix: app,
            partitions: 4,
            publishMs: 2_000,
            callMs: 3_000,
            sessionMs: 2_000,
            heartbeatMs: 200,
          },
        }),
        ...{ kill, restart, stop },
      };
    },
  });
});
