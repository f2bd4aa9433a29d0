/** `rungs shards`, run as the real program against real servers. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import {
  bringGuard,
  migrate,
  openPlacement,
  placementMigrations,
  type ShardConnection,
  tableRegistry,
} from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";

const tables = tableRegistry([
  { name: "shop", tables: { orders: { shardBy: "buyer_id" }, buyers: { shardBy: "buyer_id" } } },
]);
const servers: TestPostgres[] = [];
let urls: string[];

/** Shards with 10 buyers each whose first one has 80 of every 100 orders, and twice as many orders on shard 1. */
async function openShop(count: number): Promise<string[]> {
  const addresses: string[] = [];
  for (let index = 0; index < count; index++) {
    const server = await startTestPostgres();
    servers.push(server);
    addresses.push(server.connectionString);
  }
  const shards = addresses.map(
    (url, index): ShardConnection => openPostgres({ name: `shard ${index}`, address: { url } }),
  );
  const [home] = shards as [ShardConnection];
  for (const { kysely: db, name } of shards) {
    await migrate({ db, name, service: "rungs", target: "home", migrations: placementMigrations });
    await migrate({ db, name, service: "rungs", target: "shards", migrations: placementMigrations });
  }
  await openPlacement(home.kysely, shards, { strategy: "hash" });
  for (const [index, shard] of shards.entries()) {
    await shard.query(
      undefined,
      `create table buyers (buyer_id uuid primary key);
       create table orders (buyer_id uuid, number int, primary key (buyer_id, number));
       insert into buyers select gen_random_uuid() from generate_series(1, 10);
       insert into orders select b.buyer_id, n from (select buyer_id, row_number() over (order by buyer_id) as place from buyers) b,
         generate_series(1, ${1_000 * (index + 1)}) n where place = 1 or n % 40 = 0;`,
      [],
    );
    await shard.query(undefined, "analyze", []);
    if (count > 1) await bringGuard(shard, { tables, isHome: index === 0 });
    await shard.close();
  }
  return addresses;
}

beforeAll(async () => {
  urls = await openShop(2);
});
afterAll(async () => {
  for (const server of servers) await server.stop();
});

const shards = (...args: string[]) => rungs(["shards", ...args], { environment: { DATABASE_URL: urls.join(",") } });

describe("rungs shards", { timeout: 60_000 }, () => {
  it("tells for programs who owns what, how much, how even, and which keys are heavy", async () => {
    const { code, stdout, stderr } = await shards("--json", "--interval", "200");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      placement: { strategy: "hash", epoch: 1, shards: 2 },
      changingTo: null,
      shards: [
        {
          shard: 0,
          state: "up",
          problem: null,
          epoch: 1,
          buckets: 512,
          ownership: { buckets: [{ from: 0, to: 512 }] },
        },
        {
          shard: 1,
          state: "up",
          problem: null,
          epoch: 1,
          buckets: 512,
          ownership: { buckets: [{ from: 512, to: 1_024 }] },
        },
      ],
    });
    const [first, second] = report.shards;
    expect(first.tables).toEqual([
      { table: "buyers", key: "buyer_id", rows: 10, bytes: expect.any(Number) },
      { table: "orders", key: "buyer_id", rows: 1_225, bytes: expect.any(Number) },
    ]);
    expect(second.rows).toBe(10 + 2_450);
    expect(first.load).toMatchObject({ commits: expect.any(Number), connections: expect.any(Number) });
    expect(report.skew.rows).toBeCloseTo(2_460 / ((1_235 + 2_460) / 2), 2);
    const [heaviest] = report.heavyKeys;
    expect(heaviest).toMatchObject({ table: "orders", shard: 1, key: expect.stringMatching(/^[0-9a-f-]{36}$/) });
    expect(heaviest.rows).toBeGreaterThan(1_900);
    expect(heaviest.share).toBeCloseTo(2_000 / 2_450, 1);
  });

  it("tells it to people", async () => {
    const { code, stdout } = await shards("--interval", "0", "--keys", "1", "--tables");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Placement by hash over 2 shards, epoch 1\n/);
    expect(stdout).toMatch(/\n1 +up +512 of 1,024 buckets +2,460 +[\d.]+ [KM]iB +- +- +- +- +-\n/);
    expect(stdout).toMatch(/\norders +buyer_id +1 +2,450 +/);
    expect(stdout).toMatch(/Largest shard to the mean \(1 is even\): rows 1\.33, size \d\.\d\d\n/);
    expect(stdout).toMatch(/\n[0-9a-f-]{36} +orders +1 +[\d,]+ +8\d\.\d %\n/);
    expect(stdout).not.toContain("\u001B");
  });

  it("finds heavy keys by a sample where nothing was analysed, and tables without a guard", async () => {
    const single = await openShop(1);
    const client = openPostgres({ name: "shard 0", address: { url: single[0] as string } });
    await client.query(undefined, "delete from pg_statistic", []);
    await client.close();
    const { stdout } = await rungs(["shards", "--json", "--interval", "0"], {
      environment: { DATABASE_URL: single[0] ?? "" },
    });
    const report = JSON.parse(stdout);
    expect(report.shards[0].tables.map(({ table }: { table: string }) => table)).toEqual(["buyers", "orders"]);
    expect(report.heavyKeys[0]).toMatchObject({ table: "orders", rows: expect.closeTo(1_000, -2) });
    expect(report.skew).toEqual({ rows: null, bytes: null, commits: null });
  });

  it("says which shards are in the wrong place or down, and goes on with the others", async () => {
    const twice = await rungs(["shards", "--json", "--interval", "0"], {
      environment: { DATABASE_URL: `${urls[0]},${urls[0]}&application_name=again` },
    });
    expect(JSON.parse(twice.stdout).shards[1]).toMatchObject({ state: "foreign", problem: "is shard 0", rows: 0 });
    await servers[1]?.stop();
    const { code, stdout } = await shards("--interval", "0", "--json");
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.shards.map(({ state }: { state: string }) => state)).toEqual(["up", "down"]);
    expect(report.shards[1].problem).toMatch(/did not answer/);
    expect((await shards("--interval", "0")).stdout).toMatch(/\nshard 1: shard 1 did not answer/);
  });

  it("says so when no app was started there, and when flags are wrong", async () => {
    const empty = await servers[0]?.createDatabase();
    const { code, stderr } = await rungs(["shards"], { environment: { DATABASE_URL: empty ?? "" } });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/No app of Rungs has been started on this database yet/);
    expect((await shards("--interval", "-1")).code).toBe(2);
  });
});
