/** What a sharded database must do, over any servers. Run it for each driver and number of shards. */
import fc from "fast-check";
import { type Generated, sql } from "kysely";
import { systemClock } from "rungs";
import {
  type Database,
  initialPlacement,
  ownershipOf,
  PlacementLeases,
  PlacementWatch,
  type ShardConnection,
  shardedDatabase,
  shardOf,
  statements,
  tableRegistry,
} from "rungs/database";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";

interface Tables {
  items: { owner_id: string; item_id: number; label: string; rank: Generated<number | null>; at: Date };
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
  /** Find each key's shard by what the shards claim, as an app does; default by a placement that never changes. */
  readonly isRouted?: boolean;
  open(): Promise<ShardConnection[]>;
}): void {
  describe(`the database contract: ${options.name}, ${options.shards} shard(s)`, () => {
    const invalidated: string[][] = [];
    const unhandled: unknown[] = [];
    const note = (reason: unknown) => void unhandled.push(reason);
    let whenInvalidating: () => Promise<void>;
    const placement = initialPlacement({ strategy: "hash", shards: options.shards });
    let shards: ShardConnection[];
    let db: Database<Tables>;

    beforeAll(async () => {
      process.on("unhandledRejection", note);
      shards = await options.open();
      for (const shard of shards) {
        await sql`create table items (owner_id uuid, item_id int, label text not null, rank int, at timestamptz not null, primary key (owner_id, item_id))`.execute(
          shard.kysely,
        );
      }
      await sql`create table names (name text primary key, owner_id uuid not null)`.execute(
        (shards[0] as ShardConnection).kysely,
      );
      const source = new PlacementWatch({
        leases: new PlacementLeases({ placement, clock: systemClock }),
        ...{ clock: systemClock, log: { debug() {}, info() {}, warn() {}, error() {} } },
        read: async (shard) => ({ epoch: 1, ownership: ownershipOf(placement, shard) }),
      });
      await source.refresh();
      db = shardedDatabase<Tables>({
        shards: shards as [ShardConnection, ...ShardConnection[]],
        placement,
        ...(options.isRouted === true ? { source } : {}),
        tables: tableRegistry([
          { name: "contract", tables: { items: { shardBy: "owner_id" }, names: { home: true } } },
        ]),
        checkKeys: true,
        onInvalidate: async (tags) => {
          await whenInvalidating();
          invalidated.push([...tags]);
        },
      });
    });
    afterAll(async () => {
      const busy = db.poolStats().filter(({ total, idle, waiting }) => total !== idle || waiting !== 0);
      await db.close();
      process.off("unhandledRejection", note);
      expect({ busy, unhandled }).toEqual({ busy: [], unhandled: [] });
    });
    beforeEach(async () => {
      invalidated.length = 0;
      whenInvalidating = async () => {};
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
      expect(row).toEqual({ owner_id: owner, item_id: 2, label: "two", rank: null, at: new Date(0) });
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

    it("merges random rows exactly as one table orders them, for every window (property)", {
      timeout: 60_000,
    }, async () => {
      const row = fc.record({
        owner: fc.integer({ min: 0, max: owners.length - 1 }),
        label: fc.constantFrom("", "a", "B", "b", "ä", "z", "\uffee", "😀", "漢"),
        rank: fc.option(fc.integer({ min: -2, max: 2 })),
        atMs: fc.integer({ min: 0, max: 3 }),
      });
      const orders = fc.uniqueArray(fc.tuple(fc.constantFrom("label", "rank", "at"), fc.constantFrom("asc", "desc")), {
        selector: ([column]) => column,
        maxLength: 3,
      });
      const example = fc.record({
        rows: fc.array(row, { maxLength: 40 }),
        orders,
        limit: fc.option(fc.integer({ min: 0, max: 50 }), { nil: undefined }),
        offset: fc.integer({ min: 0, max: 50 }),
      });
      const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
      console.info(`merge of ${options.shards} shard(s): RUNGS_TEST_SEED=${seed}`);
      await fc.assert(
        fc.asyncProperty(example, async (each) => {
          for (const shard of shards) await sql`truncate items`.execute(shard.kysely);
          const rows = each.rows.map(({ owner, label, rank, atMs }, index) => ({
            owner_id: ownerAt(owner),
            item_id: index,
            label,
            rank,
            at: new Date(atMs),
          }));
          for (const one of rows) await db.for(one.owner_id).insertInto("items").values(one).execute();
          // The item's number decides between equals, so that the order is one and the same.
          const orderBy = [...each.orders, ["item_id", "asc"]] as (readonly ["label", "asc" | "desc"])[];
          const merged = await db.everywhere<{ item_id: number; label: string }>(
            (shard, window) => {
              let query = shard.selectFrom("items").selectAll();
              for (const [column, direction] of orderBy) {
                query = query.orderBy(column === "label" ? sql`label collate "C"` : column, direction);
              }
              return query.limit(window.limit).offset(window.offset).execute();
            },
            { orderBy, offset: each.offset, ...(each.limit === undefined ? {} : { limit: each.limit }) },
          );
          const [first] = shards as [ShardConnection];
          const { rows: expected } = await sql<{ item_id: number }>`
            select item_id from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
              as r (owner_id uuid, item_id int, label text, rank int, at timestamptz)
            order by ${sql.join(orderBy.map(([column, direction]) => sql`${sql.ref(column)} ${column === "label" ? sql`collate "C"` : sql``} ${sql.raw(direction)}`))}
            limit ${each.limit ?? null} offset ${each.offset}`.execute(first.kysely);
          expect(merged.map((item) => item.item_id)).toEqual(expected.map((item) => item.item_id));
        }),
        { numRuns: 40, seed },
      );
    });

    it("says when what the shards give cannot be merged, also while there is one", async () => {
      for (const [index, owner] of owners.entries()) await add(owner, index, new Date(index % 3));
      const select = (shard: Parameters<Parameters<typeof db.everywhere>[0]>[0]) =>
        shard.selectFrom("items").select(["item_id", "at"]);
      const orderBy = [["item_id", "asc"]] as const;
      type Row = { item_id: number; at: Date };
      const mistakes: Record<string, () => Promise<unknown>> = {
        "in another order": () =>
          db.everywhere<Row>((shard) => select(shard).orderBy("item_id", "desc").execute(), { orderBy }),
        [`its window has ${options.shards === 1 ? 1 : 3}`]: () =>
          db.everywhere<Row>(
            (shard, { limit, offset }) =>
              select(shard)
                .orderBy("item_id")
                .limit(limit + offset + 9)
                .execute(),
            { orderBy, limit: 1, offset: 2 },
          ),
        "does not use its window": () =>
          db.everywhere<Row>((shard) => select(shard).orderBy("item_id").limit(1).execute(), { orderBy, limit: 1 }),
        'no "label" that can be compared': () =>
          db.everywhere<{ label: string }>(
            async (shard) => (await select(shard).execute()) as unknown as { label: string }[],
            { orderBy: [["label", "asc"]] },
          ),
      };
      for (const [message, mistake] of Object.entries(mistakes)) {
        await expect(mistake(), message).rejects.toMatchObject({
          code: "MERGE_INVALID",
          message: expect.stringContaining(message),
        });
      }
      for (const window of [{ limit: -1 }, { offset: 0.5 }, { limit: Number.NaN }]) {
        await expect(db.everywhere(async () => [], window)).rejects.toThrow(RangeError);
      }
    });

    it("fails as a whole when one shard fails", async () => {
      let asked = 0;
      const failing = db.everywhere((shard) => {
        if (asked++ === options.shards - 1) throw new Error("this one fails");
        return shard.selectFrom("items").select("label").execute();
      });
      await expect(failing).rejects.toThrow("this one fails");
      expect(asked).toBe(options.shards);
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

    it("shows others the write before it invalidates, and makes the caller wait for that", async () => {
      const [owner = ""] = owners;
      const steps: string[] = [];
      whenInvalidating = async () => {
        steps.push(`invalidating, others see ${(await db.for(owner).run(itemsOf, { ownerId: owner })).length}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
        steps.push("invalidated");
      };
      await db.for(owner).transaction(async (tx) => {
        tx.invalidate("t");
        await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
        steps.push(`writing, others see ${(await db.for(owner).run(itemsOf, { ownerId: owner })).length}`);
      });
      steps.push("caller goes on");
      expect(steps).toEqual(["writing, others see 0", "invalidating, others see 1", "invalidated", "caller goes on"]);
    });

    it("does not invalidate when the COMMIT itself fails", async () => {
      const [owner = ""] = owners;
      const at = shards[shardOf(placement, owner)] as ShardConnection;
      await sql`create table late (n int, constraint late_once unique (n) deferrable initially deferred)`.execute(
        at.kysely,
      );
      const failing = db.for(owner).transaction(async (tx) => {
        tx.invalidate("never");
        await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
        await sql`insert into late values (1), (1)`.execute(tx);
      });
      await expect(failing).rejects.toThrow(/late_once/);
      await sql`drop table late`.execute(at.kysely);
      expect(invalidated).toEqual([]);
      expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
    });

    it("invalidates when nobody knows whether the COMMIT happened, and says so", async () => {
      const [owner = ""] = owners;
      const at = shards[shardOf(placement, owner)] as ShardConnection;
      const lost = db.for(owner).transaction(async (tx) => {
        tx.invalidate("perhaps");
        await tx.run(addItem, { ownerId: owner, itemId: 1, label: "l" });
        const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
        await at.query(undefined, "select pg_terminate_backend($1)", [rows[0]?.pid]);
      });
      await expect(lost).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: false });
      expect(invalidated).toEqual([["perhaps"]]);
      expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([]);
    });

    it("refuses a transaction in a transaction, and one that is over", async () => {
      const [owner = ""] = owners;
      const leaked = await db.for(owner).transaction(async (tx) => {
        expect(() => tx.kysely.transaction()).toThrow(/not supported/);
        return tx;
      });
      await expect(leaked.run(itemsOf, { ownerId: owner })).rejects.toThrow(/already committed/i);
      await expect(leaked.selectFrom("items").select("label").where("owner_id", "=", owner).execute()).rejects.toThrow(
        /already committed/i,
      );
    });

    it("isolates a transaction as asked, and refuses two that cannot both be", async () => {
      const [owner = ""] = owners;
      await db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: "l" });
      const readThenWrite = (itemId: number, both: () => Promise<void>) =>
        db.for(owner).transaction(
          async (tx) => {
            const rows = await tx.run(itemsOf, { ownerId: owner });
            await both();
            await tx.run(addItem, { ownerId: owner, itemId, label: `after ${rows.length}` });
          },
          { isolation: "serializable" },
        );
      let arrived = 0;
      let open = () => {};
      const opened = new Promise<void>((resolve) => {
        open = resolve;
      });
      const both = () => {
        if (++arrived === 2) open();
        return opened;
      };
      const outcomes = await Promise.allSettled([readThenWrite(2, both), readThenWrite(3, both)]);
      expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(1);
      expect(outcomes.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "40001" } });
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
        await db.for(owner).run(addItem, { ownerId: owner, itemId: 1, label: words });
        expect(await db.for(owner).run(itemsOf, { ownerId: owner })).toEqual([{ item_id: 1, label: words }]);
        const found = db.for(owner).selectFrom("items").select("label").where("owner_id", "=", owner);
        expect(await found.where("label", "=", words).execute()).toEqual([{ label: words }]);
        expect(await found.where("label", "=", `${words}x`).execute()).toEqual([]);
        // As a key it is text that is no UUID: the server says so, and runs nothing of it.
        await expect(db.for(words).run(itemsOf, { ownerId: words })).rejects.toThrow(
          /invalid input syntax for type uuid/,
        );
        await expect(db.byKey([words], (shard, [key = ""]) => shard.run(itemsOf, { ownerId: key }))).rejects.toThrow(
          /invalid input syntax/,
        );
        await db.for(owner).deleteFrom("items").where("owner_id", "=", owner).execute();
      }
      await db.home.insertInto("names").values({ name: "x'); delete from names; --", owner_id: owner }).execute();
      expect(await db.home.selectFrom("names").select("name").execute()).toEqual([
        { name: "x'); delete from names; --" },
      ]);
    });

    it("refuses a query for another key than the one asked for, though one shard would answer it", async () => {
      const [mine = "", other = ""] = owners;
      const mismatch = { name: "ConfigError", code: "SHARD_KEY_MISMATCH" };
      await expect(db.for(mine).run(itemsOf, { ownerId: other })).rejects.toMatchObject(mismatch);
      await expect(
        db.for(mine).selectFrom("items").selectAll().where("owner_id", "in", [mine, other]).execute(),
      ).rejects.toMatchObject(mismatch);
      const foreign = { owner_id: other, item_id: 1, label: "l", at: new Date(0) };
      await expect(db.for(mine).insertInto("items").values(foreign).execute()).rejects.toMatchObject(mismatch);
      await expect(
        db.for(mine).transaction((tx) => tx.run(addItem, { ownerId: other, itemId: 1, label: "l" })),
      ).rejects.toMatchObject(mismatch);
      expect(await db.everywhere((shard) => shard.selectFrom("items").select("label").execute())).toEqual([]);
      expect(await db.for(mine.toUpperCase()).run(itemsOf, { ownerId: mine })).toEqual([]);
    });

    it("judges no query in production, and each query elsewhere", async () => {
      const open = (guard?: boolean) =>
        shardedDatabase<Tables>({
          shards: shards as [ShardConnection, ...ShardConnection[]],
          placement,
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
