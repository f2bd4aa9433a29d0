/** The service of the visits site: each person has a counter, and each change of it is a job for a handler that says where it ran. */
import { z } from "zod";
import { defineService } from "../../../src/app/service.ts";
import { defineEvent, handle } from "../../../src/queue/index.ts";
import { requireUser } from "../../../src/session/drivers/fastify-sessions.ts";

/** Its tables. */
export interface VisitsTables {
  visits: { user_id: string; value: number };
}

/** A job that was run. */
export interface Ran {
  readonly region: string;
  readonly user: string;
  readonly value: number;
}

const counted = defineEvent("visits.counted", z.object({ user: z.uuid(), value: z.int() }));

/** One region's; all regions' handlers tell `ran`. */
export function visitsOf(region: string, ran: Ran[]) {
  return defineService<VisitsTables>("visits", {
    tables: { visits: { shardBy: "user_id" } },
    migrations: [
      {
        name: "0001_visits",
        shards: {
          up: "create table visits (user_id uuid primary key, value int not null)",
          down: "drop table visits",
        },
      },
    ],
    on: { note: handle(counted, async ({ payload }) => void ran.push({ region, ...payload })) },
    routes(fastify, { db }) {
      fastify.addContentTypeParser("application/octet-stream", (_request, payload, done) => done(null, payload));
      fastify.post<{ Body: { user: string } }>("/sign-in", async ({ body, ip, protocol, host }, reply) => {
        await reply.startSession(body.user);
        return { region, ip, protocol, host };
      });
      fastify.post<{ Body: { delayMs?: number } }>("/visits", async (request) => {
        const { userId } = await requireUser(request);
        const { delayMs = 0 } = request.body;
        const value = await db.for(userId).transaction(async (tx) => {
          const row = await tx
            .insertInto("visits")
            .values({ user_id: userId, value: 1 })
            .onConflict((conflict) =>
              conflict.column("user_id").doUpdateSet((eb) => ({ value: eb("visits.value", "+", 1) })),
            )
            .returning("value")
            .executeTakeFirstOrThrow();
          tx.publish(counted, { user: userId, value: row.value }, { delayMs });
          return row.value;
        });
        return { region, value };
      });
      fastify.get("/visits", async (request) => {
        const { userId } = await requireUser(request);
        const query = db.for(userId).selectFrom("visits").select("value").where("user_id", "=", userId);
        return { region, value: (await query.executeTakeFirst())?.value ?? 0 };
      });
      fastify.post("/upload", { bodyLimit: 1e9 }, async (request) => {
        await requireUser(request);
        let bytes = 0;
        for await (const chunk of request.body as AsyncIterable<Buffer>) bytes += chunk.length;
        return { region, bytes };
      });
    },
  });
}
