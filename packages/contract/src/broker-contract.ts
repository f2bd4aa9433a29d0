/**
 * What every broker must do: a copy of each message for each handler, in the order of its key, delivered again until it is acknowledged,
 * over consumers that come and go and a server that crashes. Run it against the real server behind each driver.
 */
import { afterAll, beforeAll, describe } from "vitest";
import { copiesContract } from "./broker-contract/copies.ts";
import { type BrokerContractOptions, brokerHarness } from "./broker-contract/harness.ts";
import { settlingContract } from "./broker-contract/settling.ts";
import { sharingContract } from "./broker-contract/sharing.ts";
import { troubleContract } from "./broker-contract/trouble.ts";

export type { BrokerContractOptions, BrokerDriver, BrokerServer } from "./broker-contract/harness.ts";

export function brokerContract(options: BrokerContractOptions): void {
  const harness = brokerHarness(options);
  describe(`the broker contract: ${options.name}`, () => {
    beforeAll(() => harness.start(), 120_000);
    afterAll(() => harness.stop(), 30_000);
    copiesContract(harness);
    settlingContract(harness);
    sharingContract(harness);
    troubleContract(harness);
  });
}
