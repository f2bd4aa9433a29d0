/** Which server answers, with real ones: told apart by what they hold, because replay is paused. */
import { type Kysely, sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  initialPlacement,
  ReadContext,
  type ReplicatedShard,
  shardedDatabase,
  statements,
  tableRegistry,
} from "../../../src/database/index.ts";
import { inUnit, openReplicated, startTestReplicas, type TestReplicas, until } from "./support.ts";

interface Tables {
  items: { id: string; n: number };
}
const define = statements<Tables>();
const readOne = define<{ id: string }>()("routing_read", (q, p) =>
  q.selectFrom("items").select("n").where("id", "=", p.id),
);
const writeOne = define<{ id: string; n: number }>()("routing_write", (q, p) =>
  q.updateTable("items").set({ n: p.n }).where("id", "=", p.id).returning("n"),
);
const id = "0190c7a0-0000-7000-8000-000000000001";
const readSql = "select n from items where id = $1";

describe("reads and writes of a shard with followers", () => {
  let set: TestReplicas;
  let shard: ReplicatedShard;
  const read = async () => (await shard.query<{ n: number }>("read_one", readSql, [id]))[0]?.n;
  const catchUp = () => Promise.all(set.followers.map((follower) => follower.caughtUpWith(set.leader)));
  const pause = () => Promise.all(set.followers.map((follower) => follower.pauseReplay()));
  const resume = () => Promise.all(set.followers.map((follower) => follower.resumeReplay()));

  beforeAll(async () => {
    set = await startTestReplicas({ followers: 2 });
    await set.leader.query("create table items (id uuid primary key, n int not null)");
    await set.leader.query("create sequence numbers");
    await set.leader.query("create view sly as select nextval('numbers')::int as n");
  });
  afterAll(() => set.stop());
  beforeEach(async () => {
    await set.leader.query(`insert into items values ('${id}', 1) on conflict (id) do update set n = 1`);
    await catchUp();
    shard = await openReplicated(set, {
      // A slow machine must not make the leader answer.
      settings: { lagMsMax: 30_000, lookEveryMs: 500, lookMsMax: 10_000, waitMsMax: 500, hedgeShareMax: 0 },
    });
    await until("followers are up", () => shard.replicationStats().followers.every(({ state }) => state === "up"));
    // From here on a follower says 1 and the leader 2.
    await pause();
    await set.leader.query("update items set n = 2");
  });
  afterEach(async () => {
    await resume();
    await shard.close();
  });

  it("a read in a unit of work goes to a follower, by statement and by Kysely; outside of one to the leader", async () => {
    const db = shard.kysely as Kysely<Tables>;
    const byKysely = () => db.selectFrom("items").select("n").where("id", "=", id).executeTakeFirst();
    expect((await inUnit(read)).result).toBe(1);
    expect((await inUnit(byKysely)).result).toEqual({ n: 1 });
    expect(await read()).toBe(2);
    expect(await byKysely()).toEqual({ n: 2 });
    expect(shard.replicationStats()).toMatchObject({ readsByFollowers: 2, readsByLeader: { outside: 2 }, writes: 0 });
  });

  it("locking reads, writing queries and functions that may write go to the leader, and count as writes", async () => {
    for (const text of [
      `select n from items where id = '${id}' for update`,
      `with x as (update items set n = 2 returning n) select n from x`,
      `select n + 0 * nextval('numbers')::int as n from items`,
    ]) {
      const context = new ReadContext();
      const { result } = await inUnit(() => shard.query<{ n: number }>(undefined, text, []));
      expect(result[0]?.n).toBe(2);
      expect(context.isTouched).toBe(false);
    }
    expect(shard.replicationStats()).toMatchObject({ readsByFollowers: 0, writes: 3 });
  });

  it("after a write the unit reads from the leader, and the next one sees it", async () => {
    const first = await inUnit(async () => {
      expect(await read()).toBe(1);
      await shard.query(undefined, "update items set n = 3 where id = $1", [id]);
      return read();
    });
    expect(first.result).toBe(3);
    expect((await inUnit(read, first.seen)).result).toBe(3);
    // Someone else is not held to it.
    expect((await inUnit(read)).result).toBe(1);
    expect(shard.replicationStats().readsByLeader).toMatchObject({ "own-write": 1, behind: 1 });
  });

  it("waits a moment for a follower to get there", async () => {
    const patient = await openReplicated(set, { settings: { waitMsMax: 5_000 } });
    await until("known", () => patient.replicationStats().followers.some(({ lagMs }) => lagMs !== undefined));
    const written = await inUnit(() => patient.query(undefined, "update items set n = 4 where id = $1", [id]));
    await resume();
    const waiting = inUnit(() => patient.query<{ n: number }>("read_one", readSql, [id]), written.seen);
    expect((await waiting).result).toEqual([{ n: 4 }]);
    expect(patient.replicationStats()).toMatchObject({ readsByFollowers: 1, waits: 1, readsByLeader: { behind: 0 } });
    await patient.close();
  });

  it("transactions run on the leader, read-only ones on a follower when asked for, serializable ones never", async () => {
    const db = shardedDatabase<Tables>({
      shards: [shard],
      placement: initialPlacement({ strategy: "hash", shards: 1 }),
      tables: tableRegistry([{ name: "test", tables: { items: { shardBy: "id" } } }]),
    });
    const readIn = (options: Parameters<ReturnType<typeof db.for>["transaction"]>[1]) =>
      db.for(id).transaction(async (tx) => (await tx.run(readOne, { id }))[0]?.n, options);
    expect((await inUnit(() => readIn({}))).result).toBe(2);
    expect((await inUnit(() => readIn({ access: "read only" }))).result).toBe(1);
    expect((await inUnit(() => readIn({ access: "read only", isolation: "repeatable read" }))).result).toBe(1);
    expect((await inUnit(() => readIn({ access: "read only", isolation: "serializable" }))).result).toBe(2);
    expect(await readIn({ access: "read only" })).toBe(2);
    // A mistake of the caller's, and no sign that a server does not lead any more.
    for (const unit of [inUnit, async (work: () => Promise<unknown>) => work()]) {
      const writing = unit(() =>
        db.for(id).transaction((tx) => tx.run(writeOne, { id, n: 9 }), { access: "read only" }),
      );
      await expect(writing).rejects.toThrow(/read-only transaction/);
    }
    expect((await inUnit(() => db.for(id).run(readOne, { id }))).result).toEqual([{ n: 1 }]);
    const moved = await inUnit(async () => {
      await db.for(id).transaction((tx) => tx.run(writeOne, { id, n: 5 }));
      return readIn({ access: "read only" });
    });
    expect(moved.result).toBe(5);
    const { followers } = shard.replicationStats();
    expect(followers.map(({ inFlight }) => inFlight)).toEqual([0, 0]);
    expect(shard.stats()).toMatchObject({ waiting: 0 });
  });

  it("a connection that was asked for something else stays with the leader", async () => {
    const seen = await inUnit(() =>
      shard.kysely.connection().execute(async (connection) => {
        await sql`select pg_advisory_lock(7)`.execute(connection);
        const { rows } = await sql<{ n: number }>`select n from items`.execute(connection);
        await sql`select pg_advisory_unlock(7)`.execute(connection);
        return rows;
      }),
    );
    expect(seen.result).toEqual([{ n: 2 }]);
  });

  it("a unit stays with the follower it read from, and with the leader once it read there", async () => {
    for (let round = 0; round < 20; round++) {
      const before = shard.replicationStats().followers.map(({ reads }) => reads);
      await inUnit(async () => {
        for (let time = 0; time < 5; time++) expect(await read()).toBe(1);
      });
      const after = shard.replicationStats().followers.map(({ reads }) => reads);
      expect(after.map((reads, index) => reads - (before[index] as number)).sort()).toEqual([0, 5]);
    }
    // Both were used.
    expect(shard.replicationStats().followers.every(({ reads }) => reads > 0)).toBe(true);
    const { result } = await inUnit(async (context) => {
      context.hold();
      const held = await read();
      context.release();
      return [held, await read()];
    });
    expect(result).toEqual([2, 2]);
    expect(shard.replicationStats().readsByLeader).toMatchObject({ held: 1, "same-server": 1 });
  });

  it("below the floor no follower answers, and none while followers are held", async () => {
    expect((await inUnit(read)).result).toBe(1);
    const release = shard.holdFollowers();
    expect((await inUnit(read)).result).toBe(2);
    release();
    release();
    expect((await inUnit(read)).result).toBe(1);
    shard.raiseFloor(await shard.positionNow());
    expect((await inUnit(read)).result).toBe(2);
    shard.raiseFloor({ timeline: 1, lsn: 0n });
    expect((await inUnit(read)).result).toBe(2);
    await resume();
    await catchUp();
    await until("a follower answers again", async () => {
      expect((await inUnit(read)).result).toBe(2);
      return shard.replicationStats().readsByFollowers === 3;
    });
  });

  it("a statement that a follower refuses is run by the leader, and by it alone from then on", async () => {
    const sly = () => shard.query<{ n: number }>(undefined, "select n from sly", []);
    const first = await inUnit(async (context) => {
      const rows = await sly();
      expect(context.hasWrites).toBe(true);
      return rows;
    });
    expect(first.result).toHaveLength(1);
    await inUnit(sly);
    const stats = shard.replicationStats();
    expect(stats).toMatchObject({ retries: 1, writes: 1, ejections: 0 });
    expect(stats.followers.reduce((sum, { reads }) => sum + reads, 0)).toBe(1);
  });

  it("what a migration has not brought to the follower yet is read from the leader", async () => {
    await set.leader.query("create table brand_new as select 7 as n");
    const fresh = await inUnit(() => shard.query<{ n: number }>(undefined, "select n from brand_new", []));
    expect(fresh.result).toEqual([{ n: 7 }]);
    await set.leader.query("drop table brand_new");
    const missing = inUnit(() => shard.query(undefined, "select n from brand_new", []));
    await expect(missing).rejects.toThrow(/does not exist/);
  });

  it("errors of the statement itself are told at once", async () => {
    await expect(inUnit(() => shard.query(undefined, "select 1 / 0", []))).rejects.toThrow(/division by zero/);
    expect(shard.replicationStats()).toMatchObject({ retries: 0, ejections: 0 });
  });
});

describe("limits", () => {
  let set: TestReplicas;
  beforeAll(async () => {
    set = await startTestReplicas({ followers: 1 });
    await set.leader.query("create table items (id int primary key, n int not null)");
    await set.leader.query("insert into items values (1, 0)");
  });
  afterAll(() => set.stop());

  it("a follower that lags beyond the limit answers nothing, and returns when it has caught up", async () => {
    const [follower] = set.followers;
    const shard = await openReplicated(set, { settings: { lagMsMax: 400, lookEveryMs: 50 } });
    const read = () => inUnit(() => shard.query<{ n: number }>(undefined, "select n from items", []));
    await until("up", () => shard.replicationStats().followers[0]?.state === "up");
    await follower?.pauseReplay();
    const lagging = async () => {
      await set.leader.query("update items set n = n + 1");
      await read();
      return shard.replicationStats().followers[0]?.state === "lagging";
    };
    await until("lagging", lagging);
    expect(shard.replicationStats().followers[0]?.lagMs).toBeGreaterThan(400);
    const before = shard.replicationStats().readsByFollowers;
    await read();
    const { readsByFollowers, readsByLeader } = shard.replicationStats();
    expect(readsByFollowers).toBe(before);
    expect(readsByLeader.lagging).toBeGreaterThan(0);
    await follower?.resumeReplay();
    await until("up again", () => shard.replicationStats().followers[0]?.state === "up");
    expect(shard.replicationStats().followers[0]?.lagMs).toBeLessThan(400);
    await read();
    expect(shard.replicationStats().readsByFollowers).toBe(before + 1);
    await shard.close();
  });

  it("an idle leader makes no lag, however long ago it wrote last", async () => {
    const shard = await openReplicated(set, { settings: { lookEveryMs: 20 } });
    await until("up", () => shard.replicationStats().followers[0]?.state === "up");
    await new Promise((resolve) => setTimeout(resolve, 500));
    await shard.look();
    expect(shard.replicationStats().followers[0]).toMatchObject({ state: "up", lagMs: 0 });
    await shard.close();
  });

  it("more waiters than the limit are answered by the leader at once", async () => {
    const shard = await openReplicated(set, { settings: { waitersMax: 5, waitMsMax: 200 } });
    await until("up", () => shard.replicationStats().followers[0]?.state === "up");
    await set.followers[0]?.pauseReplay();
    const written = await inUnit(() => shard.query(undefined, "update items set n = 7", []));
    const reads = Array.from({ length: 50 }, () =>
      inUnit(() => shard.query<{ n: number }>(undefined, "select n from items", []), written.seen),
    );
    for (const { result } of await Promise.all(reads)) expect(result).toEqual([{ n: 7 }]);
    const { readsByLeader } = shard.replicationStats();
    expect(readsByLeader.crowded).toBe(45);
    expect(readsByLeader.behind).toBe(5);
    await set.followers[0]?.resumeReplay();
    await shard.close();
  });

  it("an address that is no follower gets no reads, and a login without rights is told what to grant", async () => {
    const said: string[] = [];
    const note = (_fields: object, message: string) => void said.push(message);
    const alone = await openReplicated(set, { followers: [set.leader] });
    expect(alone.replicationStats().followers[0]?.state).toBe("not-a-follower");
    await inUnit(() => alone.query(undefined, "select n from items", []));
    expect(alone.replicationStats()).toMatchObject({ readsByFollowers: 0, readsByLeader: { "none-up": 1 } });
    await alone.close();
    await set.leader.query("create role plain login");
    await set.leader.query("grant select on items to plain");
    await set.followers[0]?.caughtUpWith(set.leader);
    const asPlain = (server: TestReplicas["leader"]) => ({
      ...server,
      connectionString: server.connectionString.replace("rungs@", "plain@"),
    });
    const plain = await openReplicated(set, {
      leaderUrl: asPlain(set.leader).connectionString,
      followers: set.followers.map((server) => ({ ...asPlain(server), name: server.name })) as never,
      log: { debug: note, info: note, warn: note, error: note },
    });
    await until("told", () => said.some((message) => message.includes("grant pg_monitor")));
    await inUnit(() => plain.query(undefined, "select n from items", []));
    expect(plain.replicationStats().readsByFollowers).toBe(0);
    await set.leader.query("grant pg_monitor to plain");
    await until("up", async () => {
      await plain.look();
      return plain.replicationStats().followers[0]?.state === "up";
    });
    await plain.close();
  });
});
