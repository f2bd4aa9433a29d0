/**
 * What the database tier costs over bare pg: one row by its key, four ways in one run, as ratios of throughput.
 *
 * The ways take turns in short rounds, in another order each time, so that a noisy machine hits them alike. Numbers are
 * medians over rounds. Run: node scripts/run.mjs benchmarks/database-overhead.ts
 */
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { type Generated, sql } from "kysely";
import pg from "pg";
import { initialPlacement, shardedDatabase, statements, tableRegistry } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";

interface Tables {
  users: { user_id: string; username: string; bio: string; visits: Generated<number> };
}

const rounds = 15;
const roundMs = 400;
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

const rates = new Map<string, number[]>(Object.keys(ways).map((name) => [name, []]));
for (let round = -1; round < rounds; round++) {
  const names = Object.keys(ways);
  for (let turn = 0; turn < names.length; turn++) {
    const name = names[(turn + round + names.length) % names.length] as string;
    const rate = await measure(ways[name] as (id: string) => Promise<unknown>);
    // The first round warms up.
    if (round >= 0) rates.get(name)?.push(rate);
  }
}
const bare = median(rates.get("pg pool.query, named") ?? []);
console.log(
  `${rounds} rounds of ${roundMs} ms, ${connections} connections, PostgreSQL ${server.version}, Node ${process.version}`,
);
for (const [name, measured] of rates) {
  const middle = median(measured);
  console.log(
    `${name.padEnd(28)} ${Math.round(middle).toString().padStart(7)} a second  ${(middle / bare).toFixed(2)} of pg named`,
  );
}
await db.close();
await pool.end();
await server.stop();

/** Queries a second with all connections busy. */
async function measure(query: (id: string) => Promise<unknown>): Promise<number> {
  let count = 0;
  const since = performance.now();
  const until = since + roundMs;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < until) {
        await query(idAt(count));
        count++;
      }
    }),
  );
  return (count / (performance.now() - since)) * 1_000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
