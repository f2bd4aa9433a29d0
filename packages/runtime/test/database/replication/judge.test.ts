/** What may run on a follower: by a table of cases, and by asking a real server to run it read-only. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { harmlessFunctions, mayRunOnFollower, neverOnFollower } from "../../../src/database/replication/judge.ts";
import { sqlTokens } from "../../../src/database/replication/sql-tokens.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres, testSeed } from "../support.ts";

const readable = [
  "select 1",
  "  ( ( select 1 ) )",
  "values (1, 'a'), (2, 'b')",
  'select "id", "insert", "update" from "deletes" where "id" = $1',
  "select a.update, a.set from a",
  "select 'insert into t values (nextval(''s''))'",
  "select $x$ delete from t; $x$, $$nextval('s')$$, E'\\' nextval(', U&'\\0061', b'01'",
  "select 1 -- delete from t\n, 2 /* update /* nested */ t */",
  "with recent as materialized (select * from t limit 5) select count(*) from recent",
  "with k(id) as (values ($1::uuid), ($2)), more (a, b) as not materialized (select 1, 2) select * from k, more",
  "with recursive tree(id, depth) as (select 1, 0 union all select id + 1, depth + 1 from tree where depth < 3) select * from tree",
  "select * from unnest($1::uuid[]) as k(id) join t on t.id = k.id",
  "select * from unnest($1::text[], $2::int[]) with ordinality as k(name, n, at)",
  "select * from (values (1, 2)) as v(a, b)",
  "select sum(n) filter (where n > 1) over (partition by a order by b rows between 1 preceding and current row) from t",
  "select percentile_cont(0.5) within group (order by n) from t group by grouping sets ((a), rollup (b, c), cube (d))",
  "select cast(n as numeric(10, 2)), n::varchar(20), n::timestamp(3) with time zone from t",
  "select substring(name from 1 for 2), extract(epoch from at), trim(both 'x' from name), position('a' in name) from t",
  "select * from t where id = any($1) and exists (select from u where u.id = t.id) and n not in (1, 2)",
  "select distinct on (author) * from t order by author, at desc limit (2) offset (1)",
  "select coalesce(max(n), 0), greatest(1, 2), nullif(a, b), now(), random(), gen_random_uuid() from t",
  "select t.doc -> 'a' ->> 'b', doc @> $1, doc ? 'x', json_build_object('a', 1) from t",
  "select * from t cross join lateral (select 1) as x union all select * from u",
  "select lower(name) || '%' from t where name ilike $1;",
  "select 1.5e10, .5, 10_000",
  "select * from articles where share = 1",
];

const refused = [
  "",
  ";",
  "insert into t values (1)",
  "update t set n = 1",
  "delete from t",
  "merge into t using u on true when matched then delete",
  "with gone as (delete from t returning *) select * from gone",
  "with x as (update t set n = n + 1 returning n) select n from x",
  "with x(n) as (select 1) insert into t select n from x",
  "select * into copy from t",
  "select * from t for update",
  "select * from t for no key update skip locked",
  "select * from t for share",
  "select * from t for key share of t",
  "select nextval('s')",
  "select setval('s', 1), currval('s'), lastval()",
  "select NextVal('s')",
  "select \"nextval\"('s')",
  "select nextval /* comment */ ('s')",
  "select nextval -- comment\n('s')",
  "select pg_catalog.nextval('s')",
  "select pg_advisory_lock(1)",
  "select pg_advisory_xact_lock_shared(1)",
  "select pg_notify('a', 'b')",
  "select set_config('a.b', 'c', false)",
  "select txid_current()",
  "select pg_export_snapshot()",
  "select lo_create(0)",
  "select * from dblink('a', 'b') as x(n int)",
  "with x as (select 1) select * from x, dblink('a', 'b') as (n int)",
  "select my_function(1)",
  "select public.lower('x')",
  "select * from my_function(1) as x(a)",
  "select 1 operator(my.+) 2",
  "call my_procedure()",
  "do $$ begin end $$",
  "explain analyze insert into t values (1)",
  "select 1; delete from t",
  "lock table t",
  "begin",
  "set transaction read only",
  "copy t to stdout",
  "show all",
  "table t",
  "execute plan",
  "fetch next from c",
  "select * from pg_stat_activity",
  'select * from "pg_catalog"."pg_locks"',
  "select * from information_schema.tables",
  "select 'no end",
  "select /* no end",
  "select $x$ no end $y$",
  "select (1",
  "select 1)",
  "select E'a'\n'b\\'' , nextval('s') , ''",
];

describe("what may run on a follower", () => {
  it.each(readable)("may: %s", (sql) => {
    expect(mayRunOnFollower(sql)).toBe(true);
    // Letters do not matter, but inside of quotes they do.
    if (!/["'$]/.test(sql)) expect(mayRunOnFollower(sql.toUpperCase())).toBe(true);
  });

  it.each(refused)("may not: %s", (sql) => {
    expect(mayRunOnFollower(sql)).toBe(false);
  });

  it("keeps to what a follower said of a statement", () => {
    const sql = "select * from a_view_that_writes";
    expect(mayRunOnFollower(sql)).toBe(true);
    neverOnFollower(sql);
    expect(mayRunOnFollower(sql)).toBe(false);
  });

  it("judges more texts than it remembers, and very long ones", () => {
    for (let index = 0; index < 12_000; index++) {
      expect(mayRunOnFollower(`select ${index} from t`)).toBe(true);
      expect(mayRunOnFollower(`delete from t where n = ${index}`)).toBe(false);
    }
    const list = Array.from({ length: 20_000 }, (_, index) => `$${index + 1}`).join(", ");
    expect(mayRunOnFollower(`select * from t where id in (${list})`)).toBe(true);
    expect(mayRunOnFollower(`select * from t where id in (${list}) for update`)).toBe(false);
  });

  it("reads tokens as the manual gives them", () => {
    const texts = (sql: string) => sqlTokens(sql)?.map(({ kind, text }) => `${kind}:${text}`);
    expect(texts(`SELECT "a""b", 'it''s', $1::int[] /* x */ FROM t1 -- end`)).toEqual([
      ...["word:select", 'name:a""b', "symbol:,", "string:'it''s'", "symbol:,", "parameter:$1", "symbol:::"],
      ...["word:int", "symbol:[", "symbol:]", "word:from", "word:t1"],
    ]);
    expect(texts("$a$ $b$ $a$ x$1")).toEqual(["string:$a$ $b$ $a$", "word:x$1"]);
    expect(texts("a\\b")).toBeUndefined();
  });
});

describe("against a real server", () => {
  let server: TestPostgres;
  let client: pg.Client;
  beforeAll(async () => {
    server = await startTestPostgres();
    client = new pg.Client({ connectionString: server.connectionString });
    await client.connect();
    await client.query(`create table t (id int primary key, n int, name text, at timestamptz, doc jsonb);
      create table u (id int primary key, n int); create sequence s;
      insert into t select i, i % 3, 'name ' || i, now(), '{"a": 1}' from generate_series(1, 20) i;
      insert into u select i, i from generate_series(1, 5) i;
      create function writes() returns int language plpgsql volatile as $$ begin insert into u values (1000); return 1; end $$;
      create function reads() returns int language plpgsql stable as $$ begin return 1; end $$;
      create function lower(int) returns int language plpgsql volatile as $$ begin return nextval('s'); end $$`);
  });
  afterAll(async () => {
    await client.end();
    await server.stop();
  });

  it("every function on the list is PostgreSQL's own, and none of them writes", async () => {
    const { rows } = await client.query<{ name: string; volatile: boolean; own: boolean }>(
      `select name, bool_or(p.provolatile = 'v') as volatile, count(p.oid) > 0 as own from unnest($1::text[]) as list(name)
        left join pg_proc p on p.proname = name and p.pronamespace = 'pg_catalog'::regnamespace group by name order by name`,
      [[...harmlessFunctions]],
    );
    expect(rows.length).toBeGreaterThan(250);
    // New values at each call, nothing stored.
    expect(rows.filter((row) => row.volatile).map((row) => row.name)).toEqual([
      "clock_timestamp",
      "gen_random_uuid",
      "random",
    ]);
    // Grammar that the server turns into calls of others.
    expect(rows.filter((row) => !row.own).map((row) => row.name)).toEqual(["trim"]);
  });

  it("user functions are for the leader, whatever they are declared to be", () => {
    for (const name of ["writes", "reads", "public.writes", '"writes"']) {
      expect(mayRunOnFollower(`select ${name}()`)).toBe(false);
      expect(mayRunOnFollower(`select * from ${name}() as f(n)`)).toBe(false);
      expect(mayRunOnFollower(`with x as (select ${name}()) select * from x`)).toBe(false);
    }
  });

  it("what is judged to read runs in a read-only transaction, in random compositions of reading and writing parts", async () => {
    const random = seededRandom(testSeed("judge"));
    const counts = { judgedReadable: 0, ran: 0, refusedWrites: 0 };
    for (let round = 0; round < 1_500; round++) {
      const sql = statement(random);
      const isReadable = mayRunOnFollower(sql);
      await client.query("begin read only");
      const code = await client.query(sql).then(
        () => "ran",
        (error: { code?: string }) => error.code,
      );
      await client.query("rollback");
      if (isReadable) counts.judgedReadable++;
      if (isReadable && code === "ran") counts.ran++;
      if (!isReadable && code === "25006") counts.refusedWrites++;
      if (isReadable && code === "25006") throw new Error(`judged readable, but it writes: ${sql}`);
    }
    // The property would hold of nothing at all.
    expect(counts.ran).toBeGreaterThan(150);
    expect(counts.ran / counts.judgedReadable).toBeGreaterThan(0.5);
    expect(counts.refusedWrites).toBeGreaterThan(150);
  });
});

type Random = ReturnType<typeof seededRandom>;

function oneOf<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random.next() * items.length)] as T;
}

/** A statement put together from parts, some of which write. */
function statement(random: Random): string {
  const gap = () => oneOf(random, [" ", "\n", " /* insert */ ", " -- '\n"]);
  const value = (): string =>
    oneOf(random, [
      () => "1",
      () => "n",
      () => "'delete from t'",
      () => "$$update$$",
      () => `coalesce(${value()}, 1)`,
      () => `(select max(n) from u)`,
      () => `abs(n)`,
      () => `nextval${gap()}('s')`,
      () => `writes()`,
      () => `setval('s', 5)`,
      () => `"public"."writes"()`,
      () => `case when n > 1 then ${value()} else 2 end`,
    ])();
  const source = (): string =>
    oneOf(random, [
      () => "t",
      () => "u",
      () => "(values (1)) as v(n)",
      () => `(select ${value()} as n from u) as q`,
      () => "generate_series(1, 3) as g(n)",
      () => "writes() as w(n)",
    ])();
  const select = () => {
    const lock = oneOf(random, ["", "", "", "", " for update", " for share"]);
    const limit = oneOf(random, ["", "", " limit 2"]);
    return `select${gap()}${value()} as n from${gap()}${source()} where n${gap()}is not null${limit}${lock}`;
  };
  const part = (): string =>
    oneOf(random, [
      select,
      select,
      () => "insert into u values (100, 1) on conflict do nothing returning n",
      () => `update u set n = ${value()} returning n`,
      () => "delete from u where id = 3 returning n",
    ])();
  return oneOf(random, [
    select,
    () => `(${select()})`,
    () => `with a as (${part()}), b(n) as (${part()}) select a.n from a, b`,
    () => `with a as materialized (${select()})${gap()}select * from a`,
    () => `${select()} union all (${select()})`,
    () => "select n into copied from u",
    part,
  ])();
}
