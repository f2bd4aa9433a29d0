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
import { guardShardKey, type QueryScope } from "../../src/database/shard-key/guard.ts";

interface Tables {
  users: { user_id: string; name: string };
  articles: { author_id: string; article_id: string; title: string; at: Date };
  likes: { author_id: string; article_id: string; user_id: string };
  names: { name: string; user_id: string };
  strays: { id: string };
  follows: { follower_id: string; followee_id: string };
}

const tables = tableRegistry([
  {
    name: "test",
    tables: {
      users: { shardBy: "user_id" },
      articles: { shardBy: "author_id" },
      likes: { shardBy: "author_id" },
      follows: { shardBy: "follower_id" },
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
  "any of an array as raw SQL in where": q
    .selectFrom("articles as a")
    .selectAll()
    .where(sql<boolean>`a.author_id = any(${ids})`),
  "any of an array as raw SQL with a type and more conditions": q
    .selectFrom("articles as a")
    .selectAll()
    .where(sql<boolean>`(a.author_id = any(${ids}::uuid[]) and a.title <> ${"t"})`),
  "raw SQL in where over sql.ref": q
    .selectFrom("articles as a")
    .selectAll()
    .where(sql<boolean>`${sql.ref("a.author_id")} = ${id}`),
  "a cast value": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb("author_id", "=", eb.cast<string>(eb.val(id), "uuid"))),
  "any by function": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb("author_id", "=", eb.fn<string>("any", [eb.val(ids)]))),
  "a pair of columns in a list of pairs": q
    .selectFrom("articles")
    .selectAll()
    .where((eb) => eb(eb.refTuple("author_id", "article_id"), "in", [eb.tuple(id, id), eb.tuple(id, id)])),
  "the key in a sub-select of tied keys": q
    .selectFrom("articles")
    .selectAll()
    .where("author_id", "in", (eb) => eb.selectFrom("likes as l").select("l.author_id").where("l.author_id", "=", id)),
  "a left join tied from its own side in where": q
    .selectFrom("articles as a")
    .leftJoin("users as u", "u.user_id", "a.author_id")
    .selectAll()
    .where("u.user_id", "=", id),
  "a right join tied from the kept side": q
    .selectFrom("likes as l")
    .rightJoin("articles as a", "a.author_id", "l.author_id")
    .selectAll()
    .where("a.author_id", "=", id),
  "a lateral join on the key": q
    .selectFrom("articles as a")
    .innerJoinLateral(
      (eb) =>
        eb.selectFrom("likes as l").select("l.user_id").whereRef("l.author_id", "=", "a.author_id").limit(3).as("fans"),
      (join) => join.onTrue(),
    )
    .selectAll()
    .where("a.author_id", "=", id),
  "a join with unnested keys": q
    .selectFrom(sql<{ id: string }>`unnest(${ids}::uuid[])`.as<"k">(sql`k(id)`))
    .innerJoin("articles as a", "a.author_id", "k.id")
    .selectAll("a"),
  "all columns of a tied derived table": q
    .selectFrom((eb) => eb.selectFrom("articles").selectAll().where("author_id", "=", id).as("d"))
    .innerJoin("likes as l", "l.author_id", "d.author_id")
    .selectAll("l"),
  "a recursion that stays on its key": q
    .withRecursive("t", (w) =>
      w
        .selectFrom("articles")
        .select(["author_id", "article_id"])
        .where("author_id", "=", id)
        .unionAll((eb) =>
          eb
            .selectFrom("likes as l")
            .innerJoin("t", "t.author_id", "l.author_id")
            .select(["l.author_id", "l.article_id"]),
        ),
    )
    .selectFrom("t")
    .innerJoin("users as u", "u.user_id", "t.author_id")
    .selectAll("u"),
  "a write in a common table expression, read on": q
    .with("gone", (w) => w.deleteFrom("likes").where("author_id", "=", id).returning(["author_id", "article_id"]))
    .selectFrom("articles as a")
    .innerJoin("gone as g", "g.author_id", "a.author_id")
    .selectAll("a"),
  "an upsert of another column": q
    .insertInto("articles")
    .values({ author_id: id, article_id: id, title: "t", at: new Date(0) })
    .onConflict((c) => c.columns(["author_id", "article_id"]).doUpdateSet({ title: "u" })),
  "an update from a tied table": q
    .updateTable("articles as a")
    .from("users as u")
    .set({ title: "t" })
    .whereRef("a.author_id", "=", "u.user_id")
    .where("u.user_id", "=", id),
  "a delete using a tied table": q
    .deleteFrom("likes as l")
    .using("users as u")
    .whereRef("l.author_id", "=", "u.user_id")
    .where("u.user_id", "=", id),
  "a merge on the key": q
    .mergeInto("articles as a")
    .using(
      (eb) => eb.selectFrom("likes").select(["author_id", "article_id"]).where("author_id", "=", id).as("s"),
      (on) => on.onRef("a.author_id", "=", "s.author_id"),
    )
    .whenMatched()
    .thenUpdateSet({ title: "t" }),
  "a raw word that is a column, not a table":
    sql`select extract(epoch from articles.at) from articles where author_id = ${id}` as unknown as Compilable,
  "raw SQL with sql.table":
    sql`select * from ${sql.table("articles")} where ${sql.ref("author_id")} in (${sql.join(ids)})` as unknown as Compilable,
  "a raw insert with the key":
    sql`insert into articles (author_id, title) values (${id}, ${"t"})` as unknown as Compilable,
  "a raw update of another column":
    sql`update articles set title = ${"t"} where author_id = ${id}` as unknown as Compilable,
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
  "an update from a table joined by another column": q
    .updateTable("articles as a")
    .from("users as u")
    .set({ title: "t" })
    .where("a.author_id", "=", id),
  "an update that moves a row to another key": q
    .updateTable("articles")
    .set({ author_id: id })
    .where("author_id", "=", id),
  "a feed by sub-select: authors on other shards": q
    .selectFrom("articles")
    .selectAll()
    .where("author_id", "in", (eb) => eb.selectFrom("follows").select("followee_id").where("follower_id", "=", id)),
  "a join with an untied column of a common table expression": q
    .with("fans", (w) => w.selectFrom("likes").select("user_id").where("author_id", "=", id))
    .selectFrom("users as u")
    .innerJoin("fans as f", "f.user_id", "u.user_id")
    .selectAll(),
  "a join with an untied column of a derived table": q
    .selectFrom((eb) => eb.selectFrom("likes").select("user_id").where("author_id", "=", id).as("fans"))
    .innerJoin("users as u", "u.user_id", "fans.user_id")
    .selectAll(),
  "a union of tied and untied columns": q
    .with("k", (w) =>
      w
        .selectFrom("likes")
        .select("author_id")
        .where("author_id", "=", id)
        .union(w.selectFrom("likes").select("user_id as author_id").where("author_id", "=", id)),
    )
    .selectFrom("articles as a")
    .innerJoin("k", "k.author_id", "a.author_id")
    .selectAll("a"),
  "a recursion that leaves its key": q
    .withRecursive("t", (w) =>
      w
        .selectFrom("follows")
        .select(["follower_id as user_id"])
        .where("follower_id", "=", id)
        .unionAll((eb) =>
          eb.selectFrom("follows as f").innerJoin("t", "t.user_id", "f.follower_id").select("f.followee_id as user_id"),
        ),
    )
    .selectFrom("t")
    .selectAll(),
  "a left join whose ON alone has the value": q
    .selectFrom("articles as a")
    .leftJoin("users as u", (join) => join.onRef("u.user_id", "=", "a.author_id").on("u.user_id", "=", id))
    .selectAll(),
  "a full join": q
    .selectFrom("articles as a")
    .fullJoin("likes as l", "l.author_id", "a.author_id")
    .selectAll()
    .where("a.author_id", "=", id),
  "a lateral join without the key": q
    .selectFrom("articles as a")
    .innerJoinLateral(
      (eb) => eb.selectFrom("likes as l").select("l.user_id").whereRef("l.article_id", "=", "a.article_id").as("fans"),
      (join) => join.onTrue(),
    )
    .selectAll()
    .where("a.author_id", "=", id),
  "a cast column in place of a value": q
    .selectFrom("articles as a")
    .selectAll()
    .where((eb) => eb("a.author_id", "=", eb.cast<string>(eb.ref("a.title"), "uuid"))),
  "a raw column in place of a value": q
    .selectFrom("articles as a")
    .selectAll()
    .where("author_id", "=", sql<string>`a.title`),
  "a raw sub-select in place of a value": q
    .selectFrom("articles")
    .selectAll()
    .where("author_id", "in", sql<string>`(select followee_id from follows where follower_id = ${id})`),
  "raw SQL in where with an or": q
    .selectFrom("articles as a")
    .selectAll()
    .where(sql<boolean>`a.author_id = ${id} or a.title = ${"t"}`),
  "raw SQL in where with a not": q.selectFrom("articles").selectAll().where(sql<boolean>`not (author_id = ${id})`),
  "raw SQL in where of a range": q.selectFrom("articles").selectAll().where(sql<boolean>`author_id >= ${id}`),
  "a raw table as source": q.selectFrom(sql<Tables["articles"]>`articles`.as("a")).selectAll(),
  "an insert from a select of another column": q
    .insertInto("likes")
    .columns(["author_id", "article_id", "user_id"])
    .expression(q.selectFrom("likes").select(["user_id", "article_id", "author_id"]).where("author_id", "=", id)),
  "an insert of a column of its own": q
    .insertInto("likes")
    .columns(["author_id"])
    .expression(q.selectFrom("follows").select("followee_id as author_id").where("follower_id", "=", id)),
  "an upsert that sets the key": q
    .insertInto("articles")
    .values({ author_id: id, article_id: id, title: "t", at: new Date(0) })
    .onConflict((c) => c.column("article_id").doUpdateSet({ author_id: id })),
  "an update that changes the qualified key": q
    .updateTable("articles")
    .set("articles.author_id" as "author_id", id)
    .where("author_id", "=", id),
  "an update from an untied table": q
    .updateTable("articles as a")
    .from("users as u")
    .set({ title: "t" })
    .whereRef("a.title", "=", "u.name")
    .where("a.author_id", "=", id),
  "a delete using an untied table": q
    .deleteFrom("likes as l")
    .using("users as u")
    .whereRef("l.user_id", "=", "u.user_id")
    .where("l.author_id", "=", id),
  "a merge on another column": q
    .mergeInto("articles as a")
    .using("users as u", (on) => on.onRef("a.title", "=", "u.name"))
    .whenMatched()
    .thenDelete(),
  "a merge that deletes what no source has": q
    .mergeInto("articles as a")
    .using(
      (eb) => eb.selectFrom("likes").select("author_id").where("author_id", "=", id).as("s"),
      (on) => on.onRef("a.author_id", "=", "s.author_id"),
    )
    .whenNotMatchedBySource()
    .thenDelete(),
  "raw SQL with sql.table and no key": sql`select * from ${sql.table("articles")}` as unknown as Compilable,
  "raw SQL that only selects the key": sql`select author_id from articles` as unknown as Compilable,
  "raw SQL with the key in a text": sql`select * from articles where title = 'author_id = 1'` as unknown as Compilable,
  "raw SQL with the key in a comment": sql`select * from articles -- where author_id = ?` as unknown as Compilable,
  "raw SQL with the table second":
    sql`select * from names n, articles a where a.title = n.name` as unknown as Compilable,
  "a raw insert without the key": sql`insert into articles (title) values (${"t"})` as unknown as Compilable,
  "a raw update of the key":
    sql`update articles set author_id = ${id} where author_id = ${id}` as unknown as Compilable,
  "a raw sub-select in the list of columns": q
    .selectFrom("articles as a")
    .select(sql<number>`(select count(*) from likes where likes.article_id = a.article_id)`.as("n"))
    .where("a.author_id", "=", id),
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

  it("gives the values that keys are compared with, of every way to write them", () => {
    const values = (query: Compilable) =>
      new Set(
        guardShardKey((query as unknown as { toOperationNode(): never }).toOperationNode(), "key", tables).flat(),
      );
    const expected = new Set(["a", "b"]);
    expect(values(q.selectFrom("articles").selectAll().where("author_id", "in", ["a", "b"]))).toEqual(expected);
    expect(
      values(
        q
          .selectFrom("articles")
          .selectAll()
          .where(sql<boolean>`author_id = any(${["a", "b"]})`),
      ),
    ).toEqual(expected);
    const rows = ["a", "b"].map((author) => ({ author_id: author, article_id: id, title: "t", at: new Date(0) }));
    expect(values(q.insertInto("articles").values(rows))).toEqual(expected);
    const joined = q
      .selectFrom("articles as a")
      .innerJoin("users as u", "u.user_id", "a.author_id")
      .selectAll()
      .where("u.user_id", "=", "a")
      .where((eb) => eb.exists(eb.selectFrom("likes as l").select("l.user_id").where("l.author_id", "=", "b")));
    expect(values(joined)).toEqual(expected);
  });

  const together: Record<string, Compilable> = {
    "one table": q.selectFrom("articles").selectAll(),
    "tables joined by their keys": q
      .selectFrom("articles as a")
      .innerJoin("users as u", "u.user_id", "a.author_id")
      .selectAll(),
    "a left join by the keys": q
      .selectFrom("articles as a")
      .leftJoin("likes as l", "l.author_id", "a.author_id")
      .selectAll(),
    "a right join by the keys": q
      .selectFrom("likes as l")
      .rightJoin("articles as a", "l.author_id", "a.author_id")
      .selectAll(),
    "an exists tied by the keys": q
      .selectFrom("articles as a")
      .selectAll()
      .where((eb) =>
        eb.exists(eb.selectFrom("likes as l").select("l.user_id").whereRef("l.author_id", "=", "a.author_id")),
      ),
    "a derived table alone": q.selectFrom((eb) => eb.selectFrom("articles").selectAll().as("d")).selectAll(),
    "an insert from rows of the shard": q
      .insertInto("likes")
      .columns(["author_id", "article_id", "user_id"])
      .expression(q.selectFrom("articles").select(["author_id", "article_id", "author_id as user_id"])),
    "a delete by another column": q.deleteFrom("likes").where("user_id", "=", id),
  };
  it.each(Object.entries(together))("lets through on every shard: %s", (_name, query) => {
    expect(() => check(query, "everywhere")).not.toThrow();
  });

  const apart: Record<string, Compilable> = {
    "a join by another column": q
      .selectFrom("articles as a")
      .innerJoin("follows as f", "f.followee_id", "a.author_id")
      .selectAll(),
    "an exists by another column": q
      .selectFrom("users as u")
      .selectAll()
      .where((eb) =>
        eb.exists(eb.selectFrom("likes as l").select("l.user_id").whereRef("l.user_id", "=", "u.user_id")),
      ),
    "a cross join": q.selectFrom(["articles as a", "users as u"]).selectAll(),
    "a derived table joined by another column": q
      .selectFrom((eb) => eb.selectFrom("likes").select(["user_id", "author_id"]).as("d"))
      .innerJoin("users as u", "u.user_id", "d.user_id")
      .selectAll("u"),
    "an insert of values": q.insertInto("likes").values({ author_id: id, article_id: id, user_id: id }),
    "an update of the key": q.updateTable("articles").set({ author_id: id }),
    "a raw insert of values": sql`insert into likes (author_id) values (${id})` as unknown as Compilable,
  };
  it.each(Object.entries(apart))("stops on every shard: %s", (_name, query) => {
    expect(() => check(query, "everywhere")).toThrow(expect.objectContaining({ code: "SHARD_KEY_MISSING" }));
  });

  it("says why rows on different shards would not meet", () => {
    const query = q.selectFrom("articles as a").innerJoin("follows as f", "f.followee_id", "a.author_id").selectAll();
    expect(() => check(query, "everywhere")).toThrow(
      'Query for every shard joins "f" to other sharded rows without its shard key, so rows on different shards would not meet. ' +
        'Set "f.follower_id" equal to the shard key of the others, or ask in two steps: db.everywhere(...), then db.byKey(...).',
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
