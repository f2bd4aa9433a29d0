/** The pool under trouble, and what PostgreSQL's values become. */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openPostgres, type PostgresPoolOptions } from "../../src/database/drivers/postgres.ts";
import { openUnreliableProxy, startTestPostgres, type TestPostgres } from "./support.ts";

describe("the PostgreSQL driver", () => {
  let server: TestPostgres;
  const open = (pool: PostgresPoolOptions = {}, url = server.connectionString) =>
    openPostgres({ name: "shard 0", address: { url }, pool });

  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);

  beforeAll(async () => {
    server = await startTestPostgres();
  });
  afterAll(() => server.stop());
  beforeEach(() => {
    unhandled.length = 0;
    process.on("unhandledRejection", note);
  });
  afterEach(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    process.off("unhandledRejection", note);
    expect(unhandled).toEqual([]);
  });

  const connectionsOf = async (name: string): Promise<number> => {
    const admin = open();
    const [row] = await admin.query<{ n: number }>(
      undefined,
      "select count(*) as n from pg_stat_activity where application_name = $1",
      [`rungs ${name}`],
    );
    await admin.close();
    return row?.n ?? -1;
  };
  const pidOf = async (shard: ReturnType<typeof open>) =>
    (await shard.query<{ pid: number }>(undefined, "select pg_backend_pid() as pid", []))[0]?.pid;

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

  it("reads arrays as it reads single values, nested and with nulls", async () => {
    const shard = open();
    const [row] = await shard.query<Record<string, unknown>>(
      undefined,
      `select array[[1, null], [3, 4]]::int8[] as numbers, array[date '2026-03-29', null] as days,
        array['{"a": 1}'::jsonb, 'null'::jsonb] as documents, array[]::uuid[] as none`,
      [],
    );
    expect(row).toEqual({
      numbers: [
        [1, null],
        [3, 4],
      ],
      days: ["2026-03-29", null],
      documents: [{ a: 1 }, null],
      none: [],
    });
    await expect(shard.query(undefined, "select array[9007199254740993]::int8[] as big", [])).rejects.toThrow(
      RangeError,
    );
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await shard.close();
  });

  it("keeps its connection after an error of the caller's SQL, in and outside transactions", async () => {
    const shard = open({ connectionsMax: 1 });
    const before = await pidOf(shard);
    await expect(shard.query(undefined, "select 1 / 0", [])).rejects.toThrow(/division by zero/);
    await expect(shard.query("bad", "select $1::int", ["x"])).rejects.toThrow(/invalid input syntax/);
    await expect(shard.kysely.transaction().execute((tx) => sql`select 1 / 0`.execute(tx))).rejects.toThrow(
      /division by zero/,
    );
    expect(await pidOf(shard)).toBe(before);
    await shard.close();
  });

  it("says of an error in a transaction where the statement was run", async () => {
    const shard = open();
    const failed = shard.kysely.transaction().execute(async (tx) => {
      await sql`select * from nowhere`.execute(tx);
    });
    const error = await failed.catch((raised: unknown) => raised);
    expect(error).toMatchObject({
      code: "42P01",
      stack: expect.stringMatching(/nowhere[\s\S]*at async [\s\S]*postgres\.test\.ts/),
    });
    await shard.close();
  });

  it("closes every connection when closed, whichever way they were opened, and may be closed twice", async () => {
    for (const use of ["query", "kysely"] as const) {
      const shard = openPostgres({ name: `closing ${use}`, address: { url: server.connectionString } });
      if (use === "query") await shard.query(undefined, "select 1", []);
      else await sql`select 1`.execute(shard.kysely);
      expect(await connectionsOf(`closing ${use}`)).toBe(1);
      await Promise.all([shard.close(), shard.close()]);
      await expect.poll(() => connectionsOf(`closing ${use}`)).toBe(0);
      await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({ code: "SHUTTING_DOWN" });
    }
  });

  it("gives every connection back after errors of all kinds", async () => {
    const shard = open({ connectionsMax: 3, statementTimeoutMs: 100 });
    const bad = ["select 1 / 0", "select pg_sleep(2)", "selekt", "select 9007199254740993::int8"];
    for (const text of [...bad, ...bad]) {
      await Promise.all([
        expect(shard.query(undefined, text, [])).rejects.toThrow(),
        expect(shard.kysely.transaction().execute((tx) => sql.raw(text).execute(tx))).rejects.toThrow(),
        expect(
          shard.kysely.transaction().execute(async () => {
            throw new Error("the caller's own");
          }),
        ).rejects.toThrow("the caller's own"),
      ]);
    }
    const { total, idle, waiting } = shard.stats();
    expect({ busy: total - idle, waiting }).toEqual({ busy: 0, waiting: 0 });
    expect(total).toBeLessThanOrEqual(3);
    await shard.close();
  });

  it("prepares each statement once a connection, however often it runs", async () => {
    const shard = open({ connectionsMax: 1 });
    for (let round = 0; round < 50; round++) {
      await shard.query("prepared_once", "select $1::int as n", [round]);
      await shard.query(undefined, "select $1::text as t", ["unnamed"]);
    }
    const rows = await shard.query<{ name: string }>(undefined, "select name from pg_prepared_statements", []);
    expect(rows).toEqual([{ name: "prepared_once" }]);
    await shard.close();
  });

  it("runs a statement again whose plan a migration made stale", async () => {
    const shard = open({ connectionsMax: 1 });
    await shard.query(undefined, "create table changing (n int)", []);
    await shard.query(undefined, "insert into changing values (1)", []);
    expect(await shard.query("changing_all", "select * from changing", [])).toEqual([{ n: 1 }]);
    await shard.query(undefined, "alter table changing add column m int default 2", []);
    expect(await shard.query("changing_all", "select * from changing", [])).toEqual([{ n: 1, m: 2 }]);
    expect(await shard.query("changing_all", "select * from changing", [])).toEqual([{ n: 1, m: 2 }]);
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

  it("never uses a connection again that the server ended while it was idle", async () => {
    const shard = open({ connectionsMax: 1 });
    const admin = open();
    const before = await pidOf(shard);
    await admin.query(undefined, "select pg_terminate_backend($1)", [before]);
    await expect.poll(() => shard.stats().total).toBe(0);
    expect(await pidOf(shard)).not.toBe(before);
    await Promise.all([shard.close(), admin.close()]);
  });

  it("finds the server again once the way to it is open", async () => {
    const proxy = await openUnreliableProxy(server);
    const shard = open({ acquireTimeoutMs: 500 }, proxy.url);
    await shard.query(undefined, "select 1", []);
    const broken = shard.query(undefined, "select pg_sleep(5)", []);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await Promise.all([
      expect(broken).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: false }),
      proxy.cut(),
    ]);
    await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
      canRetry: true,
      message: expect.stringMatching(/ECONNREFUSED.*Nothing was sent/),
    });
    await proxy.open();
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await shard.close();
    await proxy.cut();
  });

  it("gives up a server that hangs, in a statement and while connecting, and goes on when it answers", async () => {
    const proxy = await openUnreliableProxy(server);
    const shard = open({ acquireTimeoutMs: 300, statementTimeoutMs: 100 }, proxy.url);
    await shard.query(undefined, "select 1", []);
    proxy.silence(true);
    const since = performance.now();
    await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
      canRetry: false,
    });
    expect(performance.now() - since).toBeLessThan(7_000);
    await expect(shard.query(undefined, "select 1", [])).rejects.toMatchObject({ canRetry: true });
    proxy.silence(false);
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await shard.close();
    await proxy.cut();
  });

  it("keeps the caller's own error when the connection is lost before the rollback", async () => {
    const proxy = await openUnreliableProxy(server);
    const shard = open({ connectionsMax: 1 }, proxy.url);
    const failing = shard.kysely.transaction().execute(async (tx) => {
      await sql`select 1`.execute(tx);
      await proxy.cut();
      throw new Error("the caller's own");
    });
    await expect(failing).rejects.toThrow("the caller's own");
    await proxy.open();
    expect(await shard.query(undefined, "select 1 as one", [])).toEqual([{ one: 1 }]);
    await shard.close();
    await proxy.cut();
  });

  it("says that the server has no connection left", async () => {
    const small = await startTestPostgres({ settings: { max_connections: "4", superuser_reserved_connections: "0" } });
    const shard = open({ connectionsMax: 8 }, small.connectionString);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => shard.query(undefined, "select pg_sleep(0.3)", [])),
    );
    const refused = outcomes.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
    expect(refused.length).toBeGreaterThan(0);
    for (const reason of refused) {
      expect(reason).toMatchObject({
        code: "POOL_EXHAUSTED",
        canRetry: true,
        message: expect.stringMatching(/shard 0 has no connection left to give/),
      });
    }
    expect(outcomes.length - refused.length).toBeGreaterThan(0);
    await shard.close();
    await small.stop();
  });

  it("says that a dead server does not answer, and that nothing was sent to it", async () => {
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

  it("never tells a password, be it wrong or in an address that cannot be read", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rungs-hba-"));
    await chmod(folder, 0o755);
    const rules = join(folder, "pg_hba.conf");
    await writeFile(rules, "local all rungs trust\nlocal all all scram-sha-256\n", { mode: 0o644 });
    const strict = await startTestPostgres({ settings: { hba_file: rules } });
    const admin = open({}, strict.connectionString);
    await admin.query(undefined, "create role app login password 'right-horse'", []);
    const log: unknown[] = [];
    const keep = (...parts: unknown[]) => void log.push(parts);
    const { host, port, database } = strict;
    const login = (password: string) =>
      openPostgres({
        name: "shard 0",
        address: { host, port, database, user: "app", password },
        log: { debug: keep, info: keep, warn: keep, error: keep },
      });
    const right = login("right-horse");
    expect(await right.query(undefined, "select current_user as name", [])).toEqual([{ name: "app" }]);
    const wrong = login("wr0ng-s3cret");
    const refused = await wrong.query(undefined, "select 1", []).catch((reason: unknown) => reason);
    expect(refused).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
    const unreadable = ["postgres://app:wr0ng-s3cret@host:notaport/x", "postgres://app:wr0ng-s3cret@[::1/x"].map(
      (url) => {
        try {
          return openPostgres({ name: "shard 0", address: { url } });
        } catch (error) {
          return error;
        }
      },
    );
    for (const error of unreadable) expect(error).toMatchObject({ code: "CONFIG_INVALID" });
    const said = inspect([refused, unreadable, wrong.stats(), log], { depth: 20, showHidden: true });
    expect(said).toMatch(/password authentication failed/);
    expect(said).not.toContain("s3cret");
    await Promise.all([admin.close(), right.close(), wrong.close()]);
    await strict.stop();
    await rm(folder, { recursive: true });
  });
});
