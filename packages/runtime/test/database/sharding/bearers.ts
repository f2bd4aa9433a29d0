/** A sharded table whose rows bear unique names. */
import { tableRegistry } from "../../../src/database/index.ts";

export interface Bearers {
  bearers: { owner_id: string; name: string };
}

export const bearerTables = tableRegistry([
  { name: "test", tables: { bearers: { shardBy: "owner_id" }, rungs_directory: { home: true } } },
]);
