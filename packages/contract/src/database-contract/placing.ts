/** Each row and each question goes to the shard of its key. */
import { sql } from "kysely";
import { shardOf } from "rungs/database";
import { expect, it } from "vitest";
import { addItem, type DatabaseHarness, itemsOf, ownerAt, owners } from "./harness.ts";

export function placingContract(contract: DatabaseHarness): void {
  it("puts each row on the shard that owns its key, and on no other", async () => {
    for (const owner of owners) await contract.add(owner, 1);
    for (const [index, shard] of contract.shards.entries()) {
      const { rows } = await sql<{ owner_id: string }>`select owner_id from items order by 1`.execute(shard.kysely);
      expect(rows.map((row) => row.owner_id)).toEqual(
        owners.filter((owner) => shardOf(contract.placement, owner) === index),
      );
    }
  });

  it("runs statements and ad-hoc queries alike, in and outside transactions", async () => {
    const [owner = ""] = owners;
    await contract.db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: "one" });
    await contract.db.for(owner).transaction(async (tx) => {
      await tx.run(addItem, { ownerId: owner, itemId: 2, label: "two" });
      expect(await tx.run(itemsOf, { ownerId: owner })).toHaveLength(2);
      expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toHaveLength(1);
    });
    expect(await contract.db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([
      { item_id: 1, label: "one" },
      { item_id: 2, label: "two" },
    ]);
    const row = await contract.db
      .for(owner)
      .selectFrom("items")
      .selectAll()
      .where("owner_id", "=", owner)
      .where("item_id", "=", 2)
      .executeTakeFirstOrThrow();
    expect(row).toEqual({ owner_id: owner, item_id: 2, label: "two", rank: null, at: new Date(0) });
  });

  it("asks each owning shard once for its own keys", async () => {
    for (const owner of owners) await contract.add(owner, 1);
    const asked: (readonly string[])[] = [];
    const rows = await contract.db.byKey([...owners, ...owners], async (shard, keys) => {
      asked.push(keys);
      return shard.selectFrom("items").select("owner_id").where("owner_id", "in", keys).execute();
    });
    expect(rows.map((row) => row.owner_id).sort()).toEqual(owners);
    expect(asked.length).toBeLessThanOrEqual(contract.shards.length);
    expect(asked.flat().sort()).toEqual(owners);
    expect(await contract.db.byKey([], async () => [1])).toEqual([]);
  });

  it("keeps home tables in one place", async () => {
    await contract.db.home
      .insertInto("names")
      .values({ name: "ann", owner_id: ownerAt(1) })
      .execute();
    const row = await contract.db.home.selectFrom("names").selectAll().where("name", "=", "ann").executeTakeFirst();
    expect(row).toEqual({ name: "ann", owner_id: ownerAt(1) });
  });
}
