/** The service of the counter site: an increment gives the new value, a read comes from the cache. */
import { setTimeout as sleep } from "node:timers/promises";
import { defineService } from "../../../src/app/service.ts";
import { requireUser } from "../../../src/session/drivers/fastify-sessions.ts";

/** Its tables. */
export interface CounterTables {
  counters: { key: string; value: number };
  /** A row a load, so that loads are counted over all processes. */
  loads: { key: string };
}

/** How a read is asked for, in milliseconds. */
interface ReadQuery {
  readonly ttl?: string;
  readonly stale?: string;
  /** How long the load takes. */
  readonly slow?: string;
}

export const counters = defineService<CounterTables>("counters", {
  tables: { counters: { home: true }, loads: { home: true } },
  migrations: [
    {
      name: "0001_counters",
      home: {
        up: "create table counters (key text primary key, value int not null); create table loads (key text not null)",
        down: "drop table loads; drop table counters",
      },
    },
  ],
  routes(fastify, { db, cache }) {
    const read = (key: string, { ttl = "60000", stale = "60000", slow }: ReadQuery) =>
      cache.read(`counter:${key}`, { ttlMs: Number(ttl), staleMs: Number(stale) }, async (load) => {
        load.tag(`counter:${key}`);
        if (slow !== undefined) {
          await db.home.insertInto("loads").values({ key }).execute();
          await sleep(Number(slow));
        }
        const row = await db.home.selectFrom("counters").select("value").where("key", "=", key).executeTakeFirst();
        return { value: row?.value ?? 0, at: new Date() };
      });
    fastify.post<{ Body: { user: string } }>("/sign-in", async ({ body }, reply) => {
      await reply.startSession(body.user);
      return "signed in";
    });
    fastify.post<{ Params: { key: string } }>("/counters/:key", async (request) => {
      await requireUser(request);
      const { key } = request.params;
      return db.home.transaction(async (tx) => {
        tx.invalidate(`counter:${key}`);
        const row = await tx
          .insertInto("counters")
          .values({ key, value: 1 })
          .onConflict((conflict) =>
            conflict.column("key").doUpdateSet((eb) => ({ value: eb("counters.value", "+", 1) })),
          )
          .returning("value")
          .executeTakeFirstOrThrow();
        return row.value;
      });
    });
    fastify.get<{ Params: { key: string }; Querystring: ReadQuery }>("/counters/:key", async (request) => {
      await requireUser(request);
      return (await read(request.params.key, request.query)).value;
    });
    fastify.get<{ Params: { key: string }; Querystring: ReadQuery }>("/open/:key", async ({ params, query }) => {
      const { value, at } = await read(params.key, query);
      // A date must come out of every level as one.
      return at.getTime() > 0 ? value : "no date";
    });
    fastify.get("/figures", async () => cache.stats());
  },
});
