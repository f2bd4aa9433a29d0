/** An app for the launcher's tests: quick reads, writes that leave a row each, and mirrors of what it was sent. */
import { randomUUID } from "node:crypto";
import { appendFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { defineApp, defineService, type ServiceContext } from "rungs";
import { serve } from "rungs/call";
import type {} from "rungs/cdn/fastify";
import { serveLive } from "rungs/live/fastify";
import { handle } from "rungs/queue";
import { charged, noted, whoBills } from "./events.ts";

interface Tables {
  readonly writes: { readonly user_id: string };
  readonly entries: { readonly user_id: string; readonly entry_id: string };
  readonly handled: { readonly user_id: string; readonly handler: string; readonly pid: number };
}

/** A row for each effect of a handler, with the process that made it. */
const noteHandled = handle<{ id: string; ms: number }, ServiceContext<Tables>>(
  noted,
  async ({ payload: { id, ms }, once }, { db }) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    await once(db.for(id), async (tx) => {
      await tx.insertInto("handled").values({ user_id: id, handler: "note", pid: process.pid }).execute();
    });
  },
);

const app = defineService<Tables>("app", {
  tables: { writes: { shardBy: "user_id" }, entries: { shardBy: "user_id" }, handled: { shardBy: "user_id" } },
  migrations: [
    {
      name: "0001_writes",
      shards: { up: "create table writes (user_id text primary key)", down: "drop table writes" },
    },
    {
      name: "0002_entries",
      shards: {
        up: "create table entries (user_id text, entry_id uuid, primary key (user_id, entry_id))",
        down: "drop table entries",
      },
    },
    {
      name: "0003_handled",
      shards: {
        up: "create table handled (user_id text, handler text, pid integer)",
        down: "drop table handled",
      },
    },
  ],
  on: { note: noteHandled },
  routes: (fastify, { cache, call, db, environment, live }) => {
    // Handled later, in whichever process is there for it; `ms`: how long that takes.
    fastify.post("/notes", async (request) => {
      const { id, ms = "0" } = request.query as { id: string; ms?: string };
      await db.for(id).transaction(async (tx) => tx.publish(noted, { id, ms: Number(ms) }, { key: id }));
      return { pid: process.pid };
    });
    fastify.get("/handled", async () => ({
      rows: await db.everywhere((shard) => shard.selectFrom("handled").selectAll().execute()),
    }));
    // Asks the other service, wherever it runs.
    fastify.get("/who-bills", async () => ({ ...(await call(whoBills, {})), asker: process.pid }));
    // Beside routes of another service, whose parameter it would fit.
    fastify.get("/billing/rates", async () => ({ pid: process.pid, service: "app" }));
    fastify.get("/read", async () => ({ pid: process.pid }));
    fastify.get("/slow", async (request) => {
      const { ms = "300" } = request.query as { ms?: string };
      await new Promise((resolve) => setTimeout(resolve, Number(ms)));
      return { pid: process.pid };
    });
    fastify.post("/write", async (request) => {
      const { id } = request.query as { id: string };
      // At once and on disk, so that a kill a moment later cannot hide that the request was here.
      appendFileSync(join(environment["RUNGS_DIR"] as string, "reached.txt"), `${id}\n`);
      const insert = db.for(id).insertInto("writes").values({ user_id: id });
      await insert.onConflict((conflict) => conflict.doNothing()).execute();
      return { id };
    });
    fastify.get("/writes", async () => {
      const rows = await db.everywhere((shard) => shard.selectFrom("writes").select("user_id").execute());
      return { ids: rows.map((row) => row.user_id) };
    });
    // A row for each time that it is carried out, so that one carried out twice is seen.
    fastify.post("/append", async (request) => {
      const { id } = request.query as { id: string };
      await db.for(id).insertInto("entries").values({ user_id: id, entry_id: randomUUID() }).execute();
      return { id };
    });
    fastify.get("/appended", async () => {
      const rows = await db.everywhere((shard) => shard.selectFrom("entries").select("user_id").execute());
      return { ids: rows.map((row) => row.user_id) };
    });
    fastify.get("/mirror", async (request) => ({
      ip: request.ip,
      host: request.host,
      protocol: request.protocol,
      headers: request.headers,
      helper: environment["HELPER_URL"] ?? null,
    }));
    // A write by its method: with regions it is carried out where the leaders are.
    fastify.post("/mirror", async (request) => ({
      ...{ pid: process.pid, ip: request.ip, host: request.host, protocol: request.protocol },
      headers: request.headers,
    }));
    // Shared by the CDN; another number whenever it was made anew.
    fastify.get("/shared", { config: { cache: { sharedMaxAgeMs: 60_000 } } }, async (_request, reply) => {
      reply.cacheTag("numbers");
      return { number: performance.timeOrigin + performance.now() };
    });
    // Cached in the processes and, where there is one, in the shared level; another number whenever it was loaded anew.
    fastify.get("/cached/:id", async (request) => {
      const { id } = request.params as { id: string };
      const load = async () => (id === "none" ? undefined : { number: performance.timeOrigin + performance.now() });
      const found = await cache.read(`number:${id}`, { ttlMs: 60_000, tags: ["numbers", `number:${id}`] }, load);
      return { pid: process.pid, number: found?.number ?? null };
    });
    fastify.post("/bump", async () => {
      await db.for("bump").transaction(async (tx) => tx.invalidate("numbers"));
      return {};
    });
    fastify.get("/large", async () => ({ text: "abc ".repeat(5_000) }));
    fastify.get("/internal/secret", async () => ({ secret: true }));
    fastify.get("/block", async (request) => {
      const until = Date.now() + Number((request.query as { ms: string }).ms);
      while (Date.now() < until);
      return {};
    });
    fastify.addContentTypeParser("application/octet-stream", (_request, payload, done) => done(null, payload));
    fastify.post("/uploads", { bodyLimit: 3_000_000 }, async (request) => {
      let bytes = 0;
      const firstMs = performance.now();
      for await (const chunk of request.body as Readable) bytes += (chunk as Buffer).length;
      return { bytes, spreadMs: performance.now() - firstMs };
    });
    fastify.post("/uploads/closed", { bodyLimit: 3_000_000 }, (_request, reply) => reply.code(403).send({}));
    fastify.get("/stream", (request, reply) => serveLive(request, reply, { live, topics: ["all"], owner: "somebody" }));
  },
});

/** One that may run in processes of its own. */
const billing = defineService<Tables>("billing", {
  on: {
    charge: handle<{ id: string }, ServiceContext<Tables>>(charged, async ({ payload: { id }, once }, { db }) => {
      await once(db.for(id), async (tx) => {
        await tx.insertInto("handled").values({ user_id: id, handler: "charge", pid: process.pid }).execute();
      });
    }),
  },
  methods: [serve(whoBills, async () => ({ pid: process.pid }))],
  routes: (fastify, { db, environment }) => {
    // As in new code that was put in place for the next start.
    if (existsSync(join(environment["RUNGS_DIR"] as string, "new-code"))) {
      fastify.get("/invoices/:id", async () => ({ pid: process.pid, service: "billing" }));
    }
    fastify.get("/billing/:id", async (request) => ({
      pid: process.pid,
      service: "billing",
      id: (request.params as { id: string }).id,
    }));
    fastify.post("/billing/:id/charge", async (request) => {
      const { id } = request.params as { id: string };
      await db.for(id).transaction(async (tx) => tx.publish(charged, { id }));
      return { pid: process.pid, service: "billing" };
    });
  },
});

export default defineApp({ name: "stack-app", services: [app, billing] });
