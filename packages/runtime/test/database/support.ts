/** Servers for the database tests. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { openPostgres, type PostgresPoolOptions } from "../../src/database/drivers/postgres.ts";
import type { ShardConnection } from "../../src/database/index.ts";

export { startTestPostgres, type TestPostgres };

/** Pools to fresh databases of one server, as shards. */
export function openShards(
  server: TestPostgres,
  count: number,
  pool: PostgresPoolOptions = {},
): Promise<ShardConnection[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, index) =>
      openPostgres({ name: `shard ${index}`, address: { url: await server.createDatabase() }, pool }),
    ),
  );
}
