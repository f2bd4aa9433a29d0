/** Changes of owner on real servers: killed at every step they leave no key with two owners, and the next one carries on. */
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  changePlacement,
  openPlacement,
  type Placement,
  readPlacement,
  type ShardConnection,
  shardOf,
} from "../../../src/database/index.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres, testSeed } from "../support.ts";
import { allOn, openGuarded, randomPlacement, routedDatabase, tables, uuidFrom } from "./support.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const noWait = async () => {};
const nothing = async () => {};

/** Which shards would take a row of the key; tried and rolled back. */
async function takersOf(shards: readonly ShardConnection[], key: string): Promise<number[]> {
  const takes = await Promise.all(
    shards.map((shard) =>
      shard.kysely
        .transaction()
        .execute(async (tx) => {
          await sql`insert into items (owner_id, item_id) values (${key}::uuid, 0)`.execute(tx);
          await sql`insert into notes (name) values (${key})`.execute(tx);
          throw new Error("taken");
        })
        .catch((error: Error) => error.message === "taken"),
    ),
  );
  return takes.flatMap((isTaken, index) => (isTaken ? [index] : []));
}

/** The shards for a mover that dies at its n-th word to any of them. */
function dyingAfter(shards: readonly ShardConnection[], words: number) {
  let said = 0;
  const die = () => {
    if (++said > words) throw new Error("died");
  };
  const mortal = shards.map(
    (shard): ShardConnection => ({
      ...shard,
      name: shard.name,
      get kysely() {
        die();
        return shard.kysely;
      },
      query(...question: Parameters<ShardConnection["query"]>) {
        die();
        return shard.query(...question);
      },
    }),
  );
  return { mortal, said: () => said };
}

describe("a change of placement", () => {
  it("dies at every word it says, and the next one finishes; never has a key two owners", {
    timeout: 60_000,
  }, async () => {
    const { shards, placement } = await openGuarded(server, 3);
    const random = seededRandom(testSeed("dying movers"));
    const keys = Array.from({ length: 6 }, () => uuidFrom(random));
    let isFinished = false;
    for (let words = 0; !isFinished; words++) {
      expect(words).toBeLessThan(100);
      const goal = randomPlacement(random, { strategy: "hash", shards: 3, epoch: 0 });
      const { mortal, said } = dyingAfter(shards, words);
      const attempt = {
        home: shards[0].kysely,
        ...{ tables, sleep: noWait, moveRows: nothing },
        change: (): Placement => goal,
      };
      isFinished = await changePlacement({ ...attempt, shards: mortal }).then(
        () => true,
        (error: Error) => {
          expect(error.message).toBe("died");
          return false;
        },
      );
      if (isFinished) expect(said()).toBeLessThanOrEqual(words);
      for (const key of keys) expect((await takersOf(shards, key)).length).toBeLessThanOrEqual(1);
      const reached = await changePlacement({ ...attempt, shards });
      for (const key of keys) expect(await takersOf(shards, key)).toEqual([shardOf(goal, key)]);
      expect((await readPlacement(shards[0].kysely))?.placement).toEqual(reached);
    }
    expect((await openPlacement(shards[0].kysely, shards, { strategy: placement.strategy })).epoch).toBeGreaterThan(50);
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("that is overtaken says so, and changes nothing more", async () => {
    const { shards } = await openGuarded(server, 3);
    const key = uuidFrom(seededRandom(3));
    const change = (to: number, moveRows: () => Promise<void>) =>
      changePlacement({
        home: shards[0].kysely,
        ...{ shards, tables, sleep: noWait, moveRows },
        change: (placement) => allOn(placement, to),
      });
    const slow = change(1, async () => {
      // Meanwhile somebody takes the mover for dead, and decides otherwise.
      await change(2, nothing);
    });
    await expect(slow).rejects.toMatchObject({ code: "PLACEMENT_OVERTAKEN" });
    expect(await takersOf(shards, key)).toEqual([2]);
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("waits for the leases before the new owner takes over", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const key = uuidFrom(seededRandom(4));
    const from = shardOf(placement, key);
    const steps: (string | number[])[] = [];
    await changePlacement({
      home: shards[0].kysely,
      ...{ shards, tables, leaseMs: 10_000 },
      change: (current) => allOn(current, 1 - from),
      async sleep(ms) {
        expect(ms).toBeGreaterThanOrEqual(10_000);
        steps.push("wait", await takersOf(shards, key));
      },
      async moveRows() {
        steps.push("move", await takersOf(shards, key));
      },
    });
    expect(steps).toEqual(["wait", [], "move", []]);
    expect(await takersOf(shards, key)).toEqual([1 - from]);
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("keeps writers of the moving keys waiting, and nobody else", async () => {
    const { shards, placement } = await openGuarded(server, 2);
    const random = seededRandom(6);
    const keys = Array.from({ length: 40 }, () => uuidFrom(random));
    const [stays, goes] = [0, 1].map((shard) => keys.find((key) => shardOf(placement, key) === shard) as string) as [
      string,
      string,
    ];
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    const write = (key: string) =>
      db.for(key).insertInto("items").values({ owner_id: key, item_id: 1, label: "" }).execute();
    let moving: Promise<unknown> = Promise.resolve();
    let isWritten = false;
    await changePlacement({
      home: shards[0].kysely,
      ...{ shards, tables, sleep: noWait },
      change: (current) => allOn(current, 0),
      async moveRows() {
        moving = write(goes).then(() => {
          isWritten = true;
        });
        await write(stays);
        await new Promise((resolve) => setTimeout(resolve, 200));
        expect(isWritten).toBe(false);
      },
    });
    await moving;
    expect(await shards[0].query(undefined, "select 1 from items", [])).toHaveLength(2);
    await Promise.all(shards.map((shard) => shard.close()));
  });
});

describe("placement by range", () => {
  it("keeps A to M and N to Z apart, UUIDs by their time, and lists all in one order", async () => {
    const { shards, placement, close } = await ranged(["N"]);
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    const names = ["Ann", "Bob", "Mia", "M~", "N", "Nora", "Zoe", "ann", "Émile", ""];
    for (const name of names) await db.for(name).insertInto("notes").values({ name, body: name }).execute();
    const on = async (shard: number) =>
      (await (shards[shard] as ShardConnection).query<{ name: string }>(undefined, "select name from notes", [])).map(
        ({ name }) => name,
      );
    expect((await on(0)).sort()).toEqual(["", "Ann", "Bob", "M~", "Mia"].sort());
    expect((await on(1)).sort()).toEqual(["N", "Nora", "Zoe", "ann", "Émile"].sort());
    const all = await db.everywhere<{ name: string }>(
      (shard, window) =>
        shard
          .selectFrom("notes")
          .select("name")
          .orderBy(sql`name collate "C"`)
          .limit(window.limit)
          .offset(window.offset)
          .execute(),
      { orderBy: [["name", "asc"]], limit: 100 },
    );
    expect(all.map(({ name }) => name)).toEqual(
      names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    );
    await close();
  });

  it("cuts UUIDv7 keys at a time, and moves a part of a range to another shard", async () => {
    const { shards, placement, close } = await ranged(["019a0000"]);
    const { db, watch } = routedDatabase(shards, placement);
    await watch.refresh();
    const keys = [
      "0190c7a0-0000-7000-8000-000000000001",
      "0199ffff-ffff-7fff-bfff-ffffffffffff",
      "019a0000-0000-7000-8000-000000000001",
    ];
    const write = (key: string, number: number) =>
      db.for(key.toUpperCase()).insertInto("items").values({ owner_id: key, item_id: number, label: "" }).execute();
    for (const key of keys) await write(key, 1);
    const counts = () =>
      Promise.all(
        shards.map(async (shard) => (await shard.query(undefined, "select 1 from items where item_id = 1", [])).length),
      );
    expect(await counts()).toEqual([2, 1]);
    const changed = await changePlacement({
      home: shards[0].kysely,
      ...{ shards, tables, sleep: noWait, moveRows: nothing },
      // From its middle on, the first range goes to the second shard.
      change: (current) => ({
        ...(current as Extract<Placement, { strategy: "range" }>),
        splits: ["0195", "019a0000"],
        shardOfRange: [0, 1, 1],
        firstSplits: ["019a0000"],
      }),
    });
    expect(keys.map((key) => shardOf(changed, key))).toEqual([0, 1, 1]);
    for (const key of keys) await write(key, 2);
    expect(
      await (shards[1] as ShardConnection).query(undefined, "select 1 from items where item_id = 2", []),
    ).toHaveLength(2);
    // The topology still names the split points that the system was made with.
    const wanted = { strategy: "range" as const, splits: ["019a0000"] };
    expect(await openPlacement(shards[0].kysely, shards, wanted)).toEqual(changed);
    await close();
  });

  async function ranged(splits: readonly string[]) {
    const opened = await openGuarded(server, splits.length + 1, { strategy: "range", splits });
    return { ...opened, close: () => Promise.all(opened.shards.map((shard) => shard.close())) };
  }
});
