/** Followers that die, hang, come back, or have to cancel what they are asked. */
import { execFile } from "node:child_process";
import { appendFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ReplicatedShard } from "../../../src/database/index.ts";
import { inUnit, openReplicated, type ReplicaServer, startTestReplicas, type TestReplicas, until } from "./support.ts";

describe("followers in trouble", () => {
  let set: TestReplicas;
  let shard: ReplicatedShard;
  const read = () => inUnit(() => shard.query<{ n: number }>("trouble", "select n from items where id = $1", [1]));
  const stateOf = (index: number) => shard.replicationStats().followers[index]?.state;
  const bothUp = () => until("both up", () => stateOf(0) === "up" && stateOf(1) === "up");

  beforeAll(async () => {
    set = await startTestReplicas({
      followers: 2,
      settings: { max_standby_streaming_delay: "100ms", hot_standby_feedback: "off" },
    });
    await set.leader.query("create table items (id int primary key, n int not null)");
    await set.leader.query("insert into items select i, 0 from generate_series(1, 1000) i");
    await Promise.all(set.followers.map((follower) => follower.caughtUpWith(set.leader)));
  });
  afterAll(() => set.stop());
  afterEach(async () => {
    // Also after a failure: the next test needs them.
    await Promise.all(set.followers.map((follower) => follower.thaw().catch(() => {})));
    await shard.close();
    await set.leader.query("update items set n = 0 where n <> 0");
  });

  it("a killed follower fails no read, is ejected, and returns when it is back", async () => {
    shard = await openReplicated(set);
    await bothUp();
    let failures = 0;
    let reads = 0;
    let isOver = false;
    const readers = Array.from({ length: 20 }, async () => {
      while (!isOver) {
        await read().catch(() => failures++);
        reads++;
      }
    });
    await until("reads", () => reads > 200);
    await set.followers[0]?.kill();
    const since = reads;
    await until("more reads", () => reads > since + 500);
    expect(stateOf(0)).toBe("down");
    expect(shard.replicationStats()).toMatchObject({ ejections: 1, readsByLeader: { "none-up": 0 } });
    await set.followers[0]?.start();
    await until("back", () => stateOf(0) === "up");
    const before = shard.replicationStats().followers[0]?.reads ?? 0;
    await until("used again", () => (shard.replicationStats().followers[0]?.reads ?? 0) > before + 50);
    isOver = true;
    await Promise.all(readers);
    expect(failures).toBe(0);
  });

  it("a follower that hangs delays no read by much: a read is sent twice, and others avoid it until it is ejected", async () => {
    // It is found to hang late, so that it is the second sending that helps.
    shard = await openReplicated(set, { settings: { lookMsMax: 5_000 } });
    await bothUp();
    for (let time = 0; time < 100; time++) await read();
    await set.followers[1]?.freeze();
    const durations: number[] = [];
    for (let time = 0; time < 100 && shard.replicationStats().hedges === 0; time++) {
      const since = performance.now();
      await read();
      durations.push(performance.now() - since);
    }
    // A request that got its answer elsewhere does not wait for the one that hangs at its end either.
    expect(Math.max(...durations)).toBeLessThan(2_500);
    for (let time = 0; time < 50; time++) await read();
    await until("ejected", () => stateOf(1) === "down");
    const stats = shard.replicationStats();
    expect(stats.hedges).toBeGreaterThan(0);
    expect(stats.hedges).toBeLessThan(10);
    expect(stats.hedgesWon).toBeGreaterThan(0);
    await set.followers[1]?.thaw();
    await until("back", () => stateOf(1) === "up");
  });

  it("reads that a follower has not answered when it is found to hang are answered elsewhere, whatever the budget", async () => {
    shard = await openReplicated(set, { settings: { hedgeShareMax: 0, lookMsMax: 500 } });
    await bothUp();
    const found: unknown[] = [];
    let isOver = false;
    const readers = Array.from({ length: 20 }, async () => {
      while (!isOver) found.push(...(await read()).result);
    });
    await until("reads", () => found.length > 100);
    await set.followers[1]?.freeze();
    await until("ejected", () => stateOf(1) === "down");
    const before = found.length;
    await until("reads go on", () => found.length > before + 100);
    isOver = true;
    await Promise.all(readers);
    expect(found.every((row) => (row as { n: number }).n === 0)).toBe(true);
    const stats = shard.replicationStats();
    expect(stats.retries).toBeGreaterThan(0);
    expect(stats).toMatchObject({ hedges: 0, ejections: 1 });
    await set.followers[1]?.thaw();
    await bothUp();
  });

  it("what a follower gave before it died is covered by the leader's position", async () => {
    shard = await openReplicated(set);
    await bothUp();
    const leaders = await shard.positionNow();
    const { result, seen } = await inUnit(async () => {
      const rows = await shard.query<{ n: number }>("trouble", "select n from items where id = $1", [1]);
      await Promise.all(set.followers.map((follower) => follower.kill()));
      return rows;
    });
    expect(result).toEqual([{ n: 0 }]);
    expect(seen.get(0)?.timeline).toBe(leaders.timeline);
    expect(seen.get(0)?.lsn).toBeGreaterThanOrEqual(leaders.lsn);
    await Promise.all(set.followers.map((follower) => follower.start()));
    await bothUp();
  });

  it("a follower that comes back behind where it had been gives no one less than they have seen", async () => {
    const follower = set.followers[0] as ReplicaServer;
    const data = join(follower.host, "data");
    await follower.shutDown();
    await promisify(execFile)("cp", ["-Rp", data, `${data}.before`]);
    await follower.start();
    // Looked at so seldom that what was known of it before outlives its restart.
    shard = await openReplicated(set, { followers: [follower], settings: { lookEveryMs: 60_000, lookMsMax: 10_000 } });
    const bySession = () => shard.query<{ n: number }>("trouble", "select n from items where id = $1", [1]);
    const written = await inUnit(() => shard.query(undefined, "update items set n = 77 where id = 1", []));
    await follower.caughtUpWith(set.leader);
    let { seen } = written;
    await until("it answers", async () => {
      await shard.look();
      const unit = await inUnit(bySession, seen);
      expect(unit.result).toEqual([{ n: 77 }]);
      seen = unit.seen;
      return shard.replicationStats().readsByFollowers > 0;
    });
    // It comes back with what it had long ago, follows, and shows nothing newer for a while.
    await follower.kill();
    await rm(data, { recursive: true });
    await rename(`${data}.before`, data);
    await appendFile(join(data, "postgresql.auto.conf"), "recovery_min_apply_delay = '1h'\n");
    await follower.start();
    await until("it follows", async () => {
      const [row] = await follower.query<{ n: number }>("select count(*)::int as n from pg_stat_wal_receiver");
      return row?.n === 1;
    });
    expect(await follower.query("select n from items where id = 1")).toEqual([{ n: 0 }]);
    for (let time = 0; time < 20; time++) expect((await inUnit(bySession, seen)).result).toEqual([{ n: 77 }]);
    const transaction = () =>
      inUnit(
        () =>
          shard.kysely
            .transaction()
            .setAccessMode("read only")
            .execute((tx) => sql<{ n: number }>`select n from items where id = 1`.execute(tx)),
        seen,
      );
    expect((await transaction()).result.rows).toEqual([{ n: 77 }]);
    expect(shard.replicationStats().readsByFollowers).toBe(1);
    await follower.delayReplay(0);
    await follower.caughtUpWith(set.leader);
  });

  it("with both gone the leader answers; when they are back they do again", async () => {
    shard = await openReplicated(set);
    await bothUp();
    await Promise.all(set.followers.map((follower) => follower.kill()));
    for (let time = 0; time < 20; time++) expect((await read()).result).toEqual([{ n: 0 }]);
    expect(shard.replicationStats().readsByLeader["none-up"]).toBeGreaterThan(10);
    await Promise.all(set.followers.map((follower) => follower.start()));
    await bothUp();
    const { readsByFollowers } = shard.replicationStats();
    await read();
    expect(shard.replicationStats().readsByFollowers).toBe(readsByFollowers + 1);
  });

  it("a read that replay cancels (40001) is answered by another server", async () => {
    const [follower] = set.followers;
    shard = await openReplicated(set, {
      followers: follower === undefined ? [] : [follower],
      settings: { hedgeShareMax: 0 },
    });
    await until("up", () => stateOf(0) === "up");
    const slow = inUnit(() =>
      shard.query<{ n: number }>(
        undefined,
        "select count(*)::int as n from items, generate_series(1, 20000) where items.n + generate_series >= 0",
        [],
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, 200));
    // Row versions that the read may still look at are removed.
    await set.leader.query("update items set n = 0");
    await set.leader.query("vacuum items");
    await set.leader.query("update items set n = 0");
    await set.leader.query("vacuum items");
    expect((await slow).result).toEqual([{ n: 20_000_000 }]);
    expect(shard.replicationStats()).toMatchObject({ retries: 1, ejections: 0, readsByLeader: { failed: 1 } });
  });
});
