/** What is asked of all shards is given as one table would give it, or the caller is told why not. */
import fc from "fast-check";
import { sql } from "kysely";
import type { ShardConnection } from "rungs/database";
import { expect, it } from "vitest";
import { type DatabaseHarness, newest, ownerAt, owners } from "./harness.ts";

export function mergingContract(contract: DatabaseHarness): void {
  it("merges ordered shards into what one shard would give, ties included, for every window", async () => {
    // Few times and ids, so that ties across shards are many; the owner decides between them.
    for (const [index, owner] of owners.entries()) await contract.add(owner, index % 5, new Date((index % 3) * 1_000));
    const merge = {
      orderBy: [
        ["at", "desc"],
        ["item_id", "desc"],
      ],
    } as const;
    const page = (limit: number, offset: number) =>
      contract.db.everywhere<{ item_id: number; at: Date }>((shard, window) => shard.run(newest, window), {
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
    console.info(`merge of ${contract.shards.length} shard(s): RUNGS_TEST_SEED=${seed}`);
    await fc.assert(
      fc.asyncProperty(example, async (each) => {
        for (const shard of contract.shards) await sql`truncate items`.execute(shard.kysely);
        const rows = each.rows.map(({ owner, label, rank, atMs }, index) => ({
          owner_id: ownerAt(owner),
          item_id: index,
          label,
          rank,
          at: new Date(atMs),
        }));
        for (const one of rows) await contract.db.for(one.owner_id).insertInto("items").values(one).execute();
        // The item's number decides between equals, so that the order is one and the same.
        const orderBy = [...each.orders, ["item_id", "asc"]] as (readonly ["label", "asc" | "desc"])[];
        const merged = await contract.db.everywhere<{ item_id: number; label: string }>(
          (shard, window) => {
            let query = shard.selectFrom("items").selectAll();
            for (const [column, direction] of orderBy) {
              query = query.orderBy(column === "label" ? sql`label collate "C"` : column, direction);
            }
            return query.limit(window.limit).offset(window.offset).execute();
          },
          { orderBy, offset: each.offset, ...(each.limit === undefined ? {} : { limit: each.limit }) },
        );
        const [first] = contract.shards as [ShardConnection];
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
    for (const [index, owner] of owners.entries()) await contract.add(owner, index, new Date(index % 3));
    const select = (shard: Parameters<Parameters<typeof contract.db.everywhere>[0]>[0]) =>
      shard.selectFrom("items").select(["item_id", "at"]);
    const orderBy = [["item_id", "asc"]] as const;
    type Row = { item_id: number; at: Date };
    const mistakes: Record<string, () => Promise<unknown>> = {
      "in another order": () =>
        contract.db.everywhere<Row>((shard) => select(shard).orderBy("item_id", "desc").execute(), { orderBy }),
      [`its window has ${contract.shards.length === 1 ? 1 : 3}`]: () =>
        contract.db.everywhere<Row>(
          (shard, { limit, offset }) =>
            select(shard)
              .orderBy("item_id")
              .limit(limit + offset + 9)
              .execute(),
          { orderBy, limit: 1, offset: 2 },
        ),
      "does not use its window": () =>
        contract.db.everywhere<Row>((shard) => select(shard).orderBy("item_id").limit(1).execute(), {
          orderBy,
          limit: 1,
        }),
      'no "label" that can be compared': () =>
        contract.db.everywhere<{ label: string }>(
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
      await expect(contract.db.everywhere(async () => [], window)).rejects.toThrow(RangeError);
    }
  });

  it("fails as a whole when one shard fails", async () => {
    let asked = 0;
    const failing = contract.db.everywhere((shard) => {
      if (asked++ === contract.shards.length - 1) throw new Error("this one fails");
      return shard.selectFrom("items").select("label").execute();
    });
    await expect(failing).rejects.toThrow("this one fails");
    expect(asked).toBe(contract.shards.length);
  });
}
