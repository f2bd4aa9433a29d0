/** A program that takes a name step by step, each when told to by a line on stdin: for a test that kills it in between. */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { openPostgres } from "../../../src/database/drivers/postgres.ts";
import { directory, initialPlacement, type ShardConnection, shardedDatabase } from "../../../src/database/index.ts";
import { type Bearers, bearerTables } from "./bearers.ts";

const [name = "", key = "", reservationMs = "", ...urls] = process.argv.slice(2);
const shards = urls.map((url, index): ShardConnection => openPostgres({ name: `shard ${index}`, address: { url } }));
const db = shardedDatabase<Bearers>({
  shards: shards as [ShardConnection, ...ShardConnection[]],
  placement: initialPlacement({ strategy: "hash", shards: shards.length }),
  tables: bearerTables,
});
const names = directory({ home: db.home as never, space: "people", reservationMs: Number(reservationMs) });
const reference = { key, id: key };
const steps = [
  () => names.reserve(name, reference, async () => true),
  () => db.for(key).insertInto("bearers").values({ owner_id: key, name }).execute(),
  () => names.confirm(name, reference),
];
const lines = createInterface({ input: process.stdin });
process.stdout.write("ready\n");
for (const step of steps) {
  await once(lines, "line");
  await step();
  process.stdout.write("done\n");
}
await once(lines, "line");
