/** An app of two services, of which one owns a database: what a topology alone makes of its tables, calls, messages and tools. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { type RunningApp, startApp } from "../../src/app/app.ts";
import { openJobs } from "../../src/app/open/jobs.ts";
import { openShards } from "../../src/app/open/shards.ts";
import { defineApp, defineService, type ServiceContext } from "../../src/app/service.ts";
import { defineMethod, serve } from "../../src/call/index.ts";
import { defineEvent, handle } from "../../src/queue/index.ts";
import { env, resolveTopology, type Topology, type TopologyInput } from "../../src/topology/index.ts";

interface Tables {
  orders: { customer_id: string; cents: number };
  accounts: { customer_id: string; cents: number };
}
type Context = ServiceContext<Tables>;

const ordered = defineEvent("order.placed", z.object({ customerId: z.uuid(), cents: z.int() }));
const balance = defineMethod("bank.balance", {
  input: z.object({ customerId: z.uuid() }),
  output: z.object({ cents: z.int() }),
  isSafe: true,
});
const tableOf = (name: string) => ({
  name: "0001",
  shards: {
    up: `create table ${name} (customer_id uuid primary key, cents int not null)`,
    down: `drop table ${name}`,
  },
});

const shop = defineService<Tables>("shop", {
  tables: { orders: { shardBy: "customer_id" } },
  migrations: [tableOf("orders")],
});
const bank = defineService<Tables>("bank", {
  tables: { accounts: { shardBy: "customer_id" } },
  migrations: [tableOf("accounts")],
  methods: [
    serve(balance, async ({ customerId }, _call, { db }: Context) => {
      const query = db.for(customerId).selectFrom("accounts").select("cents").where("customer_id", "=", customerId);
      return { cents: (await query.executeTakeFirst())?.cents ?? 0 };
    }),
  ],
  on: {
    charge: handle(ordered, async ({ payload: { customerId, cents }, once, giveUp }, { db }: Context) => {
      if (cents === 0) giveUp("nothing to pay");
      await once(db.for(customerId), (tx) =>
        tx
          .insertInto("accounts")
          .values({ customer_id: customerId, cents: -cents })
          .onConflict((on) =>
            on.column("customer_id").doUpdateSet((eb) => ({ cents: eb("accounts.cents", "-", cents) })),
          )
          .execute(),
      );
    }),
  },
});
const definition = defineApp<Tables>({ name: "shop", services: [shop, bank] });
const customer = (number: number) => `018f3c1e-7b7a-7cc2-9f43-5a1f7f0f4a${10 + number}`;

let postgres: TestPostgres;
let rabbitmq: TestRabbitmq;
let folder: string;
let urls: Record<string, string>;
let web: RunningApp<Tables>;
let bankApp: RunningApp<Tables>;
const log = pino({ level: "fatal" });

function topologyOf({ services, ...content }: TopologyInput): Topology {
  const shards = ["BANK_0", "BANK_1"].map((name) => ({ leader: env(name) }));
  return resolveTopology({
    file: {
      name: "test",
      content: {
        ...content,
        dataDirectory: folder,
        web: { port: 0 },
        database: { shards: [{ leader: env("APP_0") }], pool: { connectionsMax: 4 } },
        queue: { url: env("QUEUE_URL"), partitions: 2 },
        services: { ...services, bank: { database: { shards }, ...services?.["bank"] } },
      },
    },
  }).topology;
}
const start = (content: TopologyInput, names = Object.keys(urls)) =>
  startApp(definition, {
    ...{ topology: topologyOf(content), log },
    environment: Object.fromEntries(names.map((name) => [name, urls[name]])),
  });

const tablesIn = async (name: string): Promise<string[]> => {
  const client = new pg.Client({ connectionString: urls[name] });
  await client.connect();
  const { rows } = await client.query("select tablename from pg_tables where schemaname = 'public' order by 1");
  await client.end();
  return rows.map(({ tablename }) => tablename as string);
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "service-database-"));
  [postgres, rabbitmq] = await Promise.all([startTestPostgres(), startTestRabbitmq()]);
  const [app = "", ...own] = [
    await postgres.createDatabase(),
    await postgres.createDatabase(),
    await postgres.createDatabase(),
  ];
  urls = { APP_0: app, BANK_0: own[0] ?? "", BANK_1: own[1] ?? "", QUEUE_URL: rabbitmq.url };
  // The first to start, so that it makes what is shared.
  bankApp = await start({ group: "bank" });
  // Without the addresses of the bank's database: nothing here needs them.
  web = await start({ group: "web", services: { bank: { url: bankApp.address } } }, ["APP_0", "QUEUE_URL"]);
}, 60_000);
afterAll(async () => {
  await web?.stop();
  await bankApp?.stop();
  await rabbitmq?.stop();
  await postgres?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("a service with a database of its own", () => {
  it("has its tables there, and there only; of the app's it needs what all processes share", async () => {
    const [app, ...own] = [await tablesIn("APP_0"), await tablesIn("BANK_0"), await tablesIn("BANK_1")];
    expect(app).toEqual(expect.arrayContaining(["orders", "rungs_sessions", "rungs_signing_keys", "rungs_outbox"]));
    expect(app).not.toContain("accounts");
    for (const tables of own) {
      expect(tables).toEqual(expect.arrayContaining(["accounts", "rungs_jobs", "rungs_inbox", "rungs_outbox"]));
      for (const other of ["orders", "rungs_sessions", "rungs_signing_keys"]) expect(tables).not.toContain(other);
    }
  });

  it("is asked by calls, and its tables by nobody else", async () => {
    expect(await web.context.call(balance, { customerId: customer(0) })).toEqual({ cents: 0 });
    const fromHere = (name: "accounts" | "orders", app: RunningApp<Tables>) =>
      app.context.db.for(customer(0)).selectFrom(name).selectAll().where("customer_id", "=", customer(0)).execute();
    await expect(fromHere("accounts", web)).rejects.toMatchObject({
      code: "TABLE_ELSEWHERE",
      message: expect.stringContaining("call(...)"),
    });
    await expect(fromHere("orders", bankApp)).rejects.toMatchObject({ code: "TABLE_ELSEWHERE" });
  });

  it("handles what the app's database published, each once", async () => {
    for (const number of [1, 2, 3]) {
      const row = { customer_id: customer(number), cents: 100 * number };
      await web.context.db.for(row.customer_id).transaction(async (tx) => {
        await tx.insertInto("orders").values(row).execute();
        tx.publish(ordered, { customerId: row.customer_id, cents: row.cents }, { key: row.customer_id });
      });
    }
    const balanceOf = async (number: number) =>
      (await web.context.call(balance, { customerId: customer(number) })).cents;
    await expect.poll(() => Promise.all([1, 2, 3].map(balanceOf)), { timeout: 20_000 }).toEqual([-100, -200, -300]);
  });

  it("is known to the tools, and passed over by them while it is away", async () => {
    await web.context.db.home.transaction(async (tx) => tx.publish(ordered, { customerId: customer(4), cents: 0 }));
    const jobs = await openJobs(topologyOf({}), { environment: urls });
    const dead = async () => (await jobs.list({ state: "dead", limit: 10 })).jobs;
    await expect.poll(async () => (await dead()).length, { timeout: 20_000 }).toBe(1);
    expect((await dead()).map(({ shard, handler }) => [shard, handler])).toEqual([["bank shard 0", "bank.charge"]]);
    expect(await jobs.pause("bank.charge")).toBe(true);
    expect((await jobs.counts()).find(({ handler }) => handler === "bank.charge")).toMatchObject({
      isPaused: true,
      dead: 1,
    });
    expect(await jobs.resume("bank.charge")).toBe(true);
    expect(await jobs.drop({ handler: "bank.charge", limit: 10 })).toBe(1);
    await jobs.close();

    const shards = await openShards(topologyOf({}), { environment: urls, group: "bank" });
    const report = await shards.look({ intervalMs: 0 });
    expect(report.placement).toMatchObject({ strategy: "hash", shards: 2 });
    expect(new Set(report.shards.flatMap(({ tables }) => tables.map(({ table }) => table)))).toContain("accounts");
    await shards.close();

    const nowhere = "postgres://127.0.0.1:9/none";
    const partly = await openJobs(topologyOf({}), { environment: { ...urls, BANK_0: nowhere, BANK_1: nowhere } });
    await partly.counts();
    expect(new Set(partly.missing().map(({ name }) => name))).toEqual(new Set(["bank shard 0", "bank shard 1"]));
    await partly.close();
  }, 60_000);

  it("needs processes that know their group, and servers that all of them reach", async () => {
    await expect(start({})).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("RUNGS_GROUP"),
    });
    const embedded = { bank: { database: { shards: 1 } } };
    await expect(start({ group: "bank", services: embedded })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining("services.bank.database.shards is a number"),
    });
  });
});
