/**
 * What the database tier costs over bare pg: one row by its key, four ways in one run.
 *
 * The ways take turns in short rounds, in another order each time, and each is compared with bare pg of the same round:
 * on a shared machine two rates measured apart differ by a third for one and the same code. Given are the median ratio of
 * throughput with its quartiles, and this process's CPU time a query, which other load disturbs less.
 * Run: node scripts/run.mjs benchmarks/database-overhead.ts
 */
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { type Generated, sql } from "kysely";
import pg from "pg";
import { initialPlacement, shardedDatabase, statements, tableRegistry } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { measure, quantile, type Sample } from "./rate.ts";

interface Tables {
  users: { user_id: string; username: string; bio: string; visits: Generated<number> };
}

const rounds = 60;
const roundMs = 100;
const connections = 10;
const people = 1_000;

const define = statements<Tables>();
const byKey = define<{ userId: string }>()("bench_user_by_key", (q, p) =>
  q.selectFrom("users").select(["user_id", "username", "bio", "visits"]).where("user_id", "=", p.userId),
);
const idAt = (index: number) => `0190c7a0-0000-7000-8000-${(index % people).toString(16).padStart(12, "0")}`;

const server = await startTestPostgres();
const url = server.connectionString;
const shard = openPostgres({ name: "shard 0", address: { url }, pool: { connectionsMax: connections } });
await sql`create table users (user_id uuid primary key, username text not null, bio text not null, visits int not null default 0)`.execute(
  shard.kysely,
);
await sql`insert into users select ('0190c7a0-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'user' || i, repeat('x', 100)
  from generate_series(0, ${people - 1}) i`.execute(shard.kysely);
const db = shardedDatabase<Tables>({
  shards: [shard],
  placement: initialPlacement({ strategy: "hash", shards: 1 }),
  tables: tableRegistry([{ name: "bench", tables: { users: { shardBy: "user_id" } } }]),
  guard: false,
});
const pool = new pg.Pool({ connectionString: url, max: connections });
const text = byKey.compiled.sql;

const ways: Record<string, (id: string) => Promise<unknown>> = {
  "pg pool.query, named": (id) => pool.query({ name: byKey.name, text, values: [id] }),
  "pg pool.query, unnamed": (id) => pool.query({ text, values: [id] }),
  "db.for(id).run(statement)": (id) => db.for(id).run(byKey, { userId: id }),
  "db.for(id), Kysely ad hoc": (id) =>
    db.for(id).selectFrom("users").select(["user_id", "username", "bio", "visits"]).where("user_id", "=", id).execute(),
};

const bare = "pg pool.query, named";
const names = Object.keys(ways);
const measured = new Map<string, Sample[]>(names.map((name) => [name, []]));
for (let round = -5; round < rounds; round++) {
  for (let turn = 0; turn < names.length; turn++) {
    const name = names[(turn + round + 5) % names.length] as string;
    const query = ways[name] as (id: string) => Promise<unknown>;
    const sample = await measure((index) => query(idAt(index)), { callers: connections, forMs: roundMs });
    // The first rounds warm up.
    if (round >= 0) measured.get(name)?.push(sample);
  }
}
console.log(
  `${rounds} rounds of ${roundMs} ms, ${connections} connections, PostgreSQL ${server.version}, Node ${process.version}`,
);
for (const [name, samples] of measured) {
  const base = measured.get(bare) as Sample[];
  const ratios = samples.map((sample, round) => sample.rate / (base[round] as Sample).rate);
  const cpu = quantile(
    samples.map((sample) => sample.cpuUs),
    0.5,
  );
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ratios, share).toFixed(2));
  console.log(`${name.padEnd(28)} ${middle} of bare (quartiles ${low} to ${high}), ${cpu.toFixed(1)} us CPU a query`);
}
await db.close();
await pool.end();
await server.stop();
