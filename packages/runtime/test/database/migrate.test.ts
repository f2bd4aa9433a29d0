/** Migrations: once, in order, forward and back, safe when many start at once. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { loadMigrations, migrate, type NamedMigration, type ShardConnection } from "../../src/database/index.ts";
import { openShards, startTestPostgres, type TestPostgres } from "./support.ts";

const step = (table: string) => ({
  up: `create table ${table} (n int); insert into ${table} values (1)`,
  down: `drop table ${table}`,
});
const three: NamedMigration[] = [
  { name: "0001_a", shards: step("a"), home: step("home_a") },
  { name: "0002_b", shards: step("b") },
  { name: "0003_c", shards: step("c") },
];

describe("migrations", () => {
  let server: TestPostgres;
  let shard: ShardConnection;

  beforeAll(async () => {
    server = await startTestPostgres();
  });
  afterAll(() => server.stop());

  const fresh = async () => {
    [shard] = (await openShards(server, 1)) as [ShardConnection];
    return { db: shard.kysely, name: "shard 0", service: "s" } as const;
  };
  const tables = async () => {
    const { rows } = await sql<{
      name: string;
    }>`select tablename as name from pg_tables where schemaname = 'public' and tablename !~ '^rungs_' order by 1`.execute(
      shard.kysely,
    );
    return rows.map((row) => row.name);
  };

  it("go forward in order, once, and back to any point", async () => {
    const base = { ...(await fresh()), target: "shards" as const, migrations: three };
    expect(await migrate(base)).toEqual(["0001_a", "0002_b", "0003_c"]);
    expect(await migrate(base)).toEqual([]);
    expect(await tables()).toEqual(["a", "b", "c"]);
    expect(await migrate({ ...base, to: "0001_a" })).toEqual(["0003_c", "0002_b"]);
    expect(await tables()).toEqual(["a"]);
    expect(await migrate({ ...base, to: "none" })).toEqual(["0001_a"]);
    expect(await migrate(base)).toHaveLength(3);
    await shard.close();
  });

  it("keep shards and home, and services, apart", async () => {
    const base = await fresh();
    expect(await migrate({ ...base, target: "home", migrations: three })).toEqual(["0001_a"]);
    expect(
      await migrate({
        ...base,
        service: "other",
        target: "shards",
        migrations: [{ name: "0001_a", shards: step("other_a") }],
      }),
    ).toEqual(["0001_a"]);
    expect(await tables()).toEqual(["home_a", "other_a"]);
    await shard.close();
  });

  it("run once when eight processes start at the same moment", async () => {
    const base = await fresh();
    const url = await server.createDatabase();
    const pools = Array.from({ length: 8 }, (_, index) =>
      openPostgres({ name: `start ${index}`, address: { url }, pool: { connectionsMax: 2 } }),
    );
    const ran = await Promise.all(
      pools.map((pool) => migrate({ ...base, db: pool.kysely, target: "shards", migrations: three })),
    );
    expect(ran.flat().sort()).toEqual(["0001_a", "0002_b", "0003_c"]);
    const [row] = await (pools[0] as ShardConnection).query<{ n: number }>(
      undefined,
      "select count(*)::int as n from a",
      [],
    );
    expect(row).toEqual({ n: 1 });
    await Promise.all([...pools, shard].map((pool) => pool.close()));
  });

  it("leave nothing of a failed run behind and say which one failed where", async () => {
    const base = { ...(await fresh()), target: "shards" as const };
    const broken = [
      ...three.slice(0, 2),
      { name: "0003_bad", shards: { up: "create table d (n int); select 1 / 0", down: "" } },
    ];
    await expect(migrate({ ...base, migrations: broken })).rejects.toThrow(
      /Migration "0003_bad" of service "s" failed on shard 0: division by zero/,
    );
    expect(await tables()).toEqual([]);
    expect(await migrate({ ...base, migrations: three })).toHaveLength(3);
    await shard.close();
  });

  it("say what is wrong with an unknown target, two of one name, or a service name too long", async () => {
    const base = { ...(await fresh()), target: "shards" as const };
    await expect(migrate({ ...base, migrations: three, to: "0009_nowhere" })).rejects.toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(/0009_nowhere/),
    });
    const [first] = three as [NamedMigration];
    await expect(migrate({ ...base, migrations: [first, first] })).rejects.toThrow(/two migrations named "0001_a"/);
    await expect(migrate({ ...base, service: "s".repeat(42), migrations: three })).rejects.toThrow(/too long/);
    await expect(migrate({ ...base, migrations: three.slice(0, 1) })).resolves.toEqual(["0001_a"]);
    // One that sorts before what ran already could never run in its place.
    await expect(
      migrate({ ...base, migrations: [{ name: "0000_late", shards: step("late") }, first] }),
    ).rejects.toMatchObject({ code: "MIGRATION_FAILED" });
    expect(await tables()).toEqual(["a"]);
    await shard.close();
  });

  it("are not cut short by the statement timeout of other work", async () => {
    const base = await fresh();
    const url = await server.createDatabase();
    const slow = [{ name: "0001_slow", shards: { up: "select pg_sleep(0.5); create table slow (n int)", down: "" } }];
    const hasty = openPostgres({ name: "hasty", address: { url }, pool: { statementTimeoutMs: 100 } });
    const patient = openPostgres({ name: "patient", address: { url }, pool: { statementTimeoutMs: 0 } });
    const run = (pool: ShardConnection) => migrate({ ...base, db: pool.kysely, target: "shards", migrations: slow });
    await expect(run(hasty)).rejects.toMatchObject({ code: "STATEMENT_TIMEOUT" });
    expect(await run(patient)).toEqual(["0001_slow"]);
    await Promise.all([hasty, patient, shard].map((pool) => pool.close()));
  });

  it("blame the server, and not the migration, when it does not answer", async () => {
    const base = await fresh();
    const dead = openPostgres({ name: "shard 0", address: { url: "postgres://rungs@127.0.0.1:1/x" } });
    await expect(migrate({ ...base, db: dead.kysely, target: "shards", migrations: three })).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
    });
    await Promise.all([dead.close(), shard.close()]);
  });

  it("written as code see the transaction, and go back when they throw", async () => {
    const base = { ...(await fresh()), target: "shards" as const };
    let fails = true;
    const coded: NamedMigration[] = [
      {
        name: "0001_code",
        shards: {
          async up(db) {
            await sql`create table coded (n int)`.execute(db);
            if (fails) throw new Error("half way");
          },
          down: async (db) => void (await sql`drop table coded`.execute(db)),
        },
      },
    ];
    await expect(migrate({ ...base, migrations: coded })).rejects.toThrow(/"0001_code".*half way/);
    expect(await tables()).toEqual([]);
    fails = false;
    expect(await migrate({ ...base, migrations: coded })).toEqual(["0001_code"]);
    expect(await migrate({ ...base, migrations: coded, to: "none" })).toEqual(["0001_code"]);
    expect(await tables()).toEqual([]);
    await shard.close();
  });

  it("are read from a folder in the order of their names, and a file without one is refused", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rungs-migrations-"));
    const url = pathToFileURL(`${folder}/`);
    await writeFile(join(folder, "0002_second.mjs"), "export default { shards: { up: 'select 2', down: 'select 2' } }");
    await writeFile(join(folder, "0001_first.mjs"), "export default { home: { up: 'select 1', down: 'select 1' } }");
    await writeFile(join(folder, "notes.txt"), "not a migration");
    expect((await loadMigrations(url)).map((migration) => migration.name)).toEqual(["0001_first", "0002_second"]);
    await writeFile(join(folder, "0003_empty.mjs"), "export const x = 1");
    await expect(loadMigrations(url)).rejects.toThrow(/0003_empty\.mjs has no default export/);
    await rm(folder, { recursive: true });
  });
});
