/**
 * What followers cost a query and take off the leader, in one run.
 *
 * 1. *Routing*: one row by its key through bare pg, the database tier with one server, and a replicated shard, outside of a unit of
 *    work and in units of five reads, answered by the leader and by the follower. The ways take turns in short rounds, in another order each time, and are
 *    compared with bare pg on the same server in the same round.
 * 2. *Load*: requests of 3 reads, one in ten writes, sessions with read-your-writes, with 0, 1 and 2 followers: the share of
 *    reads off the leader and the leader's CPU time (user and system, of all its processes, from /proc) per 1,000 requests.
 * 3. *Fan-out of floors*: the same with every commit raising the floor of the process, the dearest setting there is.
 *
 * Run: node scripts/run.mjs benchmarks/replication.ts [--rounds N] [--seconds N]
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { type ReplicaServer, startTestReplicas } from "@rungs/contract/test-replicas";
import pg from "pg";
import { inReadContext, noPositions, ReadContext, type ReplicatedShard, replicatedShard } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { measure, quantile, type Sample } from "./rate.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "60" }, seconds: { type: "string", default: "6" } },
});
const rounds = Number(values.rounds);
const loadMs = Number(values.seconds) * 1_000;
const roundMs = 100;
const connections = 10;
const rowsOfRequest = 5;
const people = 1_000;
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const random = { next: Math.random, bytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)) };
const text = "select user_id, username, bio, visits from users where user_id = $1";
const idAt = (index: number) => `0190c7a0-0000-7000-8000-${(index % people).toString(16).padStart(12, "0")}`;

const set = await startTestReplicas({ followers: 2 });
const [follower] = set.followers as [ReplicaServer, ReplicaServer];
await set.leader.query(
  "create table users (user_id uuid primary key, username text not null, bio text not null, visits int not null default 0)",
);
await set.leader.query(`insert into users select ('0190c7a0-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'user' || i,
  repeat('x', 100) from generate_series(0, ${people - 1}) i`);
await set.leader.query("vacuum analyze users");
await Promise.all(set.followers.map((each) => each.caughtUpWith(set.leader)));

await measureRouting();
for (const count of [0, 1, 2]) await measureLoad(count, false);
for (const count of [1, 2]) await measureLoad(count, true);
await set.stop();

function open(followers: number): ReplicatedShard {
  const pool = { connectionsMax: connections };
  return replicatedShard({
    shard: 0,
    leader: openPostgres({
      name: "shard 0",
      address: { url: set.leader.connectionString },
      pool: { ...pool, leader: {} },
    }),
    followers: set.followers
      .slice(0, followers)
      .map((server) => openPostgres({ name: server.name, address: { url: server.connectionString }, pool })),
    clock,
    random,
  });
}

async function measureRouting(): Promise<void> {
  const onLeader = new pg.Pool({ connectionString: set.leader.connectionString, max: connections });
  const onFollower = new pg.Pool({ connectionString: follower.connectionString, max: connections });
  const single = openPostgres({
    name: "single",
    address: { url: set.leader.connectionString },
    pool: { connectionsMax: connections },
  });
  const alone = open(0);
  const replicated = open(1);
  await replicated.look();
  await replicated.look();
  const inUnit = (work: () => Promise<void>) => inReadContext(new ReadContext(), work);
  const ways: Record<
    string,
    { readonly base: string; readonly query: (id: string) => Promise<unknown>; readonly isUnit?: true }
  > = {
    "pg, leader": {
      base: "pg, leader",
      query: (id) => onLeader.query({ name: "bench_user", text, values: [id] }),
    },
    "pg, follower": {
      base: "pg, follower",
      query: (id) => onFollower.query({ name: "bench_user", text, values: [id] }),
    },
    "one server": { base: "pg, leader", query: (id) => single.query("bench_user", text, [id]) },
    "replicated, outside of a unit": { base: "pg, leader", query: (id) => replicated.query("bench_user", text, [id]) },
    "replicated, unit, no follower": {
      base: "pg, leader",
      query: (id) => alone.query("bench_user", text, [id]),
      isUnit: true,
    },
    "replicated, unit, one follower": {
      base: "pg, follower",
      query: (id) => replicated.query("bench_user", text, [id]),
      isUnit: true,
    },
  };
  const names = Object.keys(ways);
  const measured = new Map<string, Sample[]>(names.map((name) => [name, []]));
  for (let round = -5; round < rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round + 5) % names.length] as string;
      const { query, isUnit } = ways[name] as (typeof ways)[string];
      // A request asks for several rows; where it is a unit of work, that is begun once for all of them.
      const request = async (index: number) => {
        for (let row = 0; row < rowsOfRequest; row++) await query(idAt(index * rowsOfRequest + row));
      };
      const work = isUnit === true ? (index: number) => inUnit(() => request(index)) : request;
      const sample = await measure(work, { callers: connections, forMs: roundMs });
      // The first rounds warm up.
      if (round >= 0) measured.get(name)?.push(sample);
    }
  }
  console.log(
    `Routing: ${rounds} rounds of ${roundMs} ms, ${connections} connections, PostgreSQL ${set.version}, Node ${process.version}`,
  );
  for (const [name, samples] of measured) {
    const base = measured.get((ways[name] as { base: string }).base) as Sample[];
    const ratios = samples.map((sample, round) => sample.rate / (base[round] as Sample).rate);
    const cpuOf = (all: readonly Sample[]) =>
      quantile(
        all.map(({ cpuUs }) => cpuUs / rowsOfRequest),
        0.5,
      );
    const cpu = cpuOf(samples);
    const cpuOfBase = cpuOf(base);
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(3));
    const more = (((cpu - cpuOfBase) / cpuOfBase) * 100).toFixed(1);
    console.log(
      `${name.padEnd(32)} ${middle} of bare pg there (quartiles ${low} to ${high}), ${cpu.toFixed(1)} us CPU a query (${more} %)`,
    );
  }
  const { readsByFollowers, readsByLeader } = replicated.replicationStats();
  console.log(`Reads of the replicated shard: ${readsByFollowers} by the follower, ${JSON.stringify(readsByLeader)}`);
  await Promise.all([onLeader.end(), onFollower.end(), single.close(), alone.close(), replicated.close()]);
}

/** Sessions that send a request each 10 ms or so: fewer than saturate the machine, so that the leader's CPU is what they cost. */
async function measureLoad(followers: number, raisesFloor: boolean): Promise<void> {
  const shard = open(followers);
  await shard.look();
  await shard.look();
  const sessions = 20;
  const before = { cpuMs: await cpuMsOf(set.leader), stats: shard.replicationStats() };
  const until = performance.now() + loadMs;
  let requests = 0;
  const durations: number[] = [];
  await Promise.all(
    Array.from({ length: sessions }, async (_, session) => {
      let seen = noPositions;
      for (let index = session; performance.now() < until; index++) {
        const context = new ReadContext(seen);
        const since = performance.now();
        await inReadContext(context, async () => {
          if (index % 10 === 0) {
            await shard.query("bench_visit", "update users set visits = visits + 1 where user_id = $1", [
              idAt(index * 7),
            ]);
            if (raisesFloor) shard.raiseFloor(await shard.positionNow());
          }
          for (let time = 0; time < 3; time++) await shard.query("bench_user", text, [idAt(index * 7 + time)]);
        });
        seen = followers === 0 ? noPositions : await context.settle();
        durations.push(performance.now() - since);
        requests++;
        await new Promise((resolve) => setTimeout(resolve, 5 + 10 * Math.random()));
      }
    }),
  );
  const cpuMs = (await cpuMsOf(set.leader)) - before.cpuMs;
  const stats = shard.replicationStats();
  const byLeader = Object.values(stats.readsByLeader).reduce((sum, count) => sum + count, 0);
  const reads = byLeader + stats.readsByFollowers;
  const reasons = Object.entries(stats.readsByLeader).filter(([, count]) => count > 0);
  console.log(
    `${followers} followers${raisesFloor ? ", each commit raises the floor" : ""}: ${requests} requests, ` +
      `${((stats.readsByFollowers / reads) * 100).toFixed(1)} % of ${reads} reads off the leader, ` +
      `leader CPU ${((cpuMs / requests) * 1_000).toFixed(0)} ms per 1,000 requests, ` +
      `p50 ${quantile(durations, 0.5).toFixed(1)} ms, p99 ${quantile(durations, 0.99).toFixed(1)} ms, ` +
      `${stats.waits} waits of ${(stats.waitedMs / Math.max(stats.waits, 1)).toFixed(1)} ms, ` +
      `${stats.hedges} hedges; leader's reads: ${reasons.map(([reason, count]) => `${reason} ${count}`).join(", ") || "none"}`,
  );
  await shard.close();
}

/** User and system time of the server's processes and of those that ended. */
async function cpuMsOf(server: ReplicaServer): Promise<number> {
  let ticks = 0;
  for (const [index, pid] of (await server.processes()).entries()) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
    // Of the postmaster's children that ended.
    if (index === 0) ticks += Number(fields[13] ?? 0) + Number(fields[14] ?? 0);
  }
  // The kernel's clock for these figures ticks 100 times a second on Linux.
  return ticks * 10;
}
