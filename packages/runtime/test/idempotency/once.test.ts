/** Keyed requests against a real server: properties under real concurrency, and crashes between and inside phases. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import fc from "fast-check";
import { type Kysely, sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import type { ShardConnection } from "../../src/database/index.ts";
import { fingerprintOf, idempotencyMigrations, once, sweepIdempotencyKeys } from "../../src/idempotency/index.ts";

interface Tables {
  effects: { owner_id: string; name: string };
}

const owner = (index: number) => `00000000-0000-7000-8000-${String(index).padStart(12, "0")}`;
let server: TestPostgres;
let shard: ShardConnection;
let db: Kysely<Tables>;
let nextOwner = 1;

beforeAll(async () => {
  server = await startTestPostgres();
  const url = await server.createDatabase();
  shard = openPostgres({ name: "shard 0", address: { url }, pool: { connectionsMax: 20 } });
  db = shard.kysely as Kysely<Tables>;
  for (const { shards } of idempotencyMigrations) await sql.raw(shards.up).execute(db);
  await sql.raw("create table effects (owner_id uuid not null, name text not null)").execute(db);
});

afterAll(async () => {
  await shard?.close();
  await server?.stop();
});

/** One keyed request that writes one effect; `run` says how often its work began. */
function request(options: { ownerId: string; key: string; body?: unknown; fail?: boolean; run?: () => void }) {
  const { ownerId, key, body = "b", fail = false, run } = options;
  return db.transaction().execute((tx) =>
    once(tx, { ownerId, key, fingerprint: fingerprintOf(body) }, async () => {
      run?.();
      await tx.insertInto("effects").values({ owner_id: ownerId, name: key }).execute();
      if (fail) throw new Error("The work failed.");
      const id = await sql<{ id: string }>`select gen_random_uuid()::text as id`.execute(tx);
      return { id: id.rows[0]?.id, at: new Date(0) };
    }),
  );
}

async function effectsOf(ownerId: string): Promise<string[]> {
  const rows = await db.selectFrom("effects").select("name").where("owner_id", "=", ownerId).orderBy("name").execute();
  return rows.map(({ name }) => name);
}

describe("once()", () => {
  it("does the work of each key once under any mix of parallel, repeated and failing calls", async () => {
    const call = fc.record({ key: fc.constantFrom("a", "b", "c"), fails: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 24 }), async (calls) => {
        const ownerId = owner(nextOwner++);
        const results = await Promise.allSettled(
          calls.map(({ key, fails }) => request({ ownerId, key, fail: fails }).then((answer) => ({ key, ...answer }))),
        );
        const answers = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
        const done = [...new Set(answers.map(({ key }) => key))].sort();
        expect(await effectsOf(ownerId)).toEqual(done);
        for (const key of done) {
          const ofKey = answers.filter((answer) => answer.key === key);
          expect(new Set(ofKey.map(({ answer }) => JSON.stringify(answer))).size).toBe(1);
          expect(ofKey.filter(({ replayed }) => !replayed)).toHaveLength(1);
        }
        // A key is left without an effect only if every call under it failed.
        const hopeful = [...new Set(calls.filter(({ fails }) => !fails).map(({ key }) => key))].sort();
        expect(done).toEqual(hopeful);
      }),
      { numRuns: 60, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true },
    );
  }, 90_000);

  it("gives 100 parallel calls one effect and one answer, the first one's included", async () => {
    const ownerId = owner(nextOwner++);
    let runs = 0;
    const run = () => void runs++;
    const all = await Promise.all(Array.from({ length: 100 }, () => request({ ownerId, key: "k", run })));
    expect(runs).toBe(1);
    expect(await effectsOf(ownerId)).toEqual(["k"]);
    expect(new Set(all.map(({ answer }) => JSON.stringify(answer))).size).toBe(1);
    expect(all[0]?.answer.at).toBe("1970-01-01T00:00:00.000Z");
  });

  it("keeps the keys of two owners apart", async () => {
    const [ann, bob] = [owner(nextOwner++), owner(nextOwner++)];
    const [first, second] = [await request({ ownerId: ann, key: "k" }), await request({ ownerId: bob, key: "k" })];
    expect(second.replayed).toBe(false);
    expect(second.answer.id).not.toBe(first.answer.id);
  });

  it("refuses a key that belongs to another request, also while that one is under way", async () => {
    const ownerId = owner(nextOwner++);
    const results = await Promise.allSettled(["one", "two"].map((body) => request({ ownerId, key: "k", body })));
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const refused = results.find((result) => result.status === "rejected") as PromiseRejectedResult;
    expect(refused.reason).toMatchObject({ code: "IDEMPOTENCY_KEY_REUSED", statusCode: 422 });
    expect(await effectsOf(ownerId)).toEqual(["k"]);
  });

  it("waits for a request under way within the statement timeout, and no longer", async () => {
    const ownerId = owner(nextOwner++);
    let release: () => void = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let began: () => void = () => {};
    const isUnderWay = new Promise<void>((resolve) => {
      began = resolve;
    });
    const keyed = { ownerId, key: "k", fingerprint: "f" };
    const first = db.transaction().execute((tx) =>
      once(tx, keyed, async () => {
        began();
        await held;
        return 1;
      }),
    );
    await isUnderWay;
    await expect(
      db.transaction().execute(async (tx) => {
        await sql`set local statement_timeout = 100`.execute(tx);
        return once(tx, keyed, async () => 2);
      }),
    ).rejects.toMatchObject({ code: "STATEMENT_TIMEOUT" });
    release();
    expect(await first).toEqual({ replayed: false, answer: 1 });
  });

  it("leaves the key free after an error of the work, even if the caller commits all the same", async () => {
    const keyed = { ownerId: owner(nextOwner++), key: "k", fingerprint: "f" };
    await db.transaction().execute((tx) =>
      once(tx, keyed, async () => {
        throw new Error("swallowed");
      }).catch(() => {}),
    );
    const again = await db.transaction().execute((tx) => once(tx, keyed, async () => "done"));
    expect(again).toEqual({ replayed: false, answer: "done" });
  });

  it("replays nothing as nothing, and texts that databases dislike as they were", async () => {
    const ownerId = owner(nextOwner++);
    for (const [key, answer] of Object.entries({ none: undefined, nul: "a\u0000b", half: "\ud800", empty: {} })) {
      const keyed = { ownerId, key, fingerprint: "f" };
      const call = () => db.transaction().execute((tx) => once(tx, keyed, async () => answer));
      expect(await call()).toEqual({ replayed: false, answer });
      expect(await call()).toEqual({ replayed: true, answer });
    }
  });

  it("raises a serialization failure under a stricter isolation instead of doing the work twice", async () => {
    const ownerId = owner(nextOwner++);
    const keyed = { ownerId, key: "k", fingerprint: "f" };
    const call = db
      .transaction()
      .setIsolationLevel("repeatable read")
      .execute(async (tx) => {
        await sql`select 1 from effects`.execute(tx);
        await request({ ownerId, key: "k" });
        return once(tx, keyed, async () => 2);
      });
    await expect(call).rejects.toMatchObject({ code: "40001" });
    expect(await effectsOf(ownerId)).toEqual(["k"]);
  });
});

describe("phases", () => {
  /** Three phases with calls outside between them; dies where told. */
  async function threePhases(options: { ownerId: string; outside: string[]; dieBefore?: string }) {
    const { ownerId, outside, dieBefore } = options;
    const answers: unknown[] = [];
    for (const phase of ["begin", "charge", "finish"]) {
      if (phase === dieBefore) throw new Error("killed");
      const { answer } = await db.transaction().execute((tx) =>
        once(tx, { ownerId, key: "k", fingerprint: "f", phase }, async () => {
          await tx.insertInto("effects").values({ owner_id: ownerId, name: phase }).execute();
          return phase;
        }),
      );
      answers.push(answer);
      if (phase === "begin") outside.push("call");
    }
    return answers;
  }

  it("go on where the last process died, wherever that was", async () => {
    for (const dieBefore of ["begin", "charge", "finish"]) {
      const ownerId = owner(nextOwner++);
      const outside: string[] = [];
      await expect(threePhases({ ownerId, outside, dieBefore })).rejects.toThrow("killed");
      expect(await threePhases({ ownerId, outside })).toEqual(["begin", "charge", "finish"]);
      expect(await threePhases({ ownerId, outside })).toEqual(["begin", "charge", "finish"]);
      expect(await effectsOf(ownerId)).toEqual(["begin", "charge", "finish"]);
    }
  });
});

describe("a connection that dies", () => {
  it.each(["before the commit", "after the commit, before its answer"])(
    "%s leaves one effect after a repetition",
    async (when) => {
      const ownerId = owner(nextOwner++);
      const client = new pg.Client({ connectionString: server.connectionString.replace("/postgres?", "/test_1?") });
      client.on("error", () => {});
      await client.connect();
      await client.query("begin");
      const keyed = { ownerId, key: "k", fingerprint: fingerprintOf("b") };
      await once(client, keyed, async () => {
        await client.query("insert into effects (owner_id, name) values ($1, 'k')", [ownerId]);
        return { id: "first", at: 0 };
      });
      if (when.startsWith("after")) await client.query("commit");
      const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
      await sql`select pg_terminate_backend(${rows[0]?.pid})`.execute(db);
      const { replayed, answer } = await request({ ownerId, key: "k" });
      expect(replayed).toBe(when.startsWith("after"));
      expect(answer.id === "first").toBe(replayed);
      expect(await effectsOf(ownerId)).toEqual(["k"]);
      await client.end().catch(() => {});
    },
  );
});

describe("the sweep", () => {
  it("takes keys older than a day and leaves younger ones", async () => {
    const ownerId = owner(nextOwner++);
    await request({ ownerId, key: "old" });
    await request({ ownerId, key: "young" });
    const age = sql`update rungs_idempotency_keys set created_at = now() - interval '25 hours' where owner_id = ${ownerId} and key = 'old'`;
    await age.execute(db);
    expect(await sweepIdempotencyKeys(shard)).toBe(1);
    expect((await request({ ownerId, key: "young" })).replayed).toBe(true);
    expect((await request({ ownerId, key: "old" })).replayed).toBe(false);
  });
});
