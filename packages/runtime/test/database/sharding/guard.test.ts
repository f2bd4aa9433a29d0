/** The guard in each shard: nobody writes a row there whose key the shard does not own, whatever they think the placement is. */
import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../../src/database/drivers/postgres.ts";
import { bringGuard, type ShardConnection, shardOf, statements, tableRegistry } from "../../../src/database/index.ts";
import { changePlacement } from "../../../src/database/sharding/change-placement.ts";
import { type Ownership, ownershipOf, owns, restOf } from "../../../src/database/sharding/ownership.ts";
import { firstUuidFrom, ownershipSql } from "../../../src/database/sharding/ownership-sql.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres, testSeed } from "../support.ts";
import {
  allOn,
  guardAll,
  openGuarded,
  placeShards,
  randomPlacement,
  routedDatabase,
  type Tables,
  tables,
  uuidFrom,
} from "./support.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const addItem = statements<Tables>()<Tables["items"]>()("guard_test_add_item", (q, p) =>
  q.insertInto("items").values({ owner_id: p.owner_id, item_id: p.item_id, label: p.label }).returning("item_id"),
);
const closeAll = (shards: readonly ShardConnection[]) => Promise.all(shards.map((shard) => shard.close()));
const moved = { code: "SHARD_MOVED", canRetry: true };
const noRows = async () => {};
const noWait = async () => {};

describe("ownership as SQL", () => {
  const types = {
    uuid: (random: ReturnType<typeof seededRandom>) => uuidFrom(random),
    text: (random: ReturnType<typeof seededRandom>) =>
      random.next() < 0.3
        ? random.next() < 0.5
          ? uuidFrom(random)
          : uuidFrom(random).toUpperCase()
        : Buffer.from(random.bytes(1 + Math.floor(random.next() * 12)))
            .toString("latin1")
            .replaceAll("\0", "x"),
    int8: (random: ReturnType<typeof seededRandom>) => String(Math.floor((random.next() - 0.5) * 2 ** 52)),
  } as const;

  it("says of every key what the runtime says, for each type and any placement", { timeout: 60_000 }, async () => {
    const shard = openPostgres({ name: "shard 0", address: { url: server.connectionString } });
    const random = seededRandom(testSeed("ownership"));
    for (let round = 0; round < 30; round++) {
      const strategy = round % 2 === 0 ? "hash" : "range";
      const type = (["uuid", "text", "int8"] as const)[round % 3] as "uuid" | "text" | "int8";
      const keys = Array.from({ length: 500 }, () => types[type](random));
      // Split points that are keys, begin like keys, or are like none.
      const points = [
        ...keys.slice(0, 3),
        ...keys.slice(3, 6).map((key) => key.slice(0, 1 + (round % 9))),
        "N",
        "é\\'",
      ];
      const splits = [...new Set(points)].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      const placement = randomPlacement(random, { strategy, splits, shards: 3, epoch: 1 });
      for (let owner = 0; owner < 3; owner++) {
        const ownership: Ownership = ownershipOf(placement, owner);
        const condition = ownershipSql(ownership, "k", type);
        const rows = await shard.query<{ owned: boolean }>(
          undefined,
          `select (${condition}) as owned from unnest($1::${type}[]) k`,
          [keys],
        );
        const wrong = keys.filter((key, index) => rows[index]?.owned !== owns(ownership, key));
        expect({ condition, wrong }).toEqual({ condition, wrong: [] });
        const rest = ownershipSql(restOf(ownership), "k", type);
        const [both] = await shard.query<{ count: number }>(
          undefined,
          `select count(*) as count from unnest($1::${type}[]) k where (${rest}) = (${condition})`,
          [keys],
        );
        expect(both?.count).toBe(0);
        expect(keys.filter((key) => owns(ownership, key) !== (shardOf(placement, key) === owner))).toEqual([]);
      }
    }
    await shard.close();
  });

  it("finds the first UUID at or above any text", () => {
    const first = "00000000-0000-0000-0000-000000000000";
    expect(firstUuidFrom("")).toBe(first);
    expect(firstUuidFrom("5")).toBe("50000000-0000-0000-0000-000000000000");
    expect(firstUuidFrom("N")).toBe("a0000000-0000-0000-0000-000000000000");
    expect(firstUuidFrom("n")).toBeUndefined();
    expect(firstUuidFrom("ffz")).toBeUndefined();
    expect(firstUuidFrom("01z")).toBe("02000000-0000-0000-0000-000000000000");
    expect(firstUuidFrom("00000000a")).toBe("00000001-0000-0000-0000-000000000000");
    expect(firstUuidFrom(`${first}0`)).toBe("00000000-0000-0000-0000-000000000001");
    expect(firstUuidFrom("0190c7a0-0000-7000-8000-00000000abcd")).toBe("0190c7a0-0000-7000-8000-00000000abcd");
  });
});

describe.each([{ strategy: "hash" as const }, { strategy: "range" as const, splits: ["5", "N"] }])(
  "the guard by $strategy",
  (wanted) => {
    it("lets in what the shard owns and nothing else, also from plain SQL", { timeout: 60_000 }, async () => {
      const { shards, placement, urls } = await openGuarded(server, 3, wanted);
      const random = seededRandom(testSeed("guarded keys"));
      for (const [index, url] of urls.entries()) {
        const psql = new pg.Client({ connectionString: url });
        await psql.connect();
        const outcome = (text: string, key: string) =>
          psql.query(text, [key]).then(
            () => "written",
            (error: { code?: string }) => error.code,
          );
        for (let round = 0; round < 60; round++) {
          const keys = [uuidFrom(random), `${"AZaz59é"[round % 7]}${round}`, String(round * 7 - 50)] as const;
          const expected = keys.map((key) => (shardOf(placement, key) === index ? "written" : "RG001"));
          expect([
            await outcome("insert into items (owner_id, item_id) values ($1, 1)", keys[0]),
            await outcome("insert into notes (name) values ($1)", keys[1]),
            await outcome("insert into counts (number) values ($1)", keys[2]),
          ]).toEqual(expected);
        }
        await psql.end();
      }
      await closeAll(shards);
    });
  },
);

describe("the guard", () => {
  const foreign = "0190c7a0-0000-7000-8000-000000000001";

  /** Two shards, with a row of a key on the shard that does not own it, as a move leaves it behind. */
  async function withLeftRow() {
    const opened = await openGuarded(server, 2);
    const other = opened.shards[1 - shardOf(opened.placement, foreign)] as ShardConnection;
    await other.kysely.transaction().execute(async (tx) => {
      // As the apply workers of logical replication write: no ordinary trigger fires.
      await sql`set local session_replication_role = replica`.execute(tx);
      await sql`insert into items (owner_id, item_id, label) values (${foreign}::uuid, 1, 'old')`.execute(tx);
    });
    return { ...opened, other };
  }

  it("refuses update, delete and upsert of a row that moved away, and leaves it as it was", async () => {
    const { shards, other } = await withLeftRow();
    for (const text of [
      "update items set label = 'new'",
      `update items set owner_id = gen_random_uuid() where owner_id = '${foreign}'`,
      "delete from items",
      `insert into items (owner_id, item_id) values ('${foreign}', 1) on conflict (owner_id, item_id) do update set label = 'new'`,
      `with gone as (delete from items returning 1) select * from gone`,
      `merge into items using (values ('${foreign}'::uuid)) v(id) on owner_id = v.id when matched then update set label = 'new'`,
    ]) {
      await expect(other.query(undefined, text, []), text).rejects.toMatchObject(moved);
    }
    expect(await other.query(undefined, "select item_id, label from items", [])).toEqual([
      { item_id: 1, label: "old" },
    ]);
    await closeAll(shards);
  });

  it("says the epoch and the table, and not the key", async () => {
    const { shards, other } = await withLeftRow();
    const error = await other.query(undefined, "delete from items", []).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      message: expect.stringMatching(/refused a row: Shard \d does not own the key of this row of table "items"/),
      cause: { code: "RG001", detail: "epoch 1" },
    });
    expect(String((error as Error).message)).not.toContain(foreign);
    await closeAll(shards);
  });

  it("refuses a row whose key an update would change to a foreign one", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const random = seededRandom(1);
    const keys = Array.from({ length: 40 }, () => uuidFrom(random));
    const own = keys.find((key) => shardOf(placement, key) === 0) as string;
    const theirs = keys.find((key) => shardOf(placement, key) === 1) as string;
    await shards[0].query(undefined, "insert into items (owner_id, item_id) values ($1, 1)", [own]);
    await expect(shards[0].query(undefined, "update items set owner_id = $1", [theirs])).rejects.toMatchObject(moved);
    await closeAll(shards);
  });

  it("costs an ordinary start no change, and comes back for tables that are new or made anew", async () => {
    const { shards } = await openGuarded(server, 2);
    expect(await guardAll(shards)).toEqual([0, 0]);
    await shards[0].query(undefined, "drop table notes; create table notes (name text primary key)", []);
    await (shards[1] as ShardConnection).query(undefined, "alter table items disable trigger rungs_guard_old", []);
    expect(await guardAll(shards)).toEqual([1, 1]);
    expect(await guardAll(shards)).toEqual([0, 0]);
    // Starts at the same moment change each table once.
    await shards[0].query(undefined, "drop trigger rungs_guard_new on items", []);
    const starts = await Promise.all(Array.from({ length: 4 }, () => guardAll(shards)));
    expect(starts.flat().every((changed) => changed <= 1)).toBe(true);
    expect(await guardAll(shards)).toEqual([0, 0]);
    await closeAll(shards);
  });

  it("refuses key columns that cannot be guarded", async () => {
    const url = await server.createDatabase();
    const { shards } = await placeShards([url], { strategy: "hash" }, { schema: "create table odd (at timestamptz)" });
    const registry = (shardBy: string) => tableRegistry([{ name: "test", tables: { odd: { shardBy } } }]);
    await expect(bringGuard(shards[0], { tables: registry("at"), isHome: true })).rejects.toThrow(
      /Table "odd" is sharded by "at" of type timestamptz/,
    );
    await expect(bringGuard(shards[0], { tables: registry("id"), isHome: true })).rejects.toThrow(
      /not one of its columns/,
    );
    await closeAll(shards);
  });

  it("holds after a change of owner, for writers of every kind that began before it", { timeout: 30_000 }, async () => {
    const { shards, placement, urls } = await openGuarded(server, 2);
    const random = seededRandom(testSeed("before and after"));
    const key = uuidFrom(random);
    const from = shardOf(placement, key);
    const to = 1 - from;
    const [writer, snapshot] = [0, 1].map(() => new pg.Client({ connectionString: urls[from] as string })) as [
      pg.Client,
      pg.Client,
    ];
    await Promise.all([writer.connect(), snapshot.connect()]);
    await writer.query(`begin; insert into items (owner_id, item_id) values ('${key}', 1)`);
    await snapshot.query("begin isolation level repeatable read; select 1 from items");
    let isChanged = false;
    const change = changePlacement({
      home: shards[0].kysely,
      ...{ shards, tables, sleep: noWait },
      change: (current) => allOn(current, to),
      async moveRows() {
        const rows = await (shards[from] as ShardConnection).query(undefined, "select * from items", []);
        expect(rows).toHaveLength(1);
        await (shards[from] as ShardConnection).kysely.transaction().execute(async (tx) => {
          await sql`set local session_replication_role = replica`.execute(tx);
          await sql`delete from items`.execute(tx);
        });
      },
    }).finally(() => {
      isChanged = true;
    });
    // The writer's transaction holds the table: the change waits for it.
    await expect.poll(() => lockWaiters(shards[from] as ShardConnection)).toBeGreaterThan(0);
    expect(isChanged).toBe(false);
    await writer.query("commit");
    expect(await change).toMatchObject({ epoch: 3 });
    await expect(snapshot.query("insert into items (owner_id, item_id) values ($1, 2)", [key])).rejects.toMatchObject({
      code: "RG001",
      detail: "epoch 2",
    });
    const insert = "insert into items (owner_id, item_id) values ($1, 3)";
    await expect((shards[from] as ShardConnection).query(undefined, insert, [key])).rejects.toMatchObject(moved);
    await (shards[to] as ShardConnection).query(undefined, insert, [key]);
    await Promise.all([writer.end(), snapshot.end()]);
    await closeAll(shards);
  });

  it("is not put back by a starter that read the record before a change", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const key = uuidFrom(seededRandom(5));
    const from = shards[shardOf(placement, key)] as ShardConnection;
    await from.query(undefined, "drop trigger rungs_guard_new on items", []);
    // A starter whose lock of the record waits behind the change.
    const holder = await heldRecord(from);
    const starter = bringGuard(from, { tables, isHome: false });
    await expect.poll(() => lockWaiters(from)).toBeGreaterThan(0);
    const nothing: Ownership = { strategy: "hash", buckets: [] };
    await holder.query("update rungs_shard set owned = $1, epoch = 9", [JSON.stringify(nothing)]);
    await holder.query("commit");
    await holder.end();
    expect(await starter).toBeGreaterThan(0);
    await expect(
      from.query(undefined, "insert into items (owner_id, item_id) values ($1, 1)", [key]),
    ).rejects.toMatchObject({ cause: { detail: "epoch 9" } });
    await closeAll(shards);

    async function heldRecord(shard: ShardConnection) {
      const [{ url }] = (await shard.query<{ url: string }>(undefined, "select current_database() as url", [])) as [
        { url: string },
      ];
      const client = new pg.Client({ ...connectionOf(server), database: url });
      await client.connect();
      await client.query("begin; select 1 from rungs_shard for update");
      return client;
    }
  });
});

describe("a writer with an old placement", () => {
  it("is refused and finds the new owner by itself: statement, query and transaction", {
    timeout: 30_000,
  }, async () => {
    const { shards, placement } = await openGuarded(server, 2);
    // Processes that last asked before all keys went to shard 0, one for each way to write.
    const stale = [0, 1, 2].map(() => routedDatabase(shards, placement));
    for (const { watch } of stale) await watch.refresh();
    await changePlacement({
      home: shards[0].kysely,
      ...{ shards, tables, sleep: noWait, moveRows: noRows },
      change: (current) => allOn(current, 0),
    });
    const random = seededRandom(testSeed("stale writers"));
    for (const [way, { db, watch }] of stale.entries()) {
      const keys = Array.from({ length: 12 }, () => uuidFrom(random));
      for (const key of keys) {
        const row = { owner_id: key, item_id: 1, label: String(way) };
        if (way === 0) await db.for(key).insertInto("items").values(row).execute();
        else if (way === 1) await db.for(key).run(addItem, row);
        else await db.for(key).transaction((tx) => tx.insertInto("items").values(row).execute());
      }
      const refusals = watch.standings().map((standing) => standing.refusals);
      expect({ way, refusals }).toEqual({ way, refusals: [0, 1] });
    }
    expect(await shards[0].query(undefined, "select 1 from items", [])).toHaveLength(36);
    expect(await (shards[1] as ShardConnection).query(undefined, "select 1 from items", [])).toHaveLength(0);
    await closeAll(shards);
  });

  it("is told to try again when its transaction had done something, and nothing of it is left", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    const key = uuidFrom(seededRandom(7));
    const from = shardOf(placement, key);
    let calls = 0;
    const attempt = db.for(key).transaction(async (tx) => {
      calls++;
      await tx.selectFrom("items").select("item_id").where("owner_id", "=", key).execute();
      await changePlacement({
        home: shards[0].kysely,
        ...{ shards, tables, sleep: noWait, moveRows: noRows },
        change: (current) => allOn(current, 1 - from),
      });
      await tx.insertInto("items").values({ owner_id: key, item_id: 1, label: "" }).execute();
    });
    await expect(attempt).rejects.toMatchObject(moved);
    expect(calls).toBe(1);
    await db.for(key).insertInto("items").values({ owner_id: key, item_id: 2, label: "" }).execute();
    expect(await (shards[1 - from] as ShardConnection).query(undefined, "select item_id from items", [])).toEqual([
      { item_id: 2 },
    ]);
    await closeAll(shards);
  });

  it("learns when it is its own mistake: a row of another key than db.for was asked for", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    const random = seededRandom(9);
    const keys = Array.from({ length: 40 }, () => uuidFrom(random));
    const [own, theirs] = [0, 1].map((shard) => keys.find((key) => shardOf(placement, key) === shard) as string) as [
      string,
      string,
    ];
    await expect(
      db.for(own).insertInto("items").values({ owner_id: theirs, item_id: 1, label: "" }).execute(),
    ).rejects.toMatchObject({ code: "SHARD_KEY_MISMATCH" });
    await closeAll(shards);
  });
});

async function lockWaiters(shard: ShardConnection): Promise<number> {
  const rows = await shard.query(
    undefined,
    "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    [],
  );
  return rows.length;
}

function connectionOf({ host, port, user }: TestPostgres) {
  return { host, port, user };
}
