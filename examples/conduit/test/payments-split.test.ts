/** Tips with the payments in processes of their own: the faces call them, and nobody who uses Conduit can tell. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { pino } from "pino";
import { type RunningApp, startApp } from "rungs/app";
import { env, resolveTopology, type TopologyInput } from "rungs/topology";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import conduit from "../src/app.ts";
import { type StartedFakeProvider, startFakeProvider } from "../src/payments/fake-provider/start.ts";
import type { Tables } from "../src/schema.ts";
import { type Client, client, registered } from "./support/client.ts";
import { calmWeb } from "./support/conduit.ts";
import { balanceOf, ended, give, quickFlags, until } from "./support/payments.ts";

let folder: string;
let postgres: TestPostgres;
let provider: StartedFakeProvider;
let payments: RunningApp<Tables>;
let web: RunningApp<Tables>;
let [payer, payee]: Client[] = [];
const children: (() => Promise<void>)[] = [];
const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));

async function start(content: TopologyInput, port = 0): Promise<RunningApp<Tables>> {
  const { topology } = resolveTopology({
    file: {
      name: "of the tests",
      content: {
        ...content,
        dataDirectory: folder,
        web: { ...calmWeb.web, port },
        database: { shards: [{ leader: env("CONDUIT_DATABASE_URL") }], pool: { connectionsMax: 8 } },
      },
    },
  });
  const environment = {
    ...provider.settings,
    CONDUIT_DATABASE_URL: postgres.connectionString,
    PAYMENT_CHECK_AFTER_MS: "200",
  };
  return startApp(conduit, { topology, environment, log: pino({ level: "fatal" }) });
}

/** The payments as `npm start` runs them, on that port; resolves once they are ready. */
async function spawnPayments(port: number): Promise<{ kill(): Promise<void> }> {
  const settings = join(folder, "payments.json");
  const shards = [{ leader: { env: "CONDUIT_DATABASE_URL" } }];
  await writeFile(
    settings,
    JSON.stringify({
      dataDirectory: folder,
      services: { payments: {}, web: { url: web.address } },
      database: { shards },
    }),
  );
  const args = [main, "--config", settings, "--group", "payments", "--port", String(port)];
  const child = spawn(process.execPath, args, {
    stdio: "ignore",
    env: { ...process.env, ...provider.settings, CONDUIT_DATABASE_URL: postgres.connectionString },
  });
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  children.push(kill);
  const isReady = () =>
    fetch(`http://127.0.0.1:${port}/readyz`).then(
      ({ status }) => status === 200,
      () => false,
    );
  await until(isReady, Boolean, 60_000);
  return { kill };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

const callsOf = async ({ address }: RunningApp<Tables>) => {
  const text = await (await fetch(`${address}/metrics`)).text();
  const lines = text.matchAll(/^service_calls\{side="(\w+)",method="payments\.(\w+)",outcome="(\w+)"\} (\d+)$/gm);
  return [...lines].map(([, side, method, outcome]) => `${side} ${method} ${outcome}`).sort();
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "conduit-split-"));
  postgres = await startTestPostgres();
  provider = await startFakeProvider({ flags: quickFlags });
  // Each calls the other: the payments ask who people are.
  const port = await freePort();
  payments = await start({ services: { payments: {}, web: { url: `http://127.0.0.1:${port}` } }, group: "payments" });
  web = await start({ services: { payments: { url: payments.address } }, group: "web" }, port);
  await provider.client.registerWebhook(`${payments.address}/api/payments/webhook`);
  payer = await registered(web.address, "payer");
  payee = await registered(web.address, "payee");
}, 60_000);
afterAll(async () => {
  for (const kill of children) await kill();
  await web?.stop();
  await payments?.stop();
  await provider?.stop();
  await postgres?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("tips with payments of their own", () => {
  it("are given, charged, booked and shown", async () => {
    const { status, body } = await give(payer as Client, "payee", { amount: 1_000 }, "split-1");
    expect([status, body.tip.state, body.tip.to.username]).toEqual([202, "requested", "payee"]);
    const again = await give(payer as Client, "payee", { amount: 1_000 }, "split-1");
    expect([again.status, again.body.tip.id]).toEqual([202, body.tip.id]);
    expect((await ended(payer as Client, body.tip.id)).state).toBe("succeeded");
    expect(await balanceOf(payee as Client, 950)).toBe(950);
    expect((await payer?.get("/tips"))?.body.tips).toHaveLength(1);
    expect((await payee?.get("/tips/received"))?.body.tips).toMatchObject([
      { amount: 1_000, from: { username: "payer" } },
    ]);
  });

  it("answer what people get wrong as in one process", async () => {
    const tip = { amount: 1_000 };
    const reused = await give(payer as Client, "payee", { amount: 2_000 }, "split-1");
    expect([reused.status, Object.keys(reused.body.errors)]).toEqual([422, ["Idempotency-Key"]]);
    expect((await give(payer as Client, "nobody", tip)).body.errors).toEqual({ profile: ["not found"] });
    expect((await give(payer as Client, "payer", tip)).body.errors).toEqual({ tip: ["cannot be given to yourself"] });
    expect((await give(payer as Client, "payee", { amount: 0.5 })).status).toBe(422);
    const unknown = await payer?.get("/tips/not-an-id");
    expect([unknown?.status, unknown?.body.errors]).toEqual([404, { tip: ["not found"] }]);
    expect((await payer?.get("/tips?limit=0"))?.status).toBe(422);
  });

  it("were asked of the payments' processes, and by nobody else", async () => {
    const [made, answered] = await Promise.all([callsOf(web), callsOf(payments)]);
    expect(made).toEqual(answered.map((line) => line.replace("in ", "out ")));
    expect(made).toContain("out give ok");
    expect(made.every((line) => line.startsWith("out "))).toBe(true);
  });

  it("are one a key, however often the payments' process is killed while they are asked for", async () => {
    const port = await freePort();
    const front = await start({
      services: { payments: { processes: 1, url: `http://127.0.0.1:${port}` } },
      group: "web",
    });
    const before = (await payer?.get("/tips?limit=100"))?.body.tips.length;
    const somebody = client(front.address, payer?.token);
    const kills = { isOver: false };
    const killing = (async () => {
      for (let round = 0; round < 2; round++) {
        const process = await spawnPayments(port);
        await sleep(200 + 100 * round);
        await process.kill();
      }
      kills.isOver = true;
      return spawnPayments(port);
    })();
    const keys = Array.from({ length: 6 }, (_, index) => `killed-${index}`);
    const failures: number[] = [];
    const answered = keys.map(async (key) => {
      const ids = new Set<string>();
      // The same again and again, as a browser that is reloaded does, until the killing is over and one more has been answered.
      for (let isLast = false; !isLast; ) {
        isLast = kills.isOver;
        const { status, body } = await give(somebody, "payee", { amount: 200 }, key);
        if (status === 202) ids.add(body.tip.id);
        else failures.push(status);
        isLast &&= status === 202;
        await sleep(5);
      }
      return ids;
    });
    const ids = await Promise.all(answered);
    expect(ids.map((each) => each.size)).toEqual(keys.map(() => 1));
    expect(new Set(failures)).toEqual(new Set([503]));
    expect((await payer?.get("/tips?limit=100"))?.body.tips).toHaveLength(before + keys.length);
    await (await killing).kill();
    await front.stop();
  }, 180_000);

  it("are not to be had while the payments are away, and all else is", async () => {
    await payments.stop();
    expect((await give(payer as Client, "payee", { amount: 1_000 })).status).toBe(503);
    expect((await payer?.get("/balance"))?.status).toBe(503);
    expect((await payer?.get("/profiles/payee"))?.status).toBe(200);
    expect((await payer?.get("/articles"))?.status).toBe(200);
  });
});
