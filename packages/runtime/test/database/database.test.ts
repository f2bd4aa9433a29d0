/** The database over real servers: the contract, for both kinds of statements and several numbers of shards. */
import { databaseContract } from "@rungs/contract/database-contract";
import { afterAll, beforeAll } from "vitest";
import { openShards, startTestPostgres, type TestPostgres } from "./support.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

for (const shards of [1, 3]) {
  databaseContract({ name: "prepared statements", shards, open: () => openShards(server, shards) });
}
databaseContract({
  name: "unnamed statements",
  shards: 2,
  open: () => openShards(server, 2, { preparedStatements: false }),
});
databaseContract({
  name: "routed by claims",
  shards: 3,
  isRouted: true,
  open: () => openShards(server, 3),
});
