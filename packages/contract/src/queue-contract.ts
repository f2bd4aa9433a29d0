/**
 * What every queue must do, whatever carries its messages: published with the transaction, handled at least once, in order
 * per key, with effects exactly once. Run it against the real servers behind each driver.
 */
import { afterAll, describe } from "vitest";
import { administrationContract } from "./queue-contract/administration.ts";
import { effectsContract } from "./queue-contract/effects.ts";
import { type QueueContractOptions, queueHarness } from "./queue-contract/harness.ts";
import { orderContract } from "./queue-contract/order.ts";
import { publishingContract } from "./queue-contract/publishing.ts";
import { schedulesContract } from "./queue-contract/schedules.ts";
import { troubleContract } from "./queue-contract/trouble.ts";

export {
  type EffectTables,
  effectTablesSql,
  type QueueUnderTest,
  until,
  type WorkerOptions,
} from "./queue-contract/harness.ts";

export function queueContract(options: QueueContractOptions): void {
  const harness = queueHarness(options);
  describe(`the queue contract: ${options.name}`, () => {
    afterAll(() => options.close());
    publishingContract(harness);
    effectsContract(harness);
    orderContract(harness);
    troubleContract(harness);
    schedulesContract(harness);
    administrationContract(harness);
  });
}
