/**
 * Read your writes and monotonic reads under lag, by a checker that keeps what each session wrote and saw: many sessions at once
 * over followers that lag differently, one with paused replay, one 5 s behind.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { noPositions, type Positions, type ReplicatedShard } from "../../../src/database/index.ts";
import { UnavailableError } from "../../../src/kernel/errors.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import {
  inUnit,
  movingAddress,
  openReplicated,
  type ReplicaServer,
  startTestReplicas,
  type TestReplicas,
  testSeed,
  until,
} from "./support.ts";

const sessions = 40;
const runMs = 6_000;

interface Findings {
  reads: number;
  staleOwn: number;
  backwards: number;
  writes: number;
  failedUnits: number;
}

describe("session guarantees under lag", () => {
  let set: TestReplicas;
  const shards: ReplicatedShard[] = [];
  beforeAll(async () => {
    set = await startTestReplicas({ followers: 3 });
    await set.leader.query("create table counters (id int primary key, n int not null)");
    await set.leader.query(`insert into counters select i, 0 from generate_series(0, ${sessions - 1}) i`);
    // Two processes with pools of their own.
    for (let process = 0; process < 2; process++) {
      shards.push(await openReplicated(set, { settings: { lagMsMax: 30_000 }, pool: { connectionsMax: 10 } }));
    }
  });
  afterAll(async () => {
    await Promise.all(shards.map((shard) => shard.close()));
    await set.stop();
  });

  it("no session misses what it wrote, and none goes back in time", async () => {
    const seed = testSeed("guarantees");
    const random = seededRandom(seed);
    const findings: Findings = { reads: 0, staleOwn: 0, backwards: 0, writes: 0, failedUnits: 0 };
    const endsAt = performance.now() + runMs;
    const isOver = () => performance.now() > endsAt;
    const [paused, late] = set.followers;
    const trouble = async () => {
      await late?.delayReplay(5_000);
      while (!isOver()) {
        await paused?.pauseReplay();
        await new Promise((resolve) => setTimeout(resolve, 300 + 400 * random.next()));
        await paused?.resumeReplay();
        await new Promise((resolve) => setTimeout(resolve, 200 * random.next()));
      }
      await late?.delayReplay(0);
    };
    await Promise.all([
      trouble(),
      ...Array.from({ length: sessions }, (_, own) =>
        session({ own, shards, random: seededRandom(seed + own + 1), isOver, findings }),
      ),
    ]);
    const stats = shards.map((shard) => shard.replicationStats());
    const byFollowers = stats.reduce((sum, { readsByFollowers }) => sum + readsByFollowers, 0);
    console.info(JSON.stringify({ ...findings, byFollowers, stats: stats[0]?.readsByLeader }));
    expect(findings).toMatchObject({ staleOwn: 0, backwards: 0 });
    expect(findings.writes).toBeGreaterThan(5);
    // The guarantee would be cheap if followers answered nothing.
    expect(byFollowers / findings.reads).toBeGreaterThan(0.3);
    // Each of them has answered: also the late one, to those who have seen nothing newer.
    const reads = set.followers.map((_, index) =>
      stats.reduce((sum, { followers }) => sum + (followers[index]?.reads ?? 0), 0),
    );
    for (const count of reads) expect(count).toBeGreaterThan(0);
  });

  it("the checker sees a stale read when nobody carries positions", async () => {
    const findings: Findings = { reads: 0, staleOwn: 0, backwards: 0, writes: 0, failedUnits: 0 };
    await Promise.all(set.followers.map((follower) => follower.pauseReplay()));
    const endsAt = performance.now() + 1_000;
    const isOver = () => performance.now() > endsAt;
    const options = { shards, random: seededRandom(1), isOver, findings, isForgetful: true };
    await session({ ...options, own: 0 });
    await Promise.all(set.followers.map((follower) => follower.resumeReplay()));
    expect(findings.staleOwn).toBeGreaterThan(0);
  });
});

describe("session guarantees through a fail-over", () => {
  it("hold for what was acknowledged, when the leader dies and the follower that has most takes its place", async () => {
    const set = await startTestReplicas({ followers: 3 });
    await set.leader.query("create table counters (id int primary key, n int not null)");
    await set.leader.query(`insert into counters select i, 0 from generate_series(0, ${sessions - 1}) i`);
    await set.leader.query("alter system set synchronous_standby_names = 'ANY 1 (*)'");
    await set.leader.query("select pg_reload_conf()");
    const address = await movingAddress(set.leader);
    const shards = [
      await openReplicated(set, { leaderUrl: address.url }),
      await openReplicated(set, { leaderUrl: address.url }),
    ];
    const seed = testSeed("guarantees through a fail-over");
    const findings: Findings = { reads: 0, staleOwn: 0, backwards: 0, writes: 0, failedUnits: 0 };
    let endsAt = Number.POSITIVE_INFINITY;
    const received = async (server: ReplicaServer) => {
      const [row] = await server.query<{ n: string }>("select (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::text as n");
      return { server, lsn: BigInt(row?.n ?? 0) };
    };
    const failOver = async () => {
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      await set.leader.kill();
      const found = await Promise.all(set.followers.map(received));
      const [chosen, ...others] = found.toSorted((a, b) => (a.lsn < b.lsn ? 1 : -1)).map(({ server }) => server);
      if (chosen === undefined) throw new Error("There are three.");
      await Promise.all(others.map((other) => other.follow(chosen)));
      await chosen.promote();
      await address.pointTo(chosen);
      await until("both processes know the new leader", () =>
        shards.every((shard) => shard.replicationStats().timeline === 2),
      );
      endsAt = performance.now() + 2_000;
    };
    await Promise.all([
      failOver(),
      ...Array.from({ length: sessions }, (_, own) =>
        session({ own, shards, random: seededRandom(seed + own), isOver: () => performance.now() > endsAt, findings }),
      ),
    ]);
    const stats = shards.map((shard) => shard.replicationStats());
    console.info(JSON.stringify({ ...findings, stats: stats[0] }));
    expect(findings).toMatchObject({ staleOwn: 0, backwards: 0 });
    expect(findings.writes).toBeGreaterThan(5);
    for (const { timeline, possibleLosses } of stats)
      expect({ timeline, possibleLosses }).toEqual({ timeline: 2, possibleLosses: 0 });
    await Promise.all(shards.map((shard) => shard.close()));
    await address.close();
    await set.stop();
  });
});

/** One session: units of work one after another, on either process, that write its own counter and read its own and others'. */
async function session(options: {
  readonly own: number;
  readonly shards: readonly ReplicatedShard[];
  readonly random: ReturnType<typeof seededRandom>;
  readonly isOver: () => boolean;
  readonly findings: Findings;
  readonly isForgetful?: boolean;
}): Promise<void> {
  const { own, shards, random, findings } = options;
  let seen: Positions = noPositions;
  // Outside of a unit the leader answers.
  const [start] = await (shards[0] as ReplicatedShard).query<{ n: number }>(
    undefined,
    "select n from counters where id = $1",
    [own],
  );
  let written = start?.n ?? 0;
  const newest = new Map<number, number>();
  while (!options.isOver()) {
    const shard = shards[Math.floor(random.next() * shards.length)] as ReplicatedShard;
    let mine = written;
    const shown = new Map(newest);
    const read = async (id: number) => {
      const [row] = await shard.query<{ n: number }>("counter", "select n from counters where id = $1", [id]);
      const n = row?.n ?? -1;
      findings.reads++;
      if (id === own && n < mine) findings.staleOwn++;
      if (n < (shown.get(id) ?? 0)) findings.backwards++;
      shown.set(id, Math.max(n, shown.get(id) ?? 0));
    };
    try {
      const unit = await inUnit(async () => {
        if (random.next() < 0.1) {
          await shard.query(undefined, "update counters set n = n + 1 where id = $1", [own]);
          mine++;
          findings.writes++;
        }
        for (let time = 0; time < 3; time++) {
          await read(random.next() < 0.4 ? own : Math.floor(random.next() * sessions));
        }
      }, seen);
      if (options.isForgetful !== true) seen = unit.seen;
      // Only now is it answered: what cannot be settled is not shown.
      written = mine;
      for (const [id, n] of shown) newest.set(id, n);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      findings.failedUnits++;
    }
    await new Promise((resolve) => setTimeout(resolve, 20 * random.next()));
  }
}
