/** Reference tables: written at home, the same on every shard a moment later, and nowhere else written. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ReferenceCopier, type ShardConnection, shardedDatabase } from "../../../src/database/index.ts";
import { silentLogger } from "../../../src/kernel/log.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres } from "../support.ts";
import { openGuarded, type Tables, tables, uuidFrom } from "./support.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

describe("reference tables", () => {
  let opened: Awaited<ReturnType<typeof openGuarded>>;
  let copier: ReferenceCopier;
  const open = () =>
    new ReferenceCopier({ home: opened.shards[0], shards: opened.shards, tables, log: silentLogger, everyMs: 50 });
  const home = (text: string) => opened.shards[0].query(undefined, text, []);
  const tagsOn = (shard: number) =>
    (opened.shards[shard] as ShardConnection).query(undefined, "select tag, title from tags order by tag", []);
  const versionOn = async (shard: number) => {
    const [row] = await (opened.shards[shard] as ShardConnection).query<{ version: number }>(
      undefined,
      "select version::float8 as version from rungs_reference_copies where table_name = 'tags'",
      [],
    );
    return row?.version;
  };

  beforeEach(async () => {
    opened = await openGuarded(server, 3);
    copier = open();
    return async () => {
      await copier.stop();
      await Promise.all(opened.shards.map((shard) => shard.close()));
    };
  });

  it("are copied to every shard: what was there, what is added, changed, exchanged and deleted", async () => {
    await home("insert into tags values ('a', 'first'), ('b', 'second'), ('c', 'it''s \"quoted\", (here) \\ é')");
    await copier.start();
    for (const change of [
      "select 1",
      "insert into tags values ('d', 'fourth')",
      "update tags set title = 'changed' where tag = 'a'",
      "begin; delete from tags where tag in ('b', 'd'); insert into tags values ('b', 'fourth'), ('d', 'second'); commit",
      "delete from tags where tag = 'c'",
      "truncate tags",
    ]) {
      await home(change);
      const wanted = await tagsOn(0);
      await expect.poll(() => tagsOn(1)).toEqual(wanted);
      await expect.poll(() => tagsOn(2)).toEqual(wanted);
    }
  });

  it("keep everything of every type", async () => {
    const columns =
      "id int primary key, n numeric, f float8, at timestamptz, d date, b bytea, a text[], j jsonb, u uuid, i interval, doubled int generated always as (id * 2) stored";
    for (const shard of opened.shards)
      await shard.query(undefined, `drop table tags; create table tags (${columns})`, []);
    const { guardAll } = await import("./support.ts");
    await guardAll(opened.shards);
    await home(`insert into tags values (1, 1.2300, 'NaN', '2026-11-28 06:00:00.123456+02', 'infinity', '\\x00ff', '{a,"b c",null}',
      'null', '0190c7a0-0000-7000-8000-000000000001', '1 mon -2 days 03:04:05.6'), (2, null, 0.1, null, null, null, null, null, null, null)`);
    await copier.start();
    const rows = "select t::text as row from tags t order by id";
    const wanted = await opened.shards[0].query(undefined, rows, []);
    expect(wanted).toHaveLength(2);
    for (const shard of opened.shards) expect(await shard.query(undefined, rows, [])).toEqual(wanted);
  });

  it("can be joined in queries for a key and everywhere, and are written through db.home only", async () => {
    await home("insert into tags values ('a', 'first')");
    await copier.start();
    const db = shardedDatabase<Tables>({ ...opened, tables });
    const random = seededRandom(2);
    for (let index = 0; index < 10; index++) {
      const key = uuidFrom(random);
      await db.for(key).insertInto("items").values({ owner_id: key, item_id: 1, label: "a" }).execute();
      const [row] = await db
        .for(key)
        .selectFrom("items")
        .innerJoin("tags", "tags.tag", "items.label")
        .select("tags.title")
        .where("items.owner_id", "=", key)
        .execute();
      expect(row).toEqual({ title: "first" });
      await expect(db.for(key).insertInto("tags").values({ tag: "x", title: "x" }).execute()).rejects.toThrow(
        /reference table.*db\.home/,
      );
      await expect(db.for(key).updateTable("tags").set({ title: "x" }).execute()).rejects.toThrow(/reference table/);
      await expect(db.for(key).deleteFrom("tags").execute()).rejects.toThrow(/reference table/);
    }
    const joined = await db.everywhere((shard) =>
      shard.selectFrom("items").innerJoin("tags", "tags.tag", "items.label").select("tags.title").execute(),
    );
    expect(joined).toHaveLength(10);
    await db.home.insertInto("tags").values({ tag: "b", title: "second" }).execute();
    await expect.poll(() => tagsOn(2)).toHaveLength(2);
  });

  it("are written by nobody else on a shard", async () => {
    await home("insert into tags values ('a', 'first')");
    await copier.start();
    const shard = opened.shards[1] as ShardConnection;
    for (const text of [
      "insert into tags values ('x', 'x')",
      "update tags set title = 'x'",
      "delete from tags",
      "truncate tags",
    ]) {
      await expect(shard.query(undefined, text, []), text).rejects.toMatchObject({ code: "RG002" });
    }
    expect(await tagsOn(1)).toEqual([{ tag: "a", title: "first" }]);
  });

  it("catch up after the copier was away, go forward only, and are copied once by many processes", async () => {
    await home("insert into tags values ('a', 'first')");
    await copier.start();
    await copier.stop();
    for (let index = 0; index < 5; index++) await home(`update tags set title = 'title ${index}'`);
    const others = Array.from({ length: 4 }, open);
    await Promise.all(others.map((other) => other.copyAll()));
    await others[0]?.copyAll();
    expect(await tagsOn(1)).toEqual([{ tag: "a", title: "title 4" }]);
    expect(await versionOn(1)).toBe(6);
    await Promise.all(others.map((other) => other.stop()));
  });
});
