/** HAProxy as the second driver of the same balancer: killed, replaced, scaled and reloaded under load, as strict, and with a group. */
import { execFileSync } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StackStatus } from "../src/stack/component.ts";
import { startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { sendRaw } from "./support/raw.ts";
import { type RunningStack, stackFolder, startStackApp } from "./support/stack.ts";

let folder: string;
let stack: RunningStack;
beforeAll(async () => {
  folder = await stackFolder();
  const config = join(folder, "settings.json");
  await writeFile(config, JSON.stringify({ services: { billing: {} } }));
  stack = await startStackApp(["--rung", "2", "--processes", "2", "--balancer", "haproxy", "--config", config], folder);
}, 60_000);
afterAll(async () => {
  await stack?.dispose();
  await rm(folder, { recursive: true, force: true });
}, 30_000);

const webs = async () => (await stack.status()).processes.filter(({ role }) => role === "web");

describe("HAProxy in front", () => {
  it("sends no request to a free place after its start", async () => {
    const load = startLoad({ port: stack.port });
    await sleep(1_000);
    expect((await load.stop()).failures).toEqual([]);
  }, 20_000);

  it("hides a killed process from reads and from keyed writes", async () => {
    const load = startLoad({ port: stack.port, isKeyed: true });
    await sleep(500);
    const [victim] = await webs();
    process.kill(victim?.pid as number, "SIGKILL");
    await until(async () => (await webs()).some(({ name, pid }) => name === victim?.name && pid !== victim.pid));
    await sleep(700);
    expect((await load.stop()).failures).toEqual([]);
  }, 30_000);

  it("loses no request in a rolling restart, nor from 2 to 3 processes and back", async () => {
    const load = startLoad({ port: stack.port });
    await sleep(300);
    for (const words of [
      ["restart", "web"],
      ["scale", "web", "3"],
      ["scale", "web", "2"],
    ]) {
      expect(await stack.run(...words, "--json")).toMatchObject({ code: 0, stderr: "" });
    }
    await sleep(300);
    const result = await load.stop();
    expect(result.failures).toEqual([]);
    expect(result.pids.size).toBe(5);
  }, 60_000);

  it("loses no request when it reads its configuration again", async () => {
    const balancer = (await stack.status()).processes.find(({ role }) => role === "balancer");
    const load = startLoad({ port: stack.port });
    await sleep(500);
    process.kill(balancer?.pid as number, "SIGUSR2");
    await sleep(1_500);
    expect((await load.stop()).failures).toEqual([]);
  }, 20_000);

  it("says itself who asks, hides what is hidden, and limits what is sent", async () => {
    const mirror = await fetch(`${stack.app}/mirror`, {
      headers: { "x-forwarded-for": "6.6.6.6", "x-forwarded-host": "evil.example" },
    });
    const seen = (await mirror.json()) as { readonly headers: Readonly<Record<string, string>> };
    expect(seen).toMatchObject({ ip: "127.0.0.1", protocol: "http", host: `127.0.0.1:${stack.port}` });
    expect(seen.headers["x-forwarded-for"]).toBe("127.0.0.1");
    for (const path of ["/metrics", "//metrics", "/%6detrics/", "/internal/secret"]) {
      expect((await fetch(`${stack.app}${path}`)).status).toBe(404);
    }
    const head = "POST /write?id=x HTTP/1.1\r\nHost: a\r\nContent-Length: 1200000\r\n\r\n";
    expect((await sendRaw(stack.port, head)).statuses).toEqual([413]);
    const smuggled = "POST /write?id=y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\n";
    expect((await sendRaw(stack.port, smuggled)).statuses).toEqual([400]);
  });
});

describe("a group of services behind HAProxy", () => {
  const pids = async () => {
    const { processes } = await stack.status();
    const of = (role: string) => processes.filter((process) => process.role === role).map(({ pid }) => pid);
    return { web: of("web"), billing: of("service") };
  };
  const answerOf = async (path: string, init?: RequestInit) =>
    (await (await fetch(`${stack.app}${path}`, init)).json()) as { pid: number; service: string; asker: number };

  it("gets the requests for its routes, and no others", async () => {
    const { web, billing } = await pids();
    for (const [path, method] of [
      ["/billing/one%2Ftwo?x=/read", "GET"],
      ["/billing/x/charge", "POST"],
    ] as const) {
      const { pid, service } = await answerOf(path, { method });
      expect([path, service, [pid]]).toEqual([path, "billing", billing]);
    }
    for (const path of ["/billing/rates", "/billing/rates/", "/read?x=/billing/x"]) {
      expect(web).toContain((await answerOf(path)).pid);
    }
    expect((await fetch(`${stack.app}/billing/x`, { method: "DELETE" })).status).toBe(404);
    const { pid, asker } = await answerOf("/who-bills");
    expect([[pid], web.includes(asker)]).toEqual([billing, true]);
  });

  it("is called over its inner address, at which nothing else is answered, and not from outside", async () => {
    const { groups } = (await stack.status()) as unknown as StackStatus;
    const inner = groups.flatMap(({ url }) => url ?? []);
    expect(inner).toHaveLength(2);
    for (const url of inner) {
      expect((await fetch(`${url}/internal/call/billing/who`, { method: "POST", body: "{}" })).status).toBe(401);
      for (const path of ["/read", "/billing/x", "/metrics", "/internal/callers"]) {
        expect([path, (await fetch(`${url}${path}`)).status]).toEqual([path, 404]);
      }
    }
    for (const path of ["/internal/call/billing/who", "//internal/call", "/internal/%63all/billing/who"]) {
      expect([path, (await fetch(`${stack.app}${path}`, { method: "POST" })).status]).toEqual([path, 404]);
    }
  });

  it("loses no request when it is replaced, and gets those for the new code's routes without a reload", async () => {
    expect((await fetch(`${stack.app}/invoices/1`)).status).toBe(404);
    await writeFile(join(folder, "new-code"), "");
    const master = stack.line.processes.find(({ role }) => role === "balancer")?.pid;
    const workers = () => execFileSync("ps", ["-o", "pid=", "--ppid", String(master)], { encoding: "utf8" });
    const before = workers();
    const load = startLoad({
      port: stack.port,
      readPath: "/billing/load",
      writePath: (id) => `/billing/${id}/charge`,
    });
    expect(await stack.run("restart", "billing", "--json")).toMatchObject({ code: 0, stderr: "" });
    const { pid, service } = await answerOf("/invoices/1");
    await sleep(300);
    const { failures, pids: answered } = await load.stop();
    expect(failures).toEqual([]);
    expect([service, answered.size, answered.has(pid)]).toEqual(["billing", 2, true]);
    expect(workers()).toEqual(before);
  }, 30_000);
});

describe("requests under way through HAProxy", () => {
  /** Of declared bots, for two processes. */
  const room = 64;
  const bot = { "user-agent": "Mozilla/5.0 (compatible; bingbot/2.0)" };
  const statusOf = async (path: string, headers: Record<string, string> = bot) =>
    (await fetch(`${stack.app}${path}`, { headers })).status;
  /** Fills the room for so long; resolves once one more is refused. */
  const fill = async (ms: number, signal: AbortSignal | null = null) => {
    const statuses: number[] = [];
    const all = Array.from({ length: room + 8 }, async () => {
      const { status } = await fetch(`${stack.app}/slow?ms=${ms}`, { headers: bot, signal });
      statuses.push(status);
    });
    const settled = Promise.allSettled(all);
    await until(() => statuses.length > 0);
    expect(statuses[0]).toBe(503);
    return { statuses, settled };
  };

  it("are refused beyond the room of their class and group, and it is free again when they are answered", async () => {
    const { statuses, settled } = await fill(2_000);
    const refused = await fetch(`${stack.app}/read`, { headers: bot });
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("2");
    expect(refused.headers.get("cache-control")).toBe("no-store");
    expect(refused.headers.get("content-type")).toBe("application/json");
    expect(await refused.json()).toMatchObject({ errors: { body: [expect.any(String)] } });
    const page = await fetch(`${stack.app}/read`, { headers: { ...bot, accept: "text/html" } });
    expect([page.status, page.headers.get("content-type")]).toEqual([503, "text/html; charset=utf-8"]);
    expect(await page.text()).toContain("Back in a moment");
    const others = [{ authorization: "Token x" }, { cookie: "a=b; __Host-session=x" }, { "user-agent": "cubot" }];
    for (const headers of others) {
      expect([headers, await statusOf("/read", headers as Record<string, string>)]).toEqual([headers, 200]);
    }
    for (const path of ["/readyz", "/billing/x"]) expect([path, await statusOf(path)]).toEqual([path, 200]);
    await settled;
    const accepted = statuses.filter((status) => status === 200).length;
    expect(accepted).toBeGreaterThanOrEqual(room);
    // Its threads look at the count before they raise it.
    expect(accepted).toBeLessThanOrEqual(room + 2);
    // Their connections are still open: requests are counted, not these.
    const again = await Promise.all(Array.from({ length: room - 4 }, () => statusOf("/slow?ms=100")));
    expect(new Set(again)).toEqual(new Set([200]));
  }, 20_000);

  it("count no more once their clients have left", async () => {
    const leaving = new AbortController();
    const { settled } = await fill(9_000, leaving.signal);
    leaving.abort();
    await settled;
    const since = performance.now();
    await until(async () => (await statusOf("/read")) === 200);
    expect(performance.now() - since).toBeLessThan(5_000);
  }, 20_000);
});
