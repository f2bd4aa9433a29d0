/** Statements: names that PostgreSQL can tell apart, and values in the order of the SQL. */
import { sql } from "kysely";
import { describe, expect, it } from "vitest";
import { statements } from "../../src/database/index.ts";

interface Tables {
  things: { id: number; name: string };
}
const define = statements<Tables>();

describe("a statement", () => {
  it("binds its parameters by name, in the order of the SQL, as often as they stand there", () => {
    const statement = define<{ id: number; name: string }>()("statement_order", (q, p) =>
      q
        .selectFrom("things")
        .select(sql<string>`${p.name}::text`.as("given"))
        .where("id", "=", p.id)
        .where("name", "<>", p.name)
        .limit(5),
    );
    expect(statement.compiled.sql).toContain("$1::text");
    expect(statement.bind({ name: "n", id: 1 })).toEqual(["n", 1, "n", 5]);
    expect(statement.bind({ id: 2, name: "m" })).toEqual(["m", 2, "m", 5]);
  });

  it("may be defined again as it is, but its name is not for another SQL text", () => {
    const make = (name: "id" | "name") =>
      define<{ id: number }>()("statement_once", (q, p) => q.selectFrom("things").select(name).where("id", "=", p.id));
    make("id");
    expect(() => make("id")).not.toThrow();
    expect(() => make("name")).toThrow(
      expect.objectContaining({
        code: "STATEMENT_NAME_TAKEN",
        message: expect.stringMatching(
          /Two statements are named "statement_once".*select "id".*select "name".*Rename one/,
        ),
      }),
    );
  });

  it("needs a name that PostgreSQL keeps whole", () => {
    const make = (name: string) => define<object>()(name, (q) => q.selectFrom("things").select("id"));
    expect(() => make("ä".repeat(31))).not.toThrow();
    expect(() => make("ä".repeat(32))).toThrow(/has 64 bytes; PostgreSQL's names have 1 to 63/);
    expect(() => make("")).toThrow(/has 0 bytes/);
  });

  it("is not to be named in a loop: names are bounded", () => {
    const make = (index: number) => define<object>()(`looped_${index}`, (q) => q.selectFrom("things").select("id"));
    expect(() => {
      for (let index = 0; index < 10_001; index++) make(index);
    }).toThrow(expect.objectContaining({ code: "STATEMENT_NAME_TAKEN" }));
  });
});
