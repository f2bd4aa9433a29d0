/** Broker, workers and a service of its own: what each process does, what clients see of changes, and what is left at the end. */
import { execFileSync } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StackStatus } from "../src/stack/component.ts";
import { startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { identities, type RunningStack, stackFolder, startStackApp, stillRunning } from "./support/stack.ts";

/** All of rung 5 but what the tests of the rungs below show: one embedded database, no Redis, no Varnish. */
const settings = {
  web: { processes: 2, balancer: "nginx" },
  queue: { url: { env: "QUEUE_URL" } },
  services: { workers: { processes: 2 }, billing: {} },
};

let folder: string;
let stack: RunningStack;
beforeAll(async () => {
  folder = await stackFolder();
  const config = join(folder, "settings.json");
  await writeFile(config, JSON.stringify(settings));
  stack = await startStackApp(["--queue", "rabbitmq", "--config", config], folder);
}, 90_000);
afterAll(async () => {
  await stack?.dispose();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

const status = async () => (await stack.status()) as unknown as StackStatus;
const pids = async () => {
  const { processes } = await status();
  const of = (role: string) => processes.filter((process) => process.role === role).map(({ pid }) => pid);
  return { web: of("web"), workers: of("worker"), billing: of("service") };
};

interface Handled {
  readonly user_id: string;
  readonly handler: string;
  readonly pid: number;
}
const handled = async (prefix: string) => {
  const { rows } = (await (await fetch(`${stack.app}/handled`)).json()) as { rows: Handled[] };
  return rows.filter(({ user_id }) => user_id.startsWith(prefix));
};

async function publish(prefix: string, count: number, ms = 0): Promise<void> {
  for (let index = 0; index < count; index++) {
    const answer = await fetch(`${stack.app}/notes?id=${prefix}-${index}&ms=${ms}`, { method: "POST" });
    expect(answer.status).toBe(200);
  }
}

/** Real time, because other processes are in play. */
async function within(ms: number, condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after ${ms} ms: ${condition}`);
    await sleep(100);
  }
}

const ask = async (path: string, init?: RequestInit) =>
  (await (await fetch(`${stack.app}${path}`, init)).json()) as { pid: number; service: string; id?: string };

describe("a stack with broker, workers and a service of its own", () => {
  it("says in its line what each process is there for", async () => {
    expect(stack.line.rung).toBe(5);
    const roles = stack.line.processes.map(({ name, role }) => `${name} ${role}`);
    expect(roles).toEqual(
      expect.arrayContaining([
        "rabbitmq broker",
        ...["web-1 web", "web-2 web", "workers-1 worker", "workers-2 worker", "billing-1 service"],
      ]),
    );
    expect(await status()).toMatchObject({
      broker: "rabbitmq",
      groups: [
        { name: "web", role: "web", ready: 2, processes: 2, url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) },
        { name: "workers", role: "worker", ready: 2, processes: 2, url: null },
        { name: "billing", role: "service", ready: 1, processes: 1 },
      ],
    });
  });

  it("handles events in workers, and those of a service of its own in its processes", async () => {
    await publish("first", 20);
    for (let index = 0; index < 10; index++) await ask(`/billing/bill-${index}/charge`, { method: "POST" });
    await until(async () => (await handled("first")).length + (await handled("bill")).length === 30);
    const { workers, billing } = await pids();
    for (const { pid } of await handled("first")) expect(workers).toContain(pid);
    for (const { pid } of await handled("bill")) expect(billing).toContain(pid);
  }, 20_000);

  it("sends requests to who serves them, by the routes that the processes told", async () => {
    const { web, billing } = await pids();
    for (let index = 0; index < 10; index++) {
      const { pid, service, id } = await ask(`/billing/one%2Ftwo-${index}`);
      expect({ service, id }).toEqual({ service: "billing", id: `one/two-${index}` });
      expect(billing).toEqual([pid]);
    }
    // A fixed path of another service comes before a parameter, as it does in one process.
    for (const path of ["/billing/rates", "/billing/rates/", "/billing/rates?x=1"]) {
      const { pid, service } = await ask(path);
      expect([path, service, web.includes(pid)]).toEqual([path, "app", true]);
    }
    expect(web).toContain((await ask("/read")).pid);
    // What no group serves is answered by web, as before.
    for (const [path, method] of [
      ["/billing", "GET"],
      ["/billing/x/y", "GET"],
      ["/billing/x", "DELETE"],
      ["/nowhere", "GET"],
    ] as const) {
      expect([path, (await fetch(`${stack.app}${path}`, { method })).status]).toEqual([path, 404]);
    }
    expect((await fetch(`${stack.app}/billing/x`, { method: "HEAD" })).status).toBe(200);
  });

  it("lets services call each other between groups, and nobody else from anywhere", async () => {
    const { web, billing } = await pids();
    const { pid, asker } = (await (await fetch(`${stack.app}/who-bills`)).json()) as { pid: number; asker: number };
    expect(billing).toEqual([pid]);
    expect(web).toContain(asker);
    const { groups } = await status();
    const addresses = groups.flatMap(({ url }) => url ?? []);
    expect(addresses).toHaveLength(2);
    for (const path of ["/internal/call", "/internal/call/app.read", "/internal/call/../call", "//internal/call"]) {
      expect([path, (await fetch(`${stack.app}${path}`, { method: "POST" })).status]).toEqual([path, 404]);
    }
    for (const address of addresses) {
      const unsigned = await fetch(`${address}/internal/call/billing/who`, { method: "POST", body: "{}" });
      expect(unsigned.status).toBe(401);
      for (const path of ["/read", "/billing/x", "/metrics", "/healthz", "/"]) {
        expect([path, (await fetch(`${address}${path}`)).status]).toEqual([path, 404]);
      }
    }
  });

  it("listens on loopback alone", async () => {
    const { processes } = await status();
    const pids = new Set(processes.map(({ pid }) => pid));
    const lines = execFileSync("ss", ["-H", "-ltnp"], { encoding: "utf8" }).split("\n");
    const own = lines.filter((line) => [...line.matchAll(/pid=(\d+)/g)].some(([, pid]) => pids.has(Number(pid))));
    expect(own.length).toBeGreaterThanOrEqual(9);
    for (const line of own) expect(line.trim().split(/\s+/)[3]).toMatch(/^(127\.0\.0\.1|\[::1\]):\d+$/);
  });

  it("shows groups and handlers, and the log of each process", async () => {
    // A worker acknowledges a moment after the effect is there.
    await within(5_000, async () => (await status()).handlers.every(({ waiting }) => waiting === 0));
    expect((await status()).handlers).toEqual([
      { handler: "app.note", processes: 2, running: 0, done: 20, retried: 0, dead: 0, waiting: 0 },
      { handler: "billing.charge", processes: 1, running: 0, done: 10, retried: 0, dead: 0, waiting: 0 },
    ]);
    const { stdout } = await stack.run("status");
    expect(stdout).toMatch(/workers-1 +worker +\d+ +\d+ +ready/);
    expect(stdout).toMatch(/app\.note +2 +0 +0 +20/);
    // Of the databases and the broker that the launcher started, without a flag that names them.
    expect(await stack.run("jobs", "--json")).toMatchObject({ code: 0, stderr: "" });
    expect(await stack.run("logs", "workers-1")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("ready after"),
    });
  });

  it("goes on after a worker was killed, and starts it again", async () => {
    const [victim] = (await status()).processes.filter(({ role }) => role === "worker");
    await publish("kill", 30, 200);
    process.kill(victim?.pid as number, "SIGKILL");
    await publish("after", 10);
    await until(async () =>
      (await status()).processes.some(({ name, crashes }) => name === victim?.name && crashes === 1),
    );
    await within(25_000, async () => (await handled("kill")).length >= 30);
    const ids = (await handled("kill")).map(({ user_id }) => user_id);
    expect(new Set(ids).size).toBe(30);
    expect(ids).toHaveLength(30);
    await until(async () => (await handled("after")).length === 10);
  }, 45_000);

  it("replaces a service's processes under load without a failed request, and leaves the others alone", async () => {
    const before = await pids();
    const load = startLoad({
      port: stack.port,
      readPath: "/billing/load",
      writePath: (id) => `/billing/${id}/charge`,
    });
    const calls = startLoad({ port: stack.port, readPath: "/who-bills", ratePerSecond: 60 });
    await sleep(300);
    const { code, stderr } = await stack.run("restart", "billing", "--json");
    await sleep(300);
    const [result, called] = [await load.stop(), await calls.stop()];
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect([result.failures, called.failures]).toEqual([[], []]);
    expect(result.gets).toBeGreaterThan(100);
    const after = await pids();
    expect(after.billing).not.toEqual(before.billing);
    // The old one and the new one, and nobody else.
    for (const { pids } of [result, called]) expect(pids).toEqual(new Set([...before.billing, ...after.billing]));
    expect([after.web, after.workers]).toEqual([before.web, before.workers]);
  }, 40_000);

  it("replaces and scales workers while they work, and each event has its effect once", async () => {
    const { workers: before } = await pids();
    const publishing = publish("rolled", 150, 20);
    const restarted = await stack.run("restart", "workers", "--json");
    const up = await stack.run("scale", "workers", "3", "--json");
    const { workers: three } = await pids();
    const down = await stack.run("scale", "workers", "2", "--json");
    expect([restarted.code, up.code, down.code]).toEqual([0, 0, 0]);
    await publishing;
    await within(20_000, async () => new Set((await handled("rolled")).map(({ user_id }) => user_id)).size === 150);
    const rows = await handled("rolled");
    expect(rows).toHaveLength(150);
    expect(three).toHaveLength(3);
    expect((await pids()).workers).toHaveLength(2);
    for (const pid of before) expect(three).not.toContain(pid);
  }, 60_000);

  it("replaces one process by its name, and says what is there when nothing has it", async () => {
    const [first] = (await status()).processes.filter(({ role }) => role === "worker");
    expect((await stack.run("restart", first?.name as string)).code).toBe(0);
    const { workers } = await pids();
    expect(workers).toHaveLength(2);
    expect(workers).not.toContain(first?.pid);
    const wrong = await stack.run("restart", "wrokers");
    expect(wrong).toMatchObject({ code: 3, stderr: expect.stringContaining("did you mean workers?") });
    expect((await stack.run("scale", "workers", "99")).stderr).toContain("rungs up --workers 99");
  }, 30_000);

  it("sends requests by the routes of new code once its processes are replaced", async () => {
    expect((await fetch(`${stack.app}/invoices/1`)).status).toBe(404);
    await writeFile(join(folder, "new-code"), "");
    expect((await stack.run("restart", "billing")).code).toBe(0);
    await until(async () => (await fetch(`${stack.app}/invoices/1`)).status === 200);
    expect((await pids()).billing).toEqual([(await ask("/invoices/1")).pid]);
  }, 30_000);

  it("keeps the broker's password in files of their owner", async () => {
    const password = (await readFile(join(folder, "secrets", "rabbitmq-password"), "utf8")).trim();
    expect(password.length).toBeGreaterThan(30);
    for (const { pid } of (await status()).processes) {
      expect(await readFile(`/proc/${pid}/cmdline`, "utf8")).not.toContain(password);
    }
  });

  it("leaves nothing when it ends", async () => {
    const all = identities((await status()).processes);
    expect(await stack.end()).toBe(0);
    expect(stillRunning(all)).toEqual([]);
  }, 40_000);
});
