/** The database through a real PgBouncer in transaction mode, configured as docs/operating/pgbouncer.md says. */
import { databaseContract } from "@rungs/contract/database-contract";
import { startTestPgbouncer, type TestPgbouncer } from "@rungs/contract/test-pgbouncer";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { startTestPostgres, type TestPostgres } from "./support.ts";

const poolSize = 3;
let server: TestPostgres;
let bouncer: TestPgbouncer;
beforeAll(async () => {
  server = await startTestPostgres();
  bouncer = await startTestPgbouncer({ host: server.host, port: server.port, poolSize });
});
afterAll(async () => {
  await bouncer?.stop();
  await server?.stop();
});

const newDatabase = async () =>
  bouncer.urlOf(new URL((await server.createDatabase()).replace("@/", "@socket/")).pathname.slice(1));

databaseContract({
  name: "through PgBouncer in transaction mode",
  shards: 2,
  open: () =>
    Promise.all(
      [0, 1].map(async (shard) =>
        openPostgres({
          name: `shard ${shard}`,
          address: { url: await newDatabase() },
          // As with followers: each new connection is asked whether it leads, and so is each transaction.
          pool: { preparedStatements: false, leader: {} },
        }),
      ),
    ),
});

describe("PgBouncer in transaction mode", () => {
  it("lets many connections of many pools share a few of the server", async () => {
    const url = await newDatabase();
    const pools = Array.from({ length: 5 }, () =>
      openPostgres({ name: "shard 0", address: { url }, pool: { preparedStatements: false } }),
    );
    const answers = await Promise.all(
      pools.flatMap((pool) =>
        Array.from({ length: 20 }, (_, index) =>
          pool.query<{ index: number }>("which", "select $1::int as index", [index]),
        ),
      ),
    );
    expect(answers.map(([row]) => row?.index)).toEqual(
      pools.flatMap(() => Array.from({ length: 20 }, (_, index) => index)),
    );
    expect(pools.reduce((sum, pool) => sum + pool.stats().total, 0)).toBeGreaterThan(2 * poolSize);
    expect(await bouncer.serverConnections()).toBeLessThanOrEqual(3 * poolSize);
    await Promise.all(pools.map((pool) => pool.close()));
  });

  it("takes named statements from 1.21 on, and breaks them before", async () => {
    const [major, minor] = await bouncer.version();
    const isKnown = major > 1 || minor >= 21;
    const url = await newDatabase();
    const pools = Array.from({ length: 4 }, () => openPostgres({ name: "shard 0", address: { url } }));
    const asked = await Promise.allSettled(
      Array.from({ length: 40 }, (_, index) =>
        pools[index % pools.length]?.query<{ index: number }>("which", "select $1::int as index", [index]),
      ),
    );
    expect(asked.every(({ status }) => status === "fulfilled")).toBe(isKnown);
    await Promise.all(pools.map((pool) => pool.close()));
  });

  it("of a server that is gone ends what is under way as unknown, and tells what was not sent", async () => {
    const mortal = await startTestPostgres();
    const settings = { query_wait_timeout: "1" };
    const between = await startTestPgbouncer({ host: mortal.host, port: mortal.port, poolSize, settings });
    const address = { url: between.urlOf("postgres") };
    const pool = openPostgres({ name: "shard 0", address, pool: { preparedStatements: false } });
    expect(await pool.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    const write = pool.query(undefined, "select pg_sleep(20)", []);
    const outcome = expect(write).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: false });
    await expect.poll(() => between.serverConnections()).toBe(1);
    await mortal.stop();
    await outcome;
    await expect(pool.query(undefined, "select 1", [])).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    await pool.close();
    await between.stop();
  }, 30_000);
});
