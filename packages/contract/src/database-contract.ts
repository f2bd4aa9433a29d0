/** What a sharded database must do, over any servers. Run it for each driver and number of shards. */
import { describe } from "vitest";
import { committingContract } from "./database-contract/committing.ts";
import { type DatabaseContractOptions, databaseHarness } from "./database-contract/harness.ts";
import { mergingContract } from "./database-contract/merging.ts";
import { placingContract } from "./database-contract/placing.ts";
import { refusingContract } from "./database-contract/refusing.ts";

export function databaseContract(options: DatabaseContractOptions): void {
  describe(`the database contract: ${options.name}, ${options.shards} shard(s)`, () => {
    const harness = databaseHarness(options);
    placingContract(harness);
    mergingContract(harness);
    committingContract(harness);
    refusingContract(harness);
  });
}
