/** The pool under trouble, and what PostgreSQL's values become. */
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres, type PostgresPoolOptions } from "../../src/database/drivers/postgres.ts";
import { startTestPostgres, type TestPostgres } from "./support.ts";

describe("the PostgreSQL driver", () => {
  let server: TestPostgres;
  const open = (pool: PostgresPoolOptions = {}, url = server.connectionString) =>
    openPostgres({ name: "shard 0", address: { url }, pool });

  beforeAll(async () => {
    server = await startTestPostgres();
  });
  afterAll(() => server.stop());

  it("turns values into what JavaScript can hold exactly, and says so when it cannot", async () => {
    const shard = open();
    const [row] = await shard.query<Record<string, unknown>>(
      undefined,
      `select count(*) as count, 9007199254740991::int8 as big, date '2026-03-29' as day, timestamptz '2026-03-29 01:30:00+00' as at,
        '[1,{"a":null}]'::jsonb as json, array['0190c7a0-0000-7000-8000-000000000001'::uuid] as ids, 1.50::numeric as price, null as nothing`,
      [],
    );
    expect(row).toEqual({
      count: 1,
      big: Number.MAX_SAFE_INTEGER,
      day: "2026-03-29",
      at: new Date("2026-03-29T01:30:00Z"),
      json: [1, { a: null }],
      ids: ["0190c7a0-0000-7000-8000-000000000001"],
      price: "1.50",
      nothing: null,
    });
    await expect(shard.query(undefined, "select 9007199254740992::int8 as big", [])).rejects.toThrow(
      /does not fit a JavaScript number/,
    );
    await shard.close();
  });

  it("cancels a statement that takes too long, and goes on", async () => {
    const shard = open({ statementTimeoutMs: 50, connectionsMax: 1 });
    await expect(shard.query(undefined, "select pg_sleep(5)", [])).rejects.toMatchObject({
      code: "STATEMENT_TIMEOUT",
      canRetry: true,
    });
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await shard.close();
  });

  it("says that the pool is exhausted within the bound, bounds those who wait, and recovers", async () => {
    const shard = open({ connectionsMax: 2, acquireTimeoutMs: 100, waitersMax: 3 });
    const slow = [1, 2].map(() => shard.query(undefined, "select pg_sleep(0.4)", []));
    const since = performance.now();
    const others = await Promise.allSettled(Array.from({ length: 5 }, () => shard.query(undefined, "select 1", [])));
    expect(performance.now() - since).toBeLessThan(350);
    const messages = others.map((other) =>
      other.status === "rejected" ? `${other.reason.code}: ${other.reason.message}` : "fine",
    );
    expect(messages.filter((message) => /POOL_EXHAUSTED: No connection .* within 100 ms/.test(message))).toHaveLength(
      3,
    );
    expect(messages.filter((message) => /POOL_EXHAUSTED: All 2 connections .* limit 3/.test(message))).toHaveLength(2);
    await Promise.all(slow);
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    expect(shard.stats()).toMatchObject({ shard: "shard 0", waiting: 0 });
    await shard.close();
  });

  it("drops a connection that the server ended, also between two statements of a transaction", async () => {
    const shard = open({ connectionsMax: 1 });
    const admin = open();
    const ended = shard.kysely.transaction().execute(async (tx) => {
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
      await admin.query(undefined, "select pg_terminate_backend($1)", [rows[0]?.pid]);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await sql`select 1`.execute(tx);
    });
    await expect(ended).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await Promise.all([shard.close(), admin.close()]);
  });

  it("says that a dead server does not answer, and finds it again when it is back", async () => {
    const mortal = await startTestPostgres();
    const shard = open({ acquireTimeoutMs: 500 }, mortal.connectionString);
    await shard.query(undefined, "select 1", []);
    await mortal.stop();
    await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
      canRetry: true,
    });
    await shard.close();
  });

  it("never tells a password", async () => {
    const shard = openPostgres({
      name: "shard 0",
      address: {
        host: server.host,
        port: server.port,
        user: "stranger",
        database: server.database,
        password: "s3cret",
      },
    });
    const error = await shard.query(undefined, "select 1", []).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ name: "ConfigError" });
    expect(`${(error as Error).message} ${JSON.stringify(error)} ${JSON.stringify(shard.stats())}`).not.toContain(
      "s3cret",
    );
    await shard.close();
  });
});
