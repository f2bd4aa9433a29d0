/** An app whose services run in two groups of processes, over one database: what a topology alone makes of its calls. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { type RunningApp, startApp } from "../../src/app/app.ts";
import { defineApp, defineService, type ServiceContext } from "../../src/app/service.ts";
import { defineMethod, serve } from "../../src/call/index.ts";
import { addSigningKey } from "../../src/session/drivers/database-signing-key.ts";
import { env, resolveTopology, type TopologyInput } from "../../src/topology/index.ts";

interface Tables {
  stock: { item_id: string; left: number };
}

const stockOf = defineMethod("store.stock_of", {
  input: z.object({ itemId: z.uuid() }),
  output: z.object({ left: z.int(), caller: z.string(), pid: z.string(), traceparent: z.string() }),
  isSafe: true,
});
const take = defineMethod("store.take", { input: z.object({ itemId: z.uuid() }), output: z.object({ left: z.int() }) });

const store = defineService<Tables>("store", {
  tables: { stock: { shardBy: "item_id" } },
  migrations: [
    {
      name: "0001_stock",
      shards: {
        up: `create table stock (item_id uuid primary key, "left" int not null)`,
        down: "drop table stock",
      },
    },
  ],
  methods: [
    serve(stockOf, async ({ itemId }, { caller, traceparent }, { db, environment }: ServiceContext<Tables>) => {
      const query = db.for(itemId).selectFrom("stock").select("left").where("item_id", "=", itemId);
      const left = (await query.executeTakeFirst())?.left ?? 10;
      return { left, caller, traceparent, pid: environment["WHO"] ?? "" };
    }),
    serve(take, async ({ itemId }, _call, { db }: ServiceContext<Tables>) => {
      const taken = db
        .for(itemId)
        .insertInto("stock")
        .values({ item_id: itemId, left: 9 })
        .onConflict((on) => on.column("item_id").doUpdateSet((eb) => ({ left: eb("stock.left", "-", 1) })));
      return taken.returning("left").executeTakeFirstOrThrow();
    }),
  ],
});

const front = defineService<Tables>("front", {
  routes(fastify, { call }) {
    fastify.get<{ Params: { id: string } }>("/stock/:id", ({ params }) => call(stockOf, { itemId: params.id }));
    fastify.post<{ Params: { id: string } }>("/stock/:id", ({ params }) => call(take, { itemId: params.id }));
  },
});

const definition = defineApp<Tables>({ name: "shop", services: [store, front] });
const itemId = "018f3c1e-7b7a-7cc2-9f43-5a1f7f0f4a11";
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

let postgres: TestPostgres;
let folder: string;
const running: RunningApp<Tables>[] = [];

async function start(who: string, content: TopologyInput): Promise<RunningApp<Tables>> {
  const { topology } = resolveTopology({
    file: {
      name: "test",
      content: {
        ...content,
        dataDirectory: folder,
        web: { port: 0, ...content.web },
        database: { shards: [{ leader: env("SHOP_DATABASE_URL") }], pool: { connectionsMax: 4 } },
      },
    },
  });
  const environment = { SHOP_DATABASE_URL: postgres.connectionString, WHO: who };
  const app = await startApp(definition, { topology, environment, log: pino({ level: "silent" }) });
  running.push(app);
  return app;
}

const ask = async ({ address }: RunningApp<Tables>, method = "GET") =>
  (await fetch(`${address}/stock/${itemId}`, { method, headers: { traceparent } })).json();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-calls-"));
  postgres = await startTestPostgres();
});
afterAll(async () => {
  await Promise.all(running.map((app) => app.stop()));
  await postgres?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("services in groups", () => {
  it("call each other within one process, and over HTTP once they have processes of their own", async () => {
    const whole = await start("whole", {});
    expect(await ask(whole)).toEqual({ left: 10, caller: "shop", pid: "whole", traceparent });
    const groups = { store: { processes: 1 } };
    const backend = await start("backend", { services: groups, group: "store" });
    const services = { store: { processes: 1, url: backend.address } };
    const web = await start("web", { services, group: "web" });
    expect(await ask(web)).toEqual({ left: 10, caller: "web", pid: "backend", traceparent });
    expect(await ask(web, "POST")).toEqual({ left: 9 });
    expect(await ask(whole)).toMatchObject({ left: 9 });

    const shown = async ({ address }: RunningApp<Tables>) => (await fetch(`${address}/metrics`)).text();
    const [out, inside] = await Promise.all([shown(web), shown(backend)]);
    expect(out).toContain('service_calls{side="out",method="store.stock_of",outcome="ok"} 1');
    expect(out).toMatch(/service_call_duration_seconds_bucket\{side="out",method="store.take",le="\+Inf"\} 1/);
    expect(out).toContain(`service_call_breaker{target="store",address="${backend.address}",state="closed"} 1`);
    expect(out).toContain('service_call_target{target="store",kind="retries"} 0');
    expect(inside).toContain('service_calls{side="in",method="store.take",outcome="ok"} 1');
    expect(out).not.toContain('side="in"');
  });

  it("follow a change of the key by which they know each other", async () => {
    const client = new pg.Client(postgres.connectionString);
    await client.connect();
    const database = {
      query: async <R>(_name: string | undefined, sql: string, values: unknown[]) =>
        (await client.query(sql, values)).rows as R[],
    };
    try {
      expect(await addSigningKey({ database, name: "calls" })).toBe("calls.2");
      const backend = running.find(({ context }) => context.environment["WHO"] === "backend") as RunningApp<Tables>;
      const services = { store: { processes: 1, url: backend.address } };
      // It signs by the new key, which the other one has not read yet.
      const web = await start("newer web", { services, group: "web" });
      expect(await ask(web)).toMatchObject({ left: 9, pid: "backend" });
      const older = running.find(({ context }) => context.environment["WHO"] === "web") as RunningApp<Tables>;
      expect(await ask(older)).toMatchObject({ left: 9, pid: "backend" });
    } finally {
      await client.end();
    }
  });

  it("call past the limits that requests from outside have", async () => {
    const limits = { addressPerMinute: 60 };
    const backend = await start("limited", { web: { limits }, services: { store: { processes: 1 } }, group: "store" });
    const web = await start("caller", { services: { store: { processes: 1, url: backend.address } }, group: "web" });
    for (let request = 0; request < 30; request++) expect(await ask(web)).toMatchObject({ pid: "limited" });
    const outside = Array.from({ length: 30 }, () => fetch(`${backend.address}/nowhere`).then(({ status }) => status));
    expect(await Promise.all(outside)).toContain(429);
  });

  it("do not start without the address of what they call", async () => {
    const starting = start("lost", { services: { store: { processes: 1 } }, group: "web" });
    await expect(starting).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(/services\.store\.url/),
    });
  });

  it("serve methods of their own only", async () => {
    const mixed = defineService<Tables>("other", { methods: store.methods ?? [] });
    const { topology } = resolveTopology({
      file: { name: "test", content: { dataDirectory: folder, database: { shards: [{ leader: env("DB") }] } } },
    });
    const wrong = defineApp<Tables>({ name: "shop", services: [mixed] });
    const options = { topology, environment: { DB: await postgres.createDatabase() }, log: pino({ level: "silent" }) };
    await expect(startApp(wrong, options)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringMatching(/store\.stock_of/),
    });
  });

  it("hear nothing from outside without a signature", async () => {
    for (const { address, context } of running) {
      const headers = { "content-type": "application/vnd.rungs.call+json" };
      const answer = await fetch(`${address}/internal/call/store/take`, { method: "POST", body: "{}", headers });
      expect(answer.status).toBe(context.environment["WHO"] === "whole" ? 404 : 401);
    }
  });
});
