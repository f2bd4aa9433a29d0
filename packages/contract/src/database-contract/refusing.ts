/** What is refused: foreign keys, queries without one, and SQL where a value belongs. */
import { type Database, type ShardConnection, shardedDatabase, tableRegistry } from "rungs/database";
import { expect, it } from "vitest";
import { addItem, type DatabaseHarness, itemsOf, newest, ownerAt, owners, type Tables } from "./harness.ts";

export function refusingContract(contract: DatabaseHarness): void {
  it("is not moved by SQL in keys and values", async () => {
    const [owner = ""] = owners;
    for (const words of [
      "'; drop table items; --",
      "\\'; drop table items; --",
      "$1",
      "' or ''='",
      '"',
      "%",
      "\u2028",
    ]) {
      await contract.db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: words });
      expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([{ item_id: 1, label: words }]);
      const found = contract.db.for(owner).selectFrom("items").select("label").where("owner_id", "=", owner);
      expect(await found.where("label", "=", words).execute()).toEqual([{ label: words }]);
      expect(await found.where("label", "=", `${words}x`).execute()).toEqual([]);
      // As a key it is text that is no UUID: the server says so, and runs nothing of it.
      await expect(contract.db.for(words).run(itemsOf, { ownerId: words })).rejects.toThrow(
        /invalid input syntax for type uuid/,
      );
      await expect(
        contract.db.byKey([words], (shard, [key = ""]) => shard.run(itemsOf, { ownerId: key })),
      ).rejects.toThrow(/invalid input syntax/);
      await contract.db.for(owner).deleteFrom("items").where("owner_id", "=", owner).execute();
    }
    await contract.db.home
      .insertInto("names")
      .values({ name: "x'); delete from names; --", owner_id: owner })
      .execute();
    expect(await contract.db.home.selectFrom("names").select("name").execute()).toEqual([
      { name: "x'); delete from names; --" },
    ]);
  });

  it("refuses a query for another key than the one asked for, though one shard would answer it", async () => {
    const [mine = "", other = ""] = owners;
    const mismatch = { name: "ConfigError", code: "SHARD_KEY_MISMATCH" };
    await expect(contract.db.for(mine).run(itemsOf, { ownerId: other })).rejects.toMatchObject(mismatch);
    await expect(
      contract.db.for(mine).selectFrom("items").selectAll().where("owner_id", "in", [mine, other]).execute(),
    ).rejects.toMatchObject(mismatch);
    const foreign = { owner_id: other, item_id: 1, label: "l", at: new Date(0) };
    await expect(contract.db.for(mine).insertInto("items").values(foreign).execute()).rejects.toMatchObject(mismatch);
    await expect(
      contract.db.for(mine).transaction((tx) => tx.run(addItem, { ownerId: other, itemId: 1, label: "l" })),
    ).rejects.toMatchObject(mismatch);
    expect(await contract.db.everywhere((shard) => shard.selectFrom("items").select("label").execute())).toEqual([]);
    expect(await contract.db.for(mine.toUpperCase()).run(itemsOf, { ownerId: mine })).toEqual([]);
  });

  it("judges no query in production, and each query elsewhere", async () => {
    const open = (guard?: boolean) =>
      shardedDatabase<Tables>({
        shards: contract.shards as [ShardConnection, ...ShardConnection[]],
        placement: contract.placement,
        tables: tableRegistry([{ name: "contract", tables: { items: { shardBy: "owner_id" } } }]),
        ...(guard === undefined ? {} : { guard }),
      });
    const ask = (database: Database<Tables>) =>
      database.for(ownerAt(1)).selectFrom("items").select("label").where("label", "=", "l").execute();
    const before = process.env["NODE_ENV"];
    try {
      process.env["NODE_ENV"] = "production";
      expect(await ask(open())).toEqual([]);
      process.env["NODE_ENV"] = "development";
      const guarded = open();
      for (let time = 0; time < 2; time++)
        await expect(ask(guarded)).rejects.toMatchObject({ code: "SHARD_KEY_MISSING" });
      for (let time = 0; time < 2; time++)
        await expect(guarded.for(ownerAt(1)).run(newest, { limit: 1, offset: 0 })).rejects.toMatchObject({
          code: "SHARD_KEY_MISSING",
        });
      expect(await ask(open(false))).toEqual([]);
    } finally {
      if (before === undefined) delete process.env["NODE_ENV"];
      else process.env["NODE_ENV"] = before;
    }
  });

  it("refuses what could not be sharded, with the way to write it", async () => {
    expect(() => contract.db.for(ownerAt(1)).selectFrom("items").selectAll().compile()).toThrow(
      /where\("items.owner_id", "=", id\)/,
    );
    await expect(contract.db.home.selectFrom("items").selectAll().execute()).rejects.toMatchObject({
      code: "SHARD_KEY_MISSING",
    });
    await expect(contract.db.for(ownerAt(1)).selectFrom("names").selectAll().execute()).rejects.toThrow(/use db\.home/);
  });
}
