/** The leader dies, hangs, steps down, comes back: what becomes of reads, writes and what sessions have seen. */
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openPostgres } from "../../../src/database/drivers/postgres.ts";
import type { ReplicatedShard, ShardConnection } from "../../../src/database/index.ts";
import { UnavailableError } from "../../../src/kernel/errors.ts";
import {
  inUnit,
  type MovingAddress,
  movingAddress,
  openReplicated,
  type ReplicaServer,
  startTestReplicas,
  type TestReplicas,
  until,
} from "./support.ts";

describe("fail-over of a leader behind one address", () => {
  let set: TestReplicas;
  let address: MovingAddress;
  let shard: ReplicatedShard;
  let first: ReplicaServer;
  let second: ReplicaServer;

  const open = async (servers: readonly ReplicaServer[]) => {
    shard = await openReplicated(set, { leaderUrl: address.url, followers: servers });
    if (servers.length > 0) await until("known", () => shard.replicationStats().timeline === 1);
  };
  /** Promotes the server, has the other followers follow it and the address lead there. */
  const promote = async (server: ReplicaServer) => {
    await server.promote();
    await address.pointTo(server);
  };
  const read = async (id: number) =>
    (await shard.query<{ n: number }>("failover_read", "select n from items where id = $1", [id]))[0]?.n;

  beforeEach(async () => {
    set = await startTestReplicas({ followers: 2 });
    [first, second] = set.followers as [ReplicaServer, ReplicaServer];
    address = await movingAddress(set.leader);
    await set.leader.query("create table items (id int primary key, n int not null)");
    await set.leader.query("insert into items values (1, 1)");
    await Promise.all(set.followers.map((follower) => follower.caughtUpWith(set.leader)));
  });
  afterEach(async () => {
    await shard?.close();
    await address.close();
    await set.stop();
  });

  it("kill -9 under load: writes resume by themselves, unknown outcomes are told, and what was acknowledged is there", async () => {
    // Acknowledged once a follower has it: the setting in which nothing may be lost.
    await set.leader.query("alter system set synchronous_standby_names = 'ANY 1 (*)'");
    await set.leader.query("select pg_reload_conf()");
    await open(set.followers);
    const acknowledged: number[] = [];
    const unknown: number[] = [];
    const refused: unknown[] = [];
    let next = 100;
    let isOver = false;
    let last = performance.now();
    let gapMs = 0;
    const writers = Array.from({ length: 8 }, async (_, writer) => {
      while (!isOver) {
        const id = next++;
        try {
          if (writer < 4) await shard.query(undefined, "insert into items values ($1, 0)", [id]);
          else if (writer < 6) await sql`insert into items values (${id}, 0)`.execute(shard.kysely);
          else await shard.kysely.transaction().execute((tx) => sql`insert into items values (${id}, 0)`.execute(tx));
          acknowledged.push(id);
          gapMs = Math.max(gapMs, performance.now() - last);
          last = performance.now();
        } catch (error) {
          if (error instanceof UnavailableError && !error.canRetry) unknown.push(id);
          else refused.push(error);
        }
      }
    });
    await until("writes", () => acknowledged.length > 200);
    const killedAt = performance.now();
    await set.leader.kill();
    const lsn = async (server: ReplicaServer) =>
      (await server.query<{ lsn: number }>("select pg_last_wal_receive_lsn() - '0/0'::pg_lsn as lsn"))[0]?.lsn ?? 0;
    const [one, two] = [Number(await lsn(first)), Number(await lsn(second))];
    const [chosen, other] = one >= two ? [first, second] : [second, first];
    await other.follow(chosen);
    await promote(chosen);
    const promotedMs = performance.now() - killedAt;
    const before = acknowledged.length;
    await until("writes resumed", () => acknowledged.length > before + 200);
    isOver = true;
    await Promise.all(writers);
    const there = new Set((await chosen.query<{ id: number }>("select id from items")).map(({ id }) => id));
    const lost = acknowledged.filter((id) => !there.has(id));
    console.info(JSON.stringify({ acknowledged: acknowledged.length, unknown: unknown.length, promotedMs, gapMs }));
    expect(lost).toEqual([]);
    // Those under way when it died: one a writer, and one more of each if its new connection broke as well.
    expect(unknown.length).toBeLessThanOrEqual(16);
    expect(refused).toEqual([]);
    expect(new Set(acknowledged).size).toBe(acknowledged.length);
    expect(gapMs).toBeLessThan(promotedMs + 3_000);
    await until("noticed", () => shard.replicationStats().timelineChanges === 1);
    expect(shard.replicationStats()).toMatchObject({ timeline: 2 });
    // The follower of the new leader answers reads.
    await until("a follower again", async () => {
      await inUnit(() => read(1));
      return shard.replicationStats().followers.some(({ state }) => state === "up");
    });
  });

  it("what a session has seen before a promotion is answered by the leader, then by its followers", async () => {
    await open([second]);
    await until("up", () => shard.replicationStats().followers[0]?.state === "up");
    const before = await inUnit(async () => {
      await shard.query(undefined, "update items set n = 2 where id = 1", []);
      return read(1);
    });
    await Promise.all(set.followers.map((follower) => follower.caughtUpWith(set.leader)));
    await set.leader.shutDown();
    await second.follow(first);
    await promote(first);
    await second.caughtUpWith(first);
    await until("the new timeline is known", async () => {
      await shard.look();
      const { timeline, followers } = shard.replicationStats();
      return timeline === 2 && followers[0]?.state === "up";
    });
    const after = await inUnit(() => read(1), before.seen);
    expect(after.result).toBe(2);
    expect(shard.replicationStats()).toMatchObject({ readsByLeader: { timeline: 1 }, possibleLosses: 0 });
    expect(after.seen.get(0)?.timeline).toBe(2);
    const { readsByFollowers } = shard.replicationStats();
    expect((await inUnit(() => read(1), after.seen)).result).toBe(2);
    expect(shard.replicationStats().readsByFollowers).toBe(readsByFollowers + 1);
  });

  it("a commit that an asynchronous fail-over lost is reported, and never passes for seen", async () => {
    const said: string[] = [];
    const note = (_fields: object, message: string) => void said.push(message);
    await open([second]);
    await shard.close();
    shard = await openReplicated(set, {
      leaderUrl: address.url,
      followers: [second],
      log: { debug() {}, info() {}, warn() {}, error: note },
    });
    // The followers stop receiving; the leader acknowledges all the same.
    for (const follower of set.followers) {
      await follower.query("alter system set primary_conninfo = ''");
      await follower.query("select pg_reload_conf()");
    }
    await until("nobody receives", async () => {
      const [row] = await set.leader.query<{ n: number }>("select count(*)::int as n from pg_stat_replication");
      return row?.n === 0;
    });
    const written = await inUnit(() => shard.query(undefined, "insert into items values (2, 2)", []));
    await set.leader.kill();
    await second.follow(first);
    await promote(first);
    // The numbers of the new leader's log pass that of the lost commit.
    for (let time = 0; time < 20; time++) await first.query("update items set n = n + 1 where id = 1");
    await second.caughtUpWith(first);
    await until("the new timeline is known", async () => {
      await shard.look();
      const { timeline, followers } = shard.replicationStats();
      return timeline === 2 && followers[0]?.state === "up";
    });
    const after = await inUnit(() => read(2), written.seen);
    expect(after.result).toBeUndefined();
    await until("reported", () => shard.replicationStats().possibleLosses > 0);
    expect(shard.replicationStats()).toMatchObject({ possibleLosses: 1, readsByFollowers: 0 });
    expect(said.filter((message) => message.includes("a fail-over lost it"))).toHaveLength(1);
    // One that survived is none.
    expect((await inUnit(() => read(1), after.seen)).result).toBe(21);
    expect(shard.replicationStats().possibleLosses).toBe(1);
  });

  it("a leader that was deposed and does not know it gets no more writes once the address leads elsewhere", async () => {
    await open([second]);
    await shard.query(undefined, "insert into items values (40, 0)", []);
    await first.caughtUpWith(set.leader);
    // The connections there are stay, and so does the old leader.
    await second.follow(first);
    await promote(first);
    const since = performance.now();
    await until("the new leader is noticed", () => shard.replicationStats().timeline === 2);
    expect(performance.now() - since).toBeLessThan(10_000);
    await shard.query(undefined, "insert into items values (41, 0)", []);
    expect(await set.leader.query("select id from items where id = 41")).toEqual([]);
    expect(await first.query("select id from items where id in (40, 41) order by id")).toEqual([
      { id: 40 },
      { id: 41 },
    ]);
  });

  it("reads go on while there is no leader, and those of the leader wait for the next", async () => {
    await open(set.followers);
    await until("up", () => shard.replicationStats().followers.every(({ state }) => state === "up"));
    await set.leader.kill();
    await address.pointTo(undefined);
    for (let time = 0; time < 50; time++) {
      const context = await inUnit(() => read(1));
      expect(context.result).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(shard.replicationStats().readsByFollowers).toBe(50);
    const outside = read(1);
    await second.follow(first);
    await promote(first);
    expect(await outside).toBe(1);
  });
});

describe("a leader that is not there for a while", () => {
  let set: TestReplicas;
  let address: MovingAddress;
  let shard: ReplicatedShard;
  beforeAll(async () => {
    set = await startTestReplicas({ followers: 1 });
    await set.leader.query("create table items (id int primary key, n int not null)");
    await set.followers[0]?.caughtUpWith(set.leader);
  });
  afterAll(() => set.stop());
  beforeEach(async () => {
    address = await movingAddress(set.leader);
    shard = await openReplicated(set, {
      leaderUrl: address.url,
      followers: [],
      pool: { leader: { silenceMsMax: 1_000 } },
    });
  });
  afterEach(async () => {
    await shard.close();
    await address.close();
  });

  it("no statement and no transaction is begun on a server that follows; both wait for the leader", async () => {
    // The balancer has not noticed yet: the address leads to a follower.
    await address.pointTo(set.followers[0]);
    address.breakAll();
    const started: Promise<unknown>[] = [
      shard.query(undefined, "insert into items values (10, 0)", []),
      sql`insert into items values (11, 0)`.execute(shard.kysely),
      shard.kysely.transaction().execute((tx) => sql`insert into items values (12, 0)`.execute(tx)),
    ];
    await new Promise((resolve) => setTimeout(resolve, 500));
    await address.pointTo(set.leader);
    await Promise.all(started);
    expect(await set.leader.query("select id from items where id >= 10 order by id")).toEqual(
      [10, 11, 12].map((id) => ({ id })),
    );
  });

  it("a wait for a leader ends at the unit's own deadline, and says that nothing was done", async () => {
    await address.pointTo(undefined);
    address.breakAll();
    await until("idle connections are gone", () => shard.stats().total === 0);
    const since = performance.now();
    const writing = inUnit((context) => {
      context.deadlineAt = performance.now() + 300;
      return shard.query(undefined, "insert into items values (10, 0)", []);
    });
    await expect(writing).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: true });
    expect(performance.now() - since).toBeLessThan(1_000);
  });

  it("a refused write (25006) on a connection there is runs on a new one, once a server writes again", async () => {
    const pidOf = async () =>
      (
        await set.leader.query<{ n: number }>("select count(*)::int as n from pg_stat_activity where pid = any($1)", [
          pids,
        ])
      )[0];
    const busy = () => shard.query<{ pid: number }>(undefined, "select pg_backend_pid() as pid from pg_sleep(0.1)", []);
    const pids = (await Promise.all([busy(), busy(), busy()])).flatMap((rows) => rows.map(({ pid }) => pid));
    expect(await pidOf()).toEqual({ n: 3 });
    const setTo = async (value: string) => {
      await set.leader.query(`alter system set default_transaction_read_only = ${value}`);
      await set.leader.query("select pg_reload_conf()");
    };
    await setTo("on");
    await until("connections have heard of it", async () => {
      const rows = await shard.query<{ on: string }>(undefined, "show default_transaction_read_only", []);
      return Object.values(rows[0] ?? {})[0] === "on";
    });
    const writing = shard.query(undefined, "insert into items values (60, 0)", []);
    const begun = shard.kysely.transaction().execute((tx) => sql`insert into items values (61, 0)`.execute(tx));
    // The statement of a transaction that has begun is not run again: only its caller can.
    await expect(begun).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: true });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const admin = await set.leader.query("select pg_backend_pid()");
    expect(admin).toHaveLength(1);
    await setTo("off");
    await writing;
    expect(await set.leader.query("select id from items where id in (60, 61)")).toEqual([{ id: 60 }]);
    // None of the old connections is used again: they are closed when their turn comes.
    await Promise.all([busy(), busy(), busy(), busy()]);
    await until("old connections are gone", async () => (await pidOf())?.n === 0);
  });

  it("a slow statement and a long transaction are not taken for silence", async () => {
    const slow = shard.query<{ n: number }>(undefined, "select 1 as n from pg_sleep(3)", []);
    const long = shard.kysely.transaction().execute(async (tx) => {
      await sql`insert into items values (5, 0)`.execute(tx);
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      await sql`insert into items values (6, 0)`.execute(tx);
    });
    expect(await slow).toEqual([{ n: 1 }]);
    await long;
  });
});

describe("connections to a leader that hangs or is deposed", () => {
  let set: TestReplicas;
  let address: MovingAddress;
  let server: ShardConnection;
  beforeEach(async () => {
    set = await startTestReplicas({ followers: 1 });
    address = await movingAddress(set.leader);
    await set.leader.query("create table items (id int primary key)");
    server = openPostgres({
      name: "shard 0",
      address: { url: address.url },
      pool: { leader: { silenceMsMax: 1_000 }, connectionsMax: 5 },
    });
  });
  afterEach(async () => {
    await server.close();
    await address.close();
    await set.stop();
  });

  it("a frozen leader is given up within the bound: writes of unknown outcome fail, the next ones wait for a leader", async () => {
    await set.followers[0]?.caughtUpWith(set.leader);
    await server.query(undefined, "select 1", []);
    await set.leader.freeze();
    const since = performance.now();
    const writing = server.query(undefined, "insert into items values (1)", []);
    await expect(writing).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE", canRetry: false });
    expect(performance.now() - since).toBeLessThan(5_000);
    const waiting = server.query(undefined, "insert into items values (2)", []);
    const reading = server.query<{ id: number }>(undefined, "select id from items where id = 2", [], true);
    const follower = set.followers[0] as ReplicaServer;
    await follower.promote();
    await address.pointTo(follower);
    await waiting;
    await reading;
    expect(await follower.query("select id from items")).toEqual([{ id: 2 }]);
    await set.leader.thaw();
  });

  it("once a connection shows a later timeline, none of before is used again: a thawed old leader gets no write", async () => {
    const follower = set.followers[0] as ReplicaServer;
    await follower.caughtUpWith(set.leader);
    // Two connections to the old leader, one of them in a transaction.
    let go: () => void = () => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    const transaction = server.kysely.transaction().execute(async (tx) => {
      await sql`insert into items values (7)`.execute(tx);
      await held;
      await sql`insert into items values (8)`.execute(tx);
    });
    await server.query(undefined, "select 1", []);
    await follower.promote();
    await address.pointTo(follower);
    // The idle connection still leads to the old leader; a third and a fourth at once need new ones.
    const writes = [20, 21, 22].map((id) =>
      server.query(undefined, "insert into items select $1 from pg_sleep(0.2)", [id]),
    );
    await Promise.allSettled(writes);
    go();
    await expect(transaction).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    const seen = await server.query<{ pid: number }>(undefined, "insert into items values (30) returning 1 as pid", []);
    expect(seen).toHaveLength(1);
    expect(await set.leader.query("select id from items where id in (8, 30)")).toEqual([]);
    expect(await follower.query("select id from items where id = 30")).toEqual([{ id: 30 }]);
  });
});
