import {
  expectConcurrentUpdatesKept,
  expectLatestSeenKept,
  expectNoUpdateLostByRotation,
  expectRevisionsRise,
  sampleSession,
  sessionStoreContract,
} from "@rungs/contract/session-store-contract";
import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../src/database/migrate.ts";
import { databaseSessionStore, sessionMigrations } from "../../src/session/drivers/database-session-store.ts";
import { latestSeen } from "../../src/session/seen.ts";
import type { SessionStore } from "../../src/session/session-store.ts";
import { openSessionDatabase } from "./session-database.ts";

sessionStoreContract({
  name: "database over a connection of Rungs",
  async makeStore() {
    const database = await openSessionDatabase();
    return { store: database.store, dump: database.dump, takeDown: database.stopServer, close: database.close };
  },
});

sessionStoreContract({
  name: "database over an app's own Kysely",
  async makeStore() {
    const database = await openSessionDatabase();
    const [row] = await database.home.query<{ folder: string }>(
      undefined,
      "select current_setting('unix_socket_directories') as folder",
      [],
    );
    const pool = new pg.Pool({ host: String(row?.folder), user: "rungs", database: "postgres" });
    pool.on("error", () => {});
    const kysely = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
    return {
      store: databaseSessionStore({ kysely }),
      dump: database.dump,
      takeDown: database.stopServer,
      async close() {
        await kysely.destroy();
        await database.close();
      },
    };
  },
});

describe("the sessions table", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  beforeAll(async () => {
    database = await openSessionDatabase();
  });
  afterAll(() => database?.close());

  it("notes a use without touching an index (heap-only update)", async () => {
    await database.home.kysely.transaction().execute(async (tx) => {
      const store = databaseSessionStore({ kysely: tx });
      const session = sampleSession();
      await store.create(session);
      await store.touch(session.tokenHash, new Date(session.lastSeenAt.getTime() + 1_000), session.lastSeenAt);
      const { rows } = await sql<{ updates: number; heapOnly: number }>`
        select n_tup_upd::int as updates, n_tup_hot_upd::int as "heapOnly"
        from pg_stat_xact_user_tables where relname = 'rungs_sessions'`.execute(tx);
      expect(rows).toEqual([{ updates: 1, heapOnly: 1 }]);
    });
  });

  it("is swept around rows that another process holds, without waiting for it", async () => {
    const ended = Array.from({ length: 3 }, () => sampleSession({ expiresAt: new Date(0) }));
    for (const session of ended) await database.store.create(session);
    const sweep = { expiredAt: new Date(1), idleSince: new Date(0), idleExpiresBy: new Date(0), sessionsMax: 10 };
    await database.home.kysely.transaction().execute(async (tx) => {
      await sql`select 1 from rungs_sessions where token_hash = ${ended[0]?.tokenHash} for update`.execute(tx);
      expect(await database.store.sweep(sweep)).toBe(2);
    });
    expect(await database.store.sweep(sweep)).toBe(1);
  });

  it("finds ended sessions and a user's sessions by index", async () => {
    const plan = async (statement: string) => {
      const rows = await database.home.query<{ "QUERY PLAN": string }>(undefined, `explain ${statement}`, []);
      return rows.map((row) => row["QUERY PLAN"]).join("\n");
    };
    await database.home.query(
      undefined,
      `insert into rungs_sessions (token_hash, user_id, created_at, last_seen_at, expires_at)
       select sha256(i::text::bytea), gen_random_uuid(), now(), now(), now() + i * interval '1 minute'
       from generate_series(1, 5000) i`,
      [],
    );
    await database.home.query(undefined, "analyze rungs_sessions", []);
    expect(await plan("select * from rungs_sessions where expires_at <= now()")).toContain("rungs_sessions_by_end");
    expect(await plan("delete from rungs_sessions where user_id = '00000000-0000-0000-0000-000000000000'")).toContain(
      "rungs_sessions_by_user",
    );
  });

  it("goes away by its own migration and comes back", async () => {
    const options = {
      db: database.home.kysely,
      name: "home",
      service: "rungs_sessions",
      target: "home",
      migrations: sessionMigrations,
    } as const;
    await migrate({ ...options, to: "none" });
    await expect(database.store.read(Buffer.alloc(32))).rejects.toMatchObject({ code: "42P01" });
    await migrate(options);
    expect(await database.store.read(Buffer.alloc(32))).toBeUndefined();
  });
});

describe("the contract's own checks", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  beforeAll(async () => {
    database = await openSessionDatabase();
  });
  afterAll(() => database?.close());

  it("catch a store that writes the whole data back", async () => {
    const planted: SessionStore = {
      ...database.store,
      async update(tokenHash, patch) {
        const session = await database.store.read(tokenHash);
        if (session === undefined) return undefined;
        const data = { ...session.data, ...patch };
        const json = JSON.stringify(data);
        const overwrite = "update rungs_sessions set data = $2::text::jsonb where token_hash = $1";
        await database.home.query(undefined, overwrite, [tokenHash, json]);
        return { data, revision: session.revision + 1 };
      },
    };
    await expect(expectConcurrentUpdatesKept(planted)).rejects.toThrow();
  });

  it("catch a store that notes what was seen by reading first", async () => {
    const planted: SessionStore = {
      ...database.store,
      async noteSeen(tokenHash, seen) {
        const session = await database.store.read(tokenHash);
        const json = JSON.stringify(latestSeen(session?.seen ?? {}, seen));
        const overwrite = "update rungs_sessions set seen = $2::text::jsonb where token_hash = $1";
        await database.home.query(undefined, overwrite, [tokenHash, json]);
        return session?.revision;
      },
    };
    await expect(expectLatestSeenKept(planted)).rejects.toThrow();
  });

  it("catch a store that changes something without a revision for it", async () => {
    const planted: Partial<SessionStore>[] = [
      { touch: async () => {} },
      {
        async noteWrite(tokenHash, wrote) {
          const revision = (await database.store.read(tokenHash))?.revision;
          await database.store.noteWrite(tokenHash, wrote);
          return revision;
        },
      },
      {
        async update(tokenHash, patch) {
          const updated = await database.store.update(tokenHash, patch);
          return updated === undefined ? undefined : { ...updated, revision: 8 };
        },
      },
    ];
    for (const fault of planted) await expect(expectRevisionsRise({ ...database.store, ...fault })).rejects.toThrow();
  });

  it("catch a store that rotates by reading first", async () => {
    const planted: SessionStore = {
      ...database.store,
      async rotate(oldHash, record) {
        const old = await database.store.read(oldHash);
        await new Promise((resolve) => setImmediate(resolve));
        await database.store.create({ ...record, data: { ...old?.data } });
        await database.store.revoke(oldHash);
        return { ...old?.data };
      },
    };
    await expect(expectNoUpdateLostByRotation(planted)).rejects.toThrow();
  });
});
