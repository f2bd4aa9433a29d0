/** Servers for the database tests. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { openPostgres, type PostgresPoolOptions } from "../../src/database/drivers/postgres.ts";
import type { ShardConnection } from "../../src/database/index.ts";

export { openUnreliableProxy, type UnreliableProxy } from "@rungs/contract/unreliable-proxy";
export { startTestPostgres, type TestPostgres };

/** A seed for this run's random data, printed so that it can be set again by RUNGS_TEST_SEED. */
export function testSeed(what: string): number {
  const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
  console.info(`${what}: RUNGS_TEST_SEED=${seed}`);
  return seed;
}

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
