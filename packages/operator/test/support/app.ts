/** A small app as a process of its own, on embedded databases: its handler gives up unless the file "mended" is there. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import { createLifecycle, defineApp, defineService, runUntilSignal, uuidV7 } from "rungs";
import { startApp } from "rungs/app";
import { defineEvent, handle } from "rungs/queue";
import { resolveTopology } from "rungs/topology";
import { z } from "zod";

const asked = defineEvent("mail.asked", z.object({ to: z.string().meta({ sensitive: true }) }));
const folder = process.env["RUNGS_DIR"] ?? "";

const mail = defineService<Record<never, never>>("mail", {
  on: {
    send: handle(asked, async ({ giveUp }) => {
      if (!existsSync(join(folder, "mended"))) giveUp("the mail server says no");
    }),
  },
  routes: (fastify, { db, clock, random }) => {
    fastify.post("/mail", async (_, reply) => {
      await db
        .for(uuidV7(clock, random))
        .transaction(async (tx) => tx.publish(asked, { to: "ann@example.com" }, { key: "ann" }));
      return reply.code(202).send();
    });
  },
});

const log = pino({ level: "fatal" }, pino.destination(2));
const lifecycle = createLifecycle({ log });
await runUntilSignal(() => lifecycle.stop(), {
  log,
  start: async () => {
    const { topology } = resolveTopology({ environment: process.env });
    const app = await startApp(defineApp({ name: "mailer", services: [mail] }), { topology, log, lifecycle });
    process.stdout.write(`${app.address}\n`);
  },
});
