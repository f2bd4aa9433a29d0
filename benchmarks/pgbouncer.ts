/**
 * Many web processes and their pools at one PostgreSQL, directly and through PgBouncer in transaction mode, in one run.
 *
 * Each process has as many callers as connections; a request is three reads, one in ten writes besides. *Busy*: callers pause, so that all
 * connections are used now and then and the machine is not full. *Full*: they do not pause. The ways take turns; "direct, unnamed" tells
 * what PgBouncer costs from what statements without a name cost, which it needs before version 1.21.
 *
 * Run: node scripts/run.mjs benchmarks/pgbouncer.ts [--processes 12] [--connections 20] [--pool 20] [--rounds N] [--seconds N]
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startTestPgbouncer } from "@rungs/contract/test-pgbouncer";
import { startTestReplicas } from "@rungs/contract/test-replicas";
import type { Order, Outcome } from "./pgbouncer/callers.ts";
import { quantile } from "./rate.ts";

const { values } = parseArgs({
  options: {
    processes: { type: "string", default: "12" },
    connections: { type: "string", default: "20" },
    pool: { type: "string", default: "20" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
  },
});
const [processes, connections, poolSize, rounds, seconds] = (
  ["processes", "connections", "pool", "rounds", "seconds"] as const
).map((name) => Number(values[name])) as [number, number, number, number, number];

const settings = { max_connections: String(processes * connections + 40), shared_buffers: "128MB" };
const { leader, stop, version } = await startTestReplicas({ followers: 0, settings });
await leader.query(
  "create table users (user_id uuid primary key, username text not null, bio text not null, visits int not null default 0)",
);
await leader.query(`insert into users select ('0190c7a0-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'user' || i,
  repeat('x', 100) from generate_series(0, 999) i`);
await leader.query("vacuum analyze users");
// On a busy machine the logins of all callers take a while.
const patience = { query_wait_timeout: "120" };
const bouncer = await startTestPgbouncer({ host: leader.host, port: leader.port, poolSize, settings: patience });

const ways = {
  direct: { url: leader.connectionString, isPreparing: true },
  "direct, unnamed": { url: leader.connectionString, isPreparing: false },
  PgBouncer: { url: bouncer.urlOf(leader.database), isPreparing: false },
};
type Way = keyof typeof ways;

interface Round {
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failures: number;
  readonly connections: number;
  readonly megabytes: number;
  /** CPU time for one request: of the server, of PgBouncer, and of the callers. */
  readonly serverUs: number;
  readonly bouncerUs: number;
  readonly callersUs: number;
}

const children = Array.from({ length: processes }, () =>
  fork(fileURLToPath(new URL("./pgbouncer/callers.ts", import.meta.url))),
);
console.log(
  `${processes} processes x ${connections} connections, PostgreSQL ${version}, PgBouncer ${(await bouncer.version()).join(".")} with ${poolSize}, ` +
    `${rounds} rounds of ${seconds} s, Node ${process.version}`,
);
for (const [load, pauseMs] of [
  ["busy", 60],
  ["full", 0],
] as const) {
  const measured: Record<Way, Round[]> = { direct: [], "direct, unnamed": [], PgBouncer: [] };
  for (let round = -1; round < rounds; round++) {
    for (const way of Object.keys(ways) as Way[]) {
      const result = await run(way, pauseMs);
      // The first round warms up.
      if (round >= 0) measured[way].push(result);
    }
  }
  for (const way of Object.keys(ways) as Way[]) show(load, way, measured);
}
for (const child of children) child.kill();
await bouncer.stop();
await stop();

/** One round; the pools are new each time. */
async function run(way: Way, pauseMs: number): Promise<Round> {
  await Promise.all(children.map((child) => ask(child, { ...ways[way], connections })));
  const before = await cpuMs();
  const order: Order = { callers: connections, pauseMs, forMs: seconds * 1_000 };
  const asked = children.map((child) => ask<Outcome>(child, order));
  await new Promise((resolve) => setTimeout(resolve, seconds * 600));
  const server = await serverUse();
  const outcomes = await Promise.all(asked);
  await Promise.all(children.map((child) => ask(child, "close")));
  // Of the server's processes that end, the first one knows what they took.
  await new Promise((resolve) => setTimeout(resolve, 200));
  const after = await cpuMs();
  const durations = outcomes.flatMap(({ durationsMs }) => durationsMs);
  return {
    rate: durations.length / seconds,
    p50Ms: quantile(durations, 0.5),
    p99Ms: quantile(durations, 0.99),
    failures: outcomes.reduce((sum, { failures }) => sum + failures, 0),
    serverUs: ((after.server - before.server) * 1_000) / durations.length,
    bouncerUs: ((after.bouncer - before.bouncer) * 1_000) / durations.length,
    callersUs: ((after.callers - before.callers) * 1_000) / durations.length,
    ...server,
  };
}

async function ask<R>(child: ChildProcess, order: Order): Promise<R> {
  child.send(order);
  const [answer] = (await once(child, "message")) as [R];
  return answer;
}

/** CPU time so far, user and system, of all processes of each part. */
async function cpuMs(): Promise<{ readonly server: number; readonly bouncer: number; readonly callers: number }> {
  const of = async (pids: readonly number[], withEnded = false) => {
    let ticks = 0;
    for (const [index, pid] of pids.entries()) {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      const fields = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .map(Number);
      ticks += (fields[11] ?? 0) + (fields[12] ?? 0);
      if (withEnded && index === 0) ticks += (fields[13] ?? 0) + (fields[14] ?? 0);
    }
    // The kernel's clock for these figures ticks 100 times a second on Linux.
    return ticks * 10;
  };
  return {
    server: await of(await leader.processes(), true),
    bouncer: await of([await bouncer.pid()]),
    callers: await of(children.map(({ pid = 0 }) => pid)),
  };
}

/** Client connections of the server, and the memory of all its processes: what they share is counted once. */
async function serverUse(): Promise<{ readonly connections: number; readonly megabytes: number }> {
  const sql =
    "select count(*)::int as count from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
  const [row] = await leader.query<{ count: number }>(sql);
  let kilobytes = 0;
  for (const pid of await leader.processes()) {
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => "");
    kilobytes += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
  }
  return { connections: row?.count ?? 0, megabytes: kilobytes / 1_024 };
}

function show(load: string, way: Way, measured: Readonly<Record<Way, readonly Round[]>>): void {
  const middle = (name: keyof Round) =>
    quantile(
      measured[way].map((round) => round[name]),
      0.5,
    );
  const ratios = measured[way].map(({ rate }, round) => rate / (measured.direct[round] as Round).rate);
  const [low, half, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(2));
  console.log(
    `${load}, ${way.padEnd(16)} ${middle("rate").toFixed(0)} requests a second (${half} of direct, ${low} to ${high}), ` +
      `p50 ${middle("p50Ms").toFixed(1)} ms, p99 ${middle("p99Ms").toFixed(1)} ms, ` +
      `CPU a request ${middle("serverUs").toFixed(0)} us of the server, ${middle("bouncerUs").toFixed(0)} us of PgBouncer, ${middle("callersUs").toFixed(0)} us of the callers, ` +
      `${middle("connections")} connections, ${middle("megabytes").toFixed(0)} MB of the server, ${middle("failures")} failures`,
  );
}
