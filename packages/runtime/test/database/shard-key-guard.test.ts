/** The guard against queries that could not be sharded: what it lets through and what it stops. */
import {
  type Compilable,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  sql,
} from "kysely";
import { describe, expect, it } from "vitest";
import { tableRegistry } from "../../src/database/index.ts";
import { guardShardKey, type QueryScope } from "../../src/database/shard-key-guard.ts";

interface Tables {
  users: { user_id: string; name: string };
  articles: { author_id: string; article_id: string; title: string; at: Date };
  likes: { author_id: string; article_id: string; user_id: string };
  names: { name: string; user_id: string };
  strays: { id: string };
}

const tables = tableRegistry([
  {
    name: "test",
    tables: {
      users: { shardBy: "user_id" },
      articles: { shardBy: "author_id" },
      likes: { shardBy: "author_id" },
      names: { home: true },
    },
  },
]);
const q = new Kysely<Tables>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
});
const id = "0190c7a0-0000-7000-8000-000000000001";
const ids = [id];

const allowed: Record<string, Compilable> = {
  "a key compared with a value": q.selectFrom("articles").selectAll().where("author_id", "=", id),
  "a qualified key": q.selectFrom("articles").selectAll().where("articles.author_id", "=", id),
  "an alias": q.selectFrom("articles as a").selectAll().where("a.author_id", "=", id),
  "a list of keys": q.selectFrom("articles").selectAll().where("author_id", "in", ids),
  "any of an array": q.selectFrom("articles").selectAll().where("author_id", "=", sql<string>`any(${ids})`),
  "the key among other conditions": q
    .selectFrom("articles")
    .selectAll()
    .where("title", "=", "t")
    .where("author_id", "=", id),
  "the key inside a conjunction": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb.and([eb("author_id", "=", id), eb("title", "=", "t")])),
  "a join on the keys": q
    .selectFrom("articles as a")
    .innerJoin("users as u", "u.user_id", "a.author_id")
    .selectAll()
    .where("a.author_id", "=", id),
  "a join tied from its other side": q
    .selectFrom("articles as a")
    .innerJoin("users as u", "u.user_id", "a.author_id")
    .selectAll()
    .where("u.user_id", "=", id),
  "a left join on the keys": q
    .selectFrom("articles as a")
    .leftJoin("likes as l", (join) =>
      join.onRef("l.author_id", "=", "a.author_id").onRef("l.article_id", "=", "a.article_id"),
    )
    .selectAll()
    .where("a.author_id", "=", id),
  "a chain of joins": q
    .selectFrom("users as u")
    .innerJoin("articles as a", "a.author_id", "u.user_id")
    .innerJoin("likes as l", "l.author_id", "a.author_id")
    .selectAll()
    .where("u.user_id", "=", id),
  "a correlated exists": q
    .selectFrom("articles as a")
    .selectAll()
    .where("a.author_id", "=", id)
    .where((eb) =>
      eb.exists(eb.selectFrom("likes as l").select("l.user_id").whereRef("l.author_id", "=", "a.author_id")),
    ),
  "a correlated column": q
    .selectFrom("articles as a")
    .select((eb) =>
      eb.selectFrom("likes as l").select(eb.fn.countAll().as("n")).whereRef("l.author_id", "=", "a.author_id").as("n"),
    )
    .where("a.author_id", "=", id),
  "a common table expression": q
    .with("mine", (w) => w.selectFrom("articles").selectAll().where("author_id", "=", id))
    .selectFrom("mine")
    .selectAll(),
  "a table tied to a common table expression": q
    .with("mine", (w) => w.selectFrom("articles").selectAll().where("author_id", "=", id))
    .selectFrom("likes as l")
    .innerJoin("mine as m", "m.author_id", "l.author_id")
    .selectAll(),
  "a derived table": q
    .selectFrom((eb) => eb.selectFrom("articles").selectAll().where("author_id", "=", id).as("d"))
    .selectAll(),
  "both sides of a union": q
    .selectFrom("articles")
    .select("title")
    .where("author_id", "=", id)
    .union(q.selectFrom("articles").select("title").where("author_id", "=", id)),
  "an insert with the key": q
    .insertInto("articles")
    .values({ author_id: id, article_id: id, title: "t", at: new Date(0) }),
  "an insert that ignores conflicts": q
    .insertInto("likes")
    .values({ author_id: id, article_id: id, user_id: id })
    .onConflict((c) => c.doNothing()),
  "an insert from a tied select": q
    .insertInto("likes")
    .columns(["author_id", "article_id", "user_id"])
    .expression(
      q
        .selectFrom("articles")
        .select(["author_id", "article_id", sql<string>`${id}`.as("user_id")])
        .where("author_id", "=", id),
    ),
  "an update by key": q.updateTable("articles").set({ title: "t" }).where("author_id", "=", id),
  "a delete by key": q.deleteFrom("articles").where("author_id", "=", id),
  "raw SQL that names the key": sql`select * from articles where author_id = ${id}` as unknown as Compilable,
  "raw SQL without tables": sql`select 1` as unknown as Compilable,
};

const refused: Record<string, Compilable> = {
  "no condition at all": q.selectFrom("articles").selectAll(),
  "another column only": q.selectFrom("articles").selectAll().where("article_id", "=", id),
  "a range of keys": q.selectFrom("articles").selectAll().where("author_id", ">", id),
  "all but one key": q.selectFrom("articles").selectAll().where("author_id", "!=", id),
  "the key under an or": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb.or([eb("author_id", "=", id), eb("title", "=", "t")])),
  "the key under a not": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb.not(eb("author_id", "=", id))),
  "a key compared with an untied column": q
    .selectFrom("articles as a")
    .innerJoin("users as u", "u.user_id", "a.author_id")
    .selectAll(),
  "a join on another column": q
    .selectFrom("articles as a")
    .innerJoin("likes as l", "l.article_id", "a.article_id")
    .selectAll()
    .where("a.author_id", "=", id),
  "a cross join": q.selectFrom(["articles as a", "users as u"]).selectAll().where("a.author_id", "=", id),
  "an uncorrelated exists": q
    .selectFrom("articles as a")
    .selectAll()
    .where("a.author_id", "=", id)
    .where((eb) =>
      eb.exists(eb.selectFrom("likes as l").select("l.user_id").whereRef("l.article_id", "=", "a.article_id")),
    ),
  "an untied common table expression": q
    .with("all_of_them", (w) => w.selectFrom("articles").selectAll())
    .selectFrom("all_of_them")
    .selectAll(),
  "an untied derived table": q.selectFrom((eb) => eb.selectFrom("articles").selectAll().as("d")).selectAll(),
  "one side of a union": q
    .selectFrom("articles")
    .select("title")
    .where("author_id", "=", id)
    .union(q.selectFrom("articles").select("title")),
  "an insert without the key": q
    .insertInto("articles")
    .values({ article_id: id, title: "t", at: new Date(0) } as never),
  "an insert from an untied select": q
    .insertInto("likes")
    .columns(["author_id", "article_id", "user_id"])
    .expression(q.selectFrom("articles").select(["author_id", "article_id", sql<string>`${id}`.as("user_id")])),
  "an update of everything": q.updateTable("articles").set({ title: "t" }),
  "an update from an untied table": q
    .updateTable("articles as a")
    .from("users as u")
    .set({ title: "t" })
    .where("a.author_id", "=", id),
  "an update that moves a row to another key": q
    .updateTable("articles")
    .set({ author_id: id })
    .where("author_id", "=", id),
  "a delete of everything": q.deleteFrom("articles"),
  "a home table": q.selectFrom("names").selectAll(),
  "a table that nobody declared": q.selectFrom("strays").selectAll(),
  "raw SQL without the key": sql`select * from articles where title = ${"t"}` as unknown as Compilable,
  "raw SQL on a home table": sql`delete from names` as unknown as Compilable,
};

const check = (query: Compilable, scope: QueryScope = "key") => {
  const node =
    "toOperationNode" in query ? (query as { toOperationNode(): never }).toOperationNode() : query.compile().query;
  guardShardKey(node, scope, tables);
};

describe("the shard-key guard", () => {
  it.each(Object.entries(allowed))("lets through: %s", (_name, query) => {
    expect(() => check(query)).not.toThrow();
  });

  it.each(Object.entries(refused))("stops: %s", (_name, query) => {
    expect(() => check(query)).toThrow(
      expect.objectContaining({
        name: "ConfigError",
        code: expect.stringMatching(/^(SHARD_KEY_MISSING|TABLE_UNDECLARED)$/),
      }),
    );
  });

  it("lets a query ask everywhere without a key, but not a home table", () => {
    expect(() => check(q.selectFrom("articles").selectAll(), "everywhere")).not.toThrow();
    expect(() => check(q.selectFrom("names").selectAll(), "everywhere")).toThrow(/use db\.home/);
  });

  it("keeps sharded tables out of the home database", () => {
    expect(() => check(q.selectFrom("names").selectAll(), "home")).not.toThrow();
    expect(() => check(q.selectFrom("articles").selectAll().where("author_id", "=", id), "home")).toThrow(
      /use db\.for\(author_id\)/,
    );
  });

  it("says how to write it", () => {
    expect(() => check(q.selectFrom("articles as a").selectAll())).toThrow(
      'Query names the sharded table "articles" without its shard key "author_id", so it could not run on one shard. ' +
        'Add .where("a.author_id", "=", id), or join "a.author_id" to a column that is tied so; to ask all shards use db.everywhere(...).',
    );
    expect(() => check(q.selectFrom("strays").selectAll())).toThrow(/no service declares.*strays: \{ shardBy/);
  });
});
