/**
 * What the guard in each shard costs a write, what a second shard brings, and what asking all shards costs.
 *
 * Ways that are compared take turns in short rounds, in another order each time, and each is compared with its base of the same
 * round: on a shared machine two rates measured apart differ by a third for one and the same code. Given are the median ratio
 * with its quartiles, and absolute figures of the whole run.
 * Run: npm run bench:shards -- [--rounds 40] [--round-ms 250]
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import pg from "pg";
import { systemClock, systemRandom, uuidV7 } from "rungs";
import {
  bringGuard,
  type Database,
  migrate,
  openPlacement,
  PlacementLeases,
  PlacementWatch,
  placementMigrations,
  readRecord,
  type ShardConnection,
  shardedDatabase,
  statements,
  tableRegistry,
} from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { quantile } from "./rate.ts";

interface Tables {
  items: { owner_id: string; item_id: string; label: string; number: number };
}

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "40" }, "round-ms": { type: "string", default: "250" } },
});
const [rounds, roundMs] = [Number(values.rounds), Number(values["round-ms"])];
const clients = 8;

const define = statements<Tables>();
const insert = define<Tables["items"]>()("bench_insert", (q, p) =>
  q.insertInto("items").values({ owner_id: p.owner_id, item_id: p.item_id, label: p.label, number: p.number }),
);
const update = define<{ ownerId: string; itemId: string; label: string }>()("bench_update", (q, p) =>
  q.updateTable("items").set({ label: p.label }).where("owner_id", "=", p.ownerId).where("item_id", "=", p.itemId),
);
const byOwner = define<{ ownerId: string }>()("bench_by_owner", (q, p) =>
  q.selectFrom("items").select(["item_id", "label"]).where("owner_id", "=", p.ownerId).limit(1),
);
const newest = define<{ limit: number; offset: number }>()("bench_newest", (q, p) =>
  q.selectFrom("items").select(["item_id", "label"]).orderBy("item_id", "desc").limit(p.limit).offset(p.offset),
);
const registry = tableRegistry([{ name: "bench", tables: { items: { shardBy: "owner_id" } } }]);
const label = "x".repeat(100);

interface System {
  readonly db: Database<Tables>;
  readonly shards: readonly [ShardConnection, ...ShardConnection[]];
  readonly owners: string[];
  /** The first item of each owner. */
  readonly items: string[];
  /** Of the first shard. */
  readonly url: string;
}

const servers: TestPostgres[] = [];
const closing: (() => Promise<unknown>)[] = [];

/** An app's database over the servers; without guard, routing is as before there were guards and leases. */
async function open(on: readonly TestPostgres[], options: { readonly guarded: boolean }): Promise<System> {
  const addresses = await Promise.all(on.map((server) => server.createDatabase()));
  const shards = addresses.map(
    (url, index): ShardConnection =>
      openPostgres({ name: `shard ${index}`, address: { url }, pool: { connectionsMax: clients } }),
  ) as [ShardConnection, ...ShardConnection[]];
  for (const [index, shard] of shards.entries()) {
    const { kysely: db, name } = shard;
    for (const target of index === 0 ? (["home", "shards"] as const) : (["shards"] as const)) {
      await migrate({ db, name, service: "rungs", target, migrations: placementMigrations });
    }
    const columns =
      "owner_id uuid, item_id uuid, label text not null, number int not null, primary key (owner_id, item_id)";
    await shard.query(undefined, `create table items (${columns}); create index on items (item_id)`, []);
  }
  const placement = await openPlacement(shards[0].kysely, shards, { strategy: "hash" });
  const watch = new PlacementWatch({
    leases: new PlacementLeases({ placement, clock: systemClock }),
    clock: systemClock,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    async read(shard) {
      const record = await readRecord(shards[shard] as ShardConnection);
      return record?.ownership === undefined ? undefined : { epoch: record.epoch, ownership: record.ownership };
    },
  });
  if (options.guarded) {
    for (const [index, shard] of shards.entries()) await bringGuard(shard, { tables: registry, isHome: index === 0 });
    await watch.start();
  }
  const source = options.guarded && shards.length > 1 ? { source: watch } : {};
  const db = shardedDatabase<Tables>({ shards, placement, tables: registry, guard: false, ...source });
  const owners = Array.from({ length: 500 }, () => uuidV7(systemClock, systemRandom));
  const items: string[] = [];
  for (const owner of owners) {
    const row = rowOf(owner);
    items.push(row.item_id);
    await db.for(owner).run(insert, row);
  }
  closing.push(async () => {
    await watch.stop();
    await db.close();
  });
  return { db, shards, owners, items, url: addresses[0] as string };
}

function rowOf(owner: string): Tables["items"] {
  return { owner_id: owner, item_id: uuidV7(systemClock, systemRandom), label, number: 1 };
}

interface Sample {
  readonly rate: number;
  readonly timesMs: number[];
}

/** Does the work over and over with all clients for one round. */
async function measure(work: (index: number) => Promise<unknown>): Promise<Sample> {
  const timesMs: number[] = [];
  const since = performance.now();
  const until = since + roundMs;
  let count = 0;
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (performance.now() < until) {
        const began = performance.now();
        await work(count++);
        timesMs.push(performance.now() - began);
      }
    }),
  );
  return { rate: (timesMs.length / (performance.now() - since)) * 1_000, timesMs };
}

/** Lets the ways take turns and prints each beside the first. */
async function compare(
  title: string,
  ways: Readonly<Record<string, (index: number) => Promise<unknown>>>,
): Promise<void> {
  const names = Object.keys(ways);
  const samples = new Map<string, Sample[]>(names.map((name) => [name, []]));
  for (let round = -2; round < rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round + 2) % names.length] as string;
      const sample = await measure(ways[name] as (index: number) => Promise<unknown>);
      // The first rounds warm up.
      if (round >= 0) samples.get(name)?.push(sample);
    }
  }
  console.log(`\n${title}`);
  const base = samples.get(names[0] as string) as Sample[];
  for (const [name, found] of samples) {
    const ratios = found.map((sample, round) => sample.rate / (base[round] as Sample).rate);
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(3));
    const times = found.flatMap(({ timesMs }) => timesMs);
    const rate = quantile(
      found.map((sample) => sample.rate),
      0.5,
    );
    console.log(
      `${name.padEnd(44)} ${Math.round(rate).toLocaleString("en-US").padStart(7)}/s, p50 ${quantile(times, 0.5).toFixed(2)} ms, ` +
        `p99 ${quantile(times, 0.99).toFixed(2)} ms; ${middle} of the first (quartiles ${low} to ${high})`,
    );
  }
}

/**
 * CPU time of the server's process for one statement, which other load disturbs less than time on the clock does: the same
 * statement on both systems in turns, each by a connection of its own.
 */
async function compareCpu(
  title: string,
  text: string,
  of: Readonly<Record<string, System>>,
  valuesOf: (system: System, index: number) => readonly unknown[],
): Promise<void> {
  const names = Object.keys(of);
  const opened = await Promise.all(
    names.map(async (name) => {
      const system = of[name] as System;
      const client = new pg.Client({ connectionString: system.url });
      await client.connect();
      const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
      return { name, system, client, pid: (rows[0] as { pid: number }).pid, cpuUs: [] as number[] };
    }),
  );
  const statementsEach = 200;
  for (let round = -3; round < rounds * 2; round++) {
    for (let turn = 0; turn < opened.length; turn++) {
      const { system, client, pid, cpuUs } = opened[(turn + round + 3) % opened.length] as (typeof opened)[number];
      const before = await cpuNsOf(pid);
      for (let index = 0; index < statementsEach; index++) {
        await client.query({ name: "bench", text, values: [...valuesOf(system, index)] });
      }
      if (round >= 0) cpuUs.push((await cpuNsOf(pid)) - before);
    }
  }
  console.log(`\n${title}: CPU time of the server's process`);
  const base = (opened[0] as (typeof opened)[number]).cpuUs;
  for (const { name, client, cpuUs } of opened) {
    await client.end();
    const ratios = cpuUs.map((each, round) => each / (base[round] as number));
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(3));
    console.log(
      `${name.padEnd(44)} ${(quantile(cpuUs, 0.5) / statementsEach / 1_000).toFixed(1).padStart(7)} us a statement; ` +
        `${middle} of the first (quartiles ${low} to ${high})`,
    );
  }
}

/** Time a process has run, in ns (Linux: Documentation/scheduler/sched-stats.rst). */
async function cpuNsOf(pid: number): Promise<number> {
  return Number((await readFile(`/proc/${pid}/schedstat`, "utf8")).split(" ")[0]);
}

const ownerOf = ({ owners }: System, index: number) => owners[index % owners.length] as string;
const inserting = (system: System) => (index: number) => {
  const owner = ownerOf(system, index);
  return system.db.for(owner).run(insert, rowOf(owner));
};
const updating = (system: System) => (index: number) =>
  system.db.for(ownerOf(system, index)).run(update, {
    ownerId: ownerOf(system, index),
    itemId: system.items[index % system.items.length] as string,
    label: label + (index % 9),
  });
const reading = (system: System) => (index: number) =>
  system.db.for(ownerOf(system, index)).run(byOwner, { ownerId: ownerOf(system, index) });

/** CPU time that each shard's server spends on the app's writes, for one of them: what bounds how many the app can do. */
async function serverCpuOf(system: System): Promise<number[]> {
  const writes = 4_000;
  const insertOne = inserting(system);
  const perShard = await Promise.all(
    system.shards.map((shard) =>
      shard.query<{ pid: number }>(
        undefined,
        "select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend'",
        [],
      ),
    ),
  );
  const totals = () =>
    Promise.all(
      perShard.map(async (rows) => {
        const times = await Promise.all(rows.map(({ pid }) => cpuNsOf(pid)));
        return times.reduce((sum, each) => sum + each, 0);
      }),
    );
  const before = await totals();
  for (let index = 0; index < writes; index += clients) {
    await Promise.all(Array.from({ length: clients }, (_, client) => insertOne(index + client)));
  }
  const after = await totals();
  return after.map((each, shard) => (each - (before[shard] as number)) / writes / 1_000);
}

/** Work of the server alone: many rows by one statement. */
const bulk = (system: System) => () =>
  system.shards[0].query(
    undefined,
    "insert into items select $1::uuid, gen_random_uuid(), $2, 1 from generate_series(1, 2000)",
    [system.owners[0], label],
  );

try {
  for (let index = 0; index < 2; index++) servers.push(await startTestPostgres());
  const [first, second] = servers as [TestPostgres, TestPostgres];
  console.log(
    `${rounds} rounds of ${roundMs} ms, ${clients} clients in one process, PostgreSQL ${first.version} without fsync, Node ${process.version}`,
  );
  const plain = await open([first], { guarded: false });
  const guarded = await open([first], { guarded: true });
  await compare("The guard, one shard: one-row inserts", {
    "without guard": inserting(plain),
    "with guard": inserting(guarded),
  });
  await compare("The guard, one shard: one-row updates", {
    "without guard": updating(plain),
    "with guard": updating(guarded),
  });
  await compare("The guard, one shard: 2,000 rows a statement", {
    "without guard": bulk(plain),
    "with guard": bulk(guarded),
  });
  const both = { "without guard": plain, "with guard": guarded };
  const insertText = "insert into items values ($1::uuid, gen_random_uuid(), $2, 1)";
  await compareCpu("The guard, one shard: one-row inserts", insertText, both, (system, index) => [
    ownerOf(system, index),
    label,
  ]);
  const updateText = "update items set label = $3 where owner_id = $1 and item_id = $2";
  await compareCpu("The guard, one shard: one-row updates", updateText, both, (system, index) => [
    ownerOf(system, index),
    system.items[index % system.items.length],
    label + index,
  ]);
  const two = await open([first, second], { guarded: true });
  const plainTwo = await open([first, second], { guarded: false });
  await compare("Routing: one row by its key on one of two shards", {
    "by a fixed placement": reading(plainTwo),
    "by leases": reading(two),
  });
  await compare("Inserts on one and on two shards, a server each", {
    "one shard, with guard": inserting(guarded),
    "two shards, with guard and leases": inserting(two),
  });
  for (const [name, system] of Object.entries({ "one shard": guarded, "two shards": two })) {
    const us = (await serverCpuOf(system)).map((each) => `${each.toFixed(1)} us`);
    console.log(`${name.padEnd(44)} CPU time of its servers for one write of the app: ${us.join(" and ")}`);
  }
  const page = (system: System) => () =>
    system.db.everywhere<{ item_id: string }>((shard, window) => shard.run(newest, window), {
      orderBy: [["item_id", "desc"]],
      limit: 20,
    });
  await compare("The newest 20 of all, by db.everywhere", { "one shard": page(guarded), "two shards": page(two) });
} finally {
  for (const close of closing) await close();
  for (const server of servers) await server.stop();
}
