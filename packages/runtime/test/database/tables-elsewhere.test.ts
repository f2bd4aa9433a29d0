/** Queries on tables of services that have a database of their own. */
import { type Kysely, sql } from "kysely";
import { describe, expect, it } from "vitest";
import { ElsewhereCheck } from "../../src/database/shard-key/elsewhere-check.ts";
import { guardShardKey } from "../../src/database/shard-key/guard.ts";
import { compiler } from "../../src/database/statement.ts";
import { tableRegistry } from "../../src/database/table-registry.ts";

interface Tables {
  users: { user_id: string; name: string };
  tips: { payer_id: string; amount: number };
}

const users = { name: "accounts", tables: { users: { shardBy: "user_id" } } };
const tips = { name: "payments", tables: { tips: { shardBy: "payer_id" } } };
const tables = tableRegistry([users], [tips]);
const db = compiler as unknown as Kysely<Tables>;

const refused = {
  "a select": db.selectFrom("tips").selectAll().where("payer_id", "=", "a"),
  "a join": db
    .selectFrom("users as u")
    .innerJoin("tips as t", "t.payer_id", "u.user_id")
    .selectAll()
    .where("user_id", "=", "a"),
  "a sub-query": db
    .selectFrom("users as u")
    .selectAll()
    .where("user_id", "=", "a")
    .where((eb) => eb.exists(eb.selectFrom("tips").select("amount").whereRef("payer_id", "=", "u.user_id"))),
  "an insert": db.insertInto("tips").values({ payer_id: "a", amount: 1 }),
  "an update": db.updateTable("tips").set({ amount: 1 }).where("payer_id", "=", "a"),
  "raw SQL": db
    .selectFrom("users")
    .select(sql`(select sum(amount) from tips where payer_id = ${"a"})`.as("sum"))
    .where("user_id", "=", "a"),
};
const allowed = {
  "its own table": db.selectFrom("users").selectAll().where("user_id", "=", "a"),
  "an alias of that name": db.selectFrom("users as tips").selectAll("tips").where("tips.user_id", "=", "a"),
  "a common table of that name": db
    .with("tips", (q) => q.selectFrom("users").select("user_id").where("user_id", "=", "a"))
    .selectFrom("tips")
    .select("user_id" as never),
};

describe.each([
  ["in development", (query: { compile(): { query: never } }) => guardShardKey(query.compile().query, "key", tables)],
  [
    "in production",
    (query: { compile(): { query: never } }) => ElsewhereCheck.of(tables)?.query(query.compile().query),
  ],
] as const)("a table of another database, %s", (_, judge) => {
  it.each(Object.entries(refused))("is refused in %s, with what to do", (_what, query) => {
    expect(() => judge(query as never)).toThrow(
      expect.objectContaining({
        code: "TABLE_ELSEWHERE",
        message: expect.stringMatching(/"tips" of the service "payments".*call\(\.\.\.\).*events/),
      }),
    );
  });

  it.each(Object.entries(allowed))("is not mistaken for %s", (_what, query) => {
    expect(() => judge(query as never)).not.toThrow();
  });
});

describe("an app whose tables are all in one database", () => {
  it("has nothing to check for that", () => {
    expect(ElsewhereCheck.of(tableRegistry([users, tips]))).toBeUndefined();
  });
});
