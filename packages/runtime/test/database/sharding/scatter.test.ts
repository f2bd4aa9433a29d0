/** Questions to all shards while one is frozen or dead, and pages that stay stable. */
import { freeze } from "@rungs/contract/frozen-postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  afterCursor,
  nextPageCursor,
  type PageOrder,
  pageCursor,
  readPageCursor,
  type ShardConnection,
  shardOf,
} from "../../../src/database/index.ts";
import { type Random, seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres, testSeed } from "../support.ts";
import { guardAll, placeShards, routedDatabase, uuidFrom } from "./support.ts";

type Opened = Awaited<ReturnType<typeof open>>;

/** Two shards on a server each, with a row of each of 20 keys. */
async function open(options: { readonly leaseMs?: number } = {}) {
  const servers = [await startTestPostgres(), await startTestPostgres()] as const;
  const urls = servers.map((server) => server.connectionString);
  const { shards, placement } = await placeShards(urls, { strategy: "hash" }, { pool: { acquireTimeoutMs: 1_000 } });
  await guardAll(shards);
  const { db, watch } = routedDatabase(shards, placement, { ...options, everyMs: 100 });
  await watch.start();
  const random = seededRandom(3);
  const keys = Array.from({ length: 20 }, () => uuidFrom(random));
  for (const key of keys)
    await db.for(key).insertInto("items").values({ owner_id: key, item_id: 1, label: "" }).execute();
  return {
    ...{ servers, shards, placement, db, watch, keys },
    on: (shard: number) => keys.filter((key) => shardOf(placement, key) === shard),
    async close() {
      await watch.stop();
      for (const server of servers) await server.stop();
      await Promise.all(shards.map((shard) => shard.close()));
    },
  };
}

const all = (opened: Opened, options: { deadlineMs?: number } = {}) =>
  opened.db.everywhere((shard) => shard.selectFrom("items").select("owner_id").execute(), options);
const some = (opened: Opened, deadlineMs = 300) =>
  opened.db.everywhere((shard) => shard.selectFrom("items").select("owner_id").execute(), {
    onFailure: "partial",
    deadlineMs,
  });
const took = async (work: Promise<unknown>) => {
  const since = performance.now();
  await work.catch(() => {});
  return performance.now() - since;
};

describe("with one of two shards frozen", () => {
  let opened: Opened;
  let thaw: () => void;
  beforeAll(async () => {
    opened = await open();
    thaw = await freeze(opened.servers[1]);
  });
  afterAll(async () => {
    thaw();
    await opened.close();
  });

  it("a question to all fails at its deadline, and says which shard was late", async () => {
    const failing = all(opened, { deadlineMs: 300 });
    expect(await took(failing)).toBeLessThan(1_500);
    await expect(failing).rejects.toMatchObject({
      ...{ code: "SHARD_TIMEOUT", canRetry: true },
      message: "shard 1 did not answer within 300 ms, the deadline of the question.",
    });
  });

  it("one that asks for what there is gets it, and the names of what is missing", async () => {
    const { rows, missing } = await some(opened);
    expect(new Set(rows.map((row) => row.owner_id))).toEqual(new Set(opened.on(0)));
    expect(missing).toEqual([{ shard: "shard 1", error: expect.objectContaining({ code: "SHARD_TIMEOUT" }) }]);
    const byKey = await opened.db.byKey(
      opened.keys,
      (shard, keys) => shard.selectFrom("items").select("owner_id").where("owner_id", "in", keys).execute(),
      { onFailure: "partial", deadlineMs: 300 },
    );
    expect(byKey.rows).toHaveLength(opened.on(0).length);
    expect(byKey.missing).toHaveLength(1);
  });

  it("users of the other shard read and write as ever", async () => {
    const [key = ""] = opened.on(0);
    const write = opened.db.for(key).updateTable("items").set({ label: "x" }).where("owner_id", "=", key).execute();
    expect(await took(write)).toBeLessThan(500);
    await write;
  });

  it("it is all there again when the shard goes on", { timeout: 20_000 }, async () => {
    thaw();
    await expect.poll(async () => (await some(opened, 2_000)).missing.length, { timeout: 15_000 }).toBe(0);
    expect(await all(opened)).toHaveLength(20);
  });
});

describe("with one of two shards dead", () => {
  let opened: Opened;
  beforeAll(async () => {
    opened = await open({ leaseMs: 1_000 });
    await opened.servers[1].stop();
  });
  afterAll(() => opened.close());

  it("only its own users and complete questions fail, at once, before and after its lease has ended", async () => {
    const { db } = opened;
    const [mine = "", theirs = ""] = [0, 1].map((shard) => opened.on(shard)[0]);
    const read = (key: string) =>
      db.for(key).selectFrom("items").select("item_id").where("owner_id", "=", key).execute();
    const codes = new Set<string>();
    const until = performance.now() + 1_500;
    do {
      expect(await read(mine)).toHaveLength(1);
      const failing = read(theirs);
      expect(await took(failing)).toBeLessThan(900);
      codes.add(
        await failing.then(
          () => "",
          (error: { code: string }) => error.code,
        ),
      );
      await expect(all(opened)).rejects.toMatchObject({ name: "UnavailableError" });
      const { rows, missing } = await some(opened);
      expect({ rows: rows.length, missing: missing.length }).toEqual({ rows: opened.on(0).length, missing: 1 });
    } while (performance.now() < until);
    expect(codes).toContain("SHARD_LEASE_EXPIRED");
  });

  it("a mistake in the query is no missing shard", async () => {
    const wrong = opened.db.everywhere(
      (shard) =>
        shard
          .selectFrom("items")
          .select("nope" as "label")
          .execute(),
      {
        onFailure: "partial",
      },
    );
    await expect(wrong).rejects.toMatchObject({ code: "42703" });
  });

  it("keys of which none can be had give no rows, and say why", async () => {
    const { rows, missing } = await opened.db.byKey(
      opened.on(1),
      (shard, keys) => shard.selectFrom("items").select("owner_id").where("owner_id", "in", keys).execute(),
      { onFailure: "partial" },
    );
    expect(rows).toEqual([]);
    expect(missing).toEqual([{ shard: "shard 1", error: expect.objectContaining({ name: "UnavailableError" }) }]);
  });

  it("raises when no shard answers a question to all, instead of giving an empty list", async () => {
    await opened.servers[0].stop();
    await expect(some(opened)).rejects.toMatchObject({ name: "UnavailableError" });
  });
});

describe("pages", () => {
  let server: TestPostgres;
  let opened: { shards: [ShardConnection, ...ShardConnection[]]; db: ReturnType<typeof routedDatabase>["db"] };
  beforeAll(async () => {
    server = await startTestPostgres();
    const urls = [await server.createDatabase(), await server.createDatabase(), await server.createDatabase()];
    const { shards, placement } = await placeShards(urls, { strategy: "hash" });
    await guardAll(shards);
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    opened = { shards, db };
  });
  afterAll(async () => {
    await opened.db.close();
    await server.stop();
  });
  beforeEach(async () => {
    for (const shard of opened.shards) await shard.query(undefined, "delete from items", []);
  });

  const add = (random: Random, label: string) => {
    const key = uuidFrom(random);
    return opened.db
      .for(key)
      .insertInto("items")
      .values({ owner_id: key, item_id: Math.floor(random.next() * 5), label })
      .execute();
  };
  type Row = { item_id: number; owner_id: string; label: string };
  const orders: PageOrder<"item_id" | "owner_id">[] = [
    [
      ["item_id", "desc"],
      ["owner_id", "desc"],
    ],
    [
      ["item_id", "asc"],
      ["owner_id", "desc"],
    ],
    [["owner_id", "asc"]],
  ];

  it.each(orders)(
    "by cursor show every row once that is there all the time, while others come and go (%j)",
    async (...order) => {
      const { db } = opened;
      const random = seededRandom(testSeed("pages"));
      for (let index = 0; index < 60; index++) await add(random, "stays");
      for (let index = 0; index < 20; index++) await add(random, "goes");
      const seen: Row[] = [];
      let cursor: string | undefined;
      let pages = 0;
      do {
        const after = cursor === undefined ? undefined : readPageCursor(cursor, order);
        const rows: Row[] = await db.everywhere<Row>(
          (shard, window) => {
            let query = shard.selectFrom("items").select(["item_id", "owner_id", "label"]);
            if (after !== undefined) query = query.where(afterCursor(order, after));
            for (const [column, direction] of order) query = query.orderBy(column, direction);
            return query.limit(window.limit).offset(window.offset).execute();
          },
          { orderBy: order, limit: 7 },
        );
        seen.push(...rows);
        cursor = nextPageCursor(rows, 7, order);
        for (let index = 0; index < 3; index++) await add(random, "comes");
        await db.everywhere((shard) =>
          shard
            .deleteFrom("items")
            .where("label", "=", "goes")
            .where("item_id", "=", pages % 5)
            .execute(),
        );
      } while (cursor !== undefined && ++pages < 100);
      const ids = seen.map((row) => `${row.owner_id}/${row.item_id}`);
      expect(new Set(ids).size).toBe(ids.length);
      expect(seen.filter((row) => row.label === "stays")).toHaveLength(60);
      expect(cursor).toBeUndefined();
    },
  );

  it("refuse more rows than they may hold", async () => {
    const random = seededRandom(4);
    for (let index = 0; index < 12; index++) await add(random, "");
    const ask = (rowsMax: number, limit?: number) =>
      opened.db.everywhere(
        (shard, window) =>
          shard
            .selectFrom("items")
            .select("owner_id")
            .limit(Math.min(window.limit, 99))
            .offset(window.offset)
            .execute(),
        { rowsMax, ...(limit === undefined ? {} : { limit }) },
      );
    expect(await ask(12)).toHaveLength(12);
    await expect(ask(1)).rejects.toMatchObject({ code: "MERGE_INVALID" });
    await expect(ask(100, 101)).rejects.toThrow(/asks each shard for 101 rows, limit 100/);
  });

  it("have cursors that only their own order reads, and that nothing else is taken for", () => {
    const order = [
      ["at", "desc"],
      ["id", "desc"],
    ] as const;
    const row = { at: new Date(1_764_000_000_123), id: "0190c7a0-0000-7000-8000-000000000001", n: 12n, b: true };
    expect(readPageCursor(pageCursor(row, order), order)).toEqual([row.at, row.id]);
    expect(
      readPageCursor(
        pageCursor(row, [
          ["n", "asc"],
          ["b", "asc"],
        ]),
        order,
      ),
    ).toEqual([12n, true]);
    expect(readPageCursor(pageCursor(row, [["id", "asc"]]), order)).toBeUndefined();
    for (const text of [
      "",
      "x",
      "e30",
      "bnVsbA",
      "a b",
      "W251bGwsMV0",
      "x".repeat(5_000),
      Buffer.from('[{"n":"1;"},1]').toString("base64url"),
    ]) {
      expect(readPageCursor(text, order), text).toBeUndefined();
    }
    expect(() => pageCursor({ at: null, id: "1" }, order)).toThrow(/"at" is null/);
    expect(() => afterCursor(order, [1])).toThrow(/does not fit/);
  });
});
