/**
 * The service of the notes site: each person has a counter of their own and one that is kept in their session, and all have two
 * together, one of them cached.
 */
import { defineService } from "../../../src/app/service.ts";
import { requireUser } from "../../../src/session/drivers/fastify-sessions.ts";

/** Its tables. */
export interface NotesTables {
  own_counts: { user_id: string; value: number };
  common_counts: { name: string; value: number };
}

export const notes = defineService<NotesTables>("notes", {
  tables: { own_counts: { shardBy: "user_id" }, common_counts: { home: true } },
  migrations: [
    {
      name: "0001_notes",
      shards: {
        up: "create table own_counts (user_id uuid primary key, value int not null)",
        down: "drop table own_counts",
      },
      home: {
        up: `create table common_counts (name text primary key, value int not null);
             insert into common_counts values ('common', 0), ('tagged', 0)`,
        down: "drop table common_counts",
      },
    },
  ],
  routes(fastify, { db, cache, sessions }) {
    const countOf = async (name: string) => {
      const query = db.home.selectFrom("common_counts").select("value").where("name", "=", name);
      return (await query.executeTakeFirstOrThrow()).value;
    };
    const count = (name: string, ...tags: readonly string[]) =>
      db.home.transaction(async (tx) => {
        tx.invalidate(...tags);
        const row = await tx
          .updateTable("common_counts")
          .set((eb) => ({ value: eb("value", "+", 1) }))
          .where("name", "=", name)
          .returning("value")
          .executeTakeFirstOrThrow();
        return row.value;
      });
    const cached = () => cache.read("tagged", { ttlMs: 60_000, tags: ["tagged"] }, () => countOf("tagged"));
    fastify.post<{ Body: { user: string } }>("/cookie", async ({ body }, reply) => {
      await reply.startSession(body.user);
      return "signed in";
    });
    fastify.post<{ Body: { user: string } }>("/token", async ({ body }) => (await sessions.start(body.user)).token);
    fastify.post("/own", async (request) => {
      const { userId } = await requireUser(request);
      const row = await db
        .for(userId)
        .insertInto("own_counts")
        .values({ user_id: userId, value: 1 })
        .onConflict((conflict) =>
          conflict.column("user_id").doUpdateSet((eb) => ({ value: eb("own_counts.value", "+", 1) })),
        )
        .returning("value")
        .executeTakeFirstOrThrow();
      return row.value;
    });
    fastify.get("/own", async (request) => {
      const { userId } = await requireUser(request);
      const query = db.for(userId).selectFrom("own_counts").select("value").where("user_id", "=", userId);
      return (await query.executeTakeFirst())?.value ?? 0;
    });
    const keptIn = ({ data }: { readonly data: Readonly<Record<string, unknown>> }) => Number(data["kept"] ?? 0);
    fastify.post("/kept", async (request) => {
      const session = await requireUser(request);
      const kept = keptIn(session) + 1;
      await sessions.update(session.token, { kept });
      return kept;
    });
    fastify.get("/kept", async (request) => keptIn(await requireUser(request)));
    fastify.post("/common", async (request) => {
      await requireUser(request);
      return count("common");
    });
    fastify.post("/tagged", async (request) => {
      await requireUser(request);
      return count("tagged", "tagged");
    });
    for (const name of ["common", "tagged"]) {
      fastify.get(`/${name}`, async (request) => {
        await requireUser(request);
        return countOf(name);
      });
    }
    fastify.get("/cached", async (request) => {
      await requireUser(request);
      return cached();
    });
    // For those without a session: what a page at the CDN would be made of.
    fastify.get("/open", async () => cached());
  },
});
