/** What a sharded database must do, over any servers. Run it for each driver and number of shards. */
import { sql } from "kysely";
import {
  type Database,
  initialPlacement,
  type ShardConnection,
  shardedDatabase,
  shardOf,
  statements,
  tableRegistry,
} from "rungs/database";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";

interface Tables {
  items: { owner_id: string; item_id: number; label: string; at: Date };
  names: { name: string; owner_id: string };
}

const define = statements<Tables>();
const itemsOf = define<{ ownerId: string }>()("contract_items_of", (q, p) =>
  q.selectFrom("items").select(["item_id", "label"]).where("owner_id", "=", p.ownerId).orderBy("item_id"),
);
const addItem = define<{ ownerId: string; itemId: number; label: string }>()("contract_add_item", (q, p) =>
  q
    .insertInto("items")
    .values({ owner_id: p.ownerId, item_id: p.itemId, label: p.label, at: new Date(0) })
    .returning("item_id"),
);
const newest = define<{ limit: number; offset: number }>()("contract_newest", (q, p) =>
  q
    .selectFrom("items")
    .select(["owner_id", "item_id", "at"])
    .orderBy("at", "desc")
    .orderBy("item_id", "desc")
    .limit(p.limit)
    .offset(p.offset),
);

const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
const owners = Array.from({ length: 24 }, (_, index) => ownerAt(index));

/** `open` gives connections to empty databases, one a shard; they are closed by the suite. */
export function databaseContract(options: {
  readonly name: string;
  readonly shards: number;
  open(): Promise<ShardConnection[]>;
}): void {
  describe(`the database contract: ${options.name}, ${options.shards} shard(s)`, () => {
    const invalidated: string[][] = [];
    const placement = initialPlacement({ strategy: "hash", shards: options.shards });
    let shards: ShardConnection[];
    let db: Database<Tables>;

    beforeAll(async () => {
      shards = await options.open();
      for (const shard of shards) {
        await sql`create table items (owner_id uuid, item_id int, label text not null, at timestamptz not null, primary key (owner_id, item_id))`.execute(
          shard.kysely,
        );
      }
      await sql`create table names (name text primary key, owner_id uuid not null)`.execute(
        (shards[0] as ShardConnection).kysely,
      );
      db = shardedDatabase<Tables>({
        shards: shards as [ShardConnection, ...ShardConnection[]],
        placement,
        tables: tableRegistry([
          { name: "contract", tables: { items: { shardBy: "owner_id" }, names: { home: true } } },
        ]),
        onInvalidate: (tags) => void invalidated.push([...tags]),
      });
    });
    afterAll(() => db.close());
    beforeEach(async () => {
      invalidated.length = 0;
      for (const shard of shards) await sql`truncate items`.execute(shard.kysely);
      await db.home.deleteFrom("names").execute();
    });

    const add = (ownerId: string, itemId: number, at = new Date(0)) =>
      db.for(ownerId).insertInto("items").values({ owner_id: ownerId, item_id: itemId, label: "l", at }).execute();

    it("puts each row on the shard that owns its key, and on no other", async () => {
      for (const owner of owners) await add(owner, 1);
      for (const [index, shard] of shards.entries()) {
        const { rows } = await sql<{ owner_id: string }>`select owner_id from items order by 1`.execute(shard.kysely);
        expect(rows.map((row) => row.owner_id)).toEqual(owners.filter((owner) => shardOf(placement, owner) === index));
      }
    });

    it("runs statements and ad-hoc queries alike, in and outside transactions", async () => {
      const [owner = ""] = owners;
      await db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: "one" });
      await db.for(owner).transaction(async (tx) => {
        await tx.run(addItem, { ownerId: owner, itemId: 2, label: "two" });
        expect(await tx.run(itemsOf, { ownerId: owner })).toHaveLength(2);
        expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toHaveLength(1);
      });
      expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([
        { item_id: 1, label: "one" },
        { item_id: 2, label: "two" },
      ]);
      const row = await db
        .for(owner)
        .selectFrom("items")
        .selectAll()
        .where("owner_id", "=", owner)
        .where("item_id", "=", 2)
        .executeTakeFirstOrThrow();
      expect(row).toEqual({ owner_id: owner, item_id: 2, label: "two", at: new Date(0) });
    });

    it("merges ordered shards into what one shard would give, ties included, for every window", async () => {
      // Few times and ids, so that ties across shards are many; the owner decides between them.
      for (const [index, owner] of owners.entries()) await add(owner, index % 5, new Date((index % 3) * 1_000));
      const merge = {
        orderBy: [
          ["at", "desc"],
          ["item_id", "desc"],
        ],
      } as const;
      const page = (limit: number, offset: number) =>
        db.everywhere<{ item_id: number; at: Date }>((shard, window) => shard.run(newest, window), {
          ...merge,
          limit,
          offset,
        });
      const all = await page(100, 0);
      expect(all).toHaveLength(owners.length);
      const keys = all.map((row) => row.at.getTime() * 10 + row.item_id);
      expect(keys).toEqual([...keys].sort((a, b) => b - a));
      for (const [limit, offset] of [
        [5, 0],
        [5, 5],
        [7, 20],
        [3, 23],
        [10, 24],
      ] as const) {
        expect((await page(limit, offset)).map((row) => row.at.getTime() * 10 + row.item_id)).toEqual(
          keys.slice(offset, offset + limit),
        );
      }
    });

    it("asks each owning shard once for its own keys", async () => {
      for (const owner of owners) await add(owner, 1);
      const asked: (readonly string[])[] = [];
      const rows = await db.byKey([...owners, ...owners], async (shard, keys) => {
        asked.push(keys);
        return shard.selectFrom("items").select("owner_id").where("owner_id", "in", keys).execute();
      });
      expect(rows.map((row) => row.owner_id).sort()).toEqual(owners);
      expect(asked.length).toBeLessThanOrEqual(options.shards);
      expect(asked.flat().sort()).toEqual(owners);
      expect(await db.byKey([], async () => [1])).toEqual([]);
    });

    it("keeps home tables in one place", async () => {
      await db.home
        .insertInto("names")
        .values({ name: "ann", owner_id: ownerAt(1) })
        .execute();
      const row = await db.home.selectFrom("names").selectAll().where("name", "=", "ann").executeTakeFirst();
      expect(row).toEqual({ name: "ann", owner_id: ownerAt(1) });
    });

    it("commits all or nothing, and invalidates after the commit and before its caller goes on, or not at all", async () => {
      const [owner = ""] = owners;
      await db.for(owner).transaction(async (tx) => {
        tx.invalidate("a", "b");
        await tx.run(addItem, { ownerId: owner, itemId: 1, label: "kept" });
        expect(invalidated).toEqual([]);
      });
      expect(invalidated).toEqual([["a", "b"]]);
      const failing = db.for(owner).transaction(async (tx) => {
        tx.invalidate("c");
        await tx.run(addItem, { ownerId: owner, itemId: 2, label: "lost" });
        throw new Error("changed my mind");
      });
      await expect(failing).rejects.toThrow("changed my mind");
      expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toHaveLength(1);
      expect(invalidated).toHaveLength(1);
      await db.for(owner).run(addItem, { ownerId: owner, itemId: 3, label: "single" }, { invalidate: ["d"] });
      expect(invalidated).toEqual([["a", "b"], ["d"]]);
      await expect(
        db.for(owner).run(addItem, { ownerId: owner, itemId: 3, label: "twice" }, { invalidate: ["e"] }),
      ).rejects.toThrow(/duplicate key/);
      expect(invalidated).toHaveLength(2);
    });

    it("does not take a COMMIT that rolled back for a success", async () => {
      const [owner = ""] = owners;
      const swallowed = db.for(owner).transaction(async (tx) => {
        await tx.run(addItem, { ownerId: owner, itemId: 1, label: "lost" });
        await sql`select 1 / 0 as x`.execute(tx).catch(() => {});
      });
      await expect(swallowed).rejects.toThrow(/rolled back at COMMIT/);
      expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
    });

    it("is not moved by SQL in keys and values", async () => {
      for (const words of ["'; drop table items; --", "\\", "$1", "' or ''='"]) {
        const rows = await db
          .for(words)
          .selectFrom("items")
          .select("label")
          .where("owner_id", "=", ownerAt(1))
          .where("label", "=", words)
          .execute();
        expect(rows).toEqual([]);
      }
      expect(await db.everywhere((shard) => shard.selectFrom("items").select("label").execute())).toEqual([]);
    });

    it("refuses what could not be sharded, with the way to write it", async () => {
      expect(() => db.for(ownerAt(1)).selectFrom("items").selectAll().compile()).toThrow(
        /where\("items.owner_id", "=", id\)/,
      );
      await expect(db.home.selectFrom("items").selectAll().execute()).rejects.toMatchObject({
        code: "SHARD_KEY_MISSING",
      });
      await expect(db.for(ownerAt(1)).selectFrom("names").selectAll().execute()).rejects.toThrow(/use db\.home/);
    });
  });
}
