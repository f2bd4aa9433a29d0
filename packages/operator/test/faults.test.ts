/** Every server of a stack killed or frozen once: what comes back by itself, how fast, and what clients saw. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createOutput } from "../src/output.ts";
import { ensurePrograms } from "../src/stack/process/programs.ts";
import { startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "2", "--processes", "2"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

const named = async (name: string) => (await stack.status()).processes.find((process) => process.name === name);

/** Kills it and gives how long the app, asked again and again, did not answer. */
async function killAndWait(name: string): Promise<number> {
  const before = await named(name);
  process.kill(before?.pid as number, "SIGKILL");
  const since = performance.now();
  let lastFailureMs = 0;
  await until(async () => {
    const isFine = await fetch(`${stack.app}/writes`).then(
      async (answer) => {
        await answer.text();
        return answer.ok;
      },
      () => false,
    );
    if (!isFine) lastFailureMs = performance.now() - since;
    const now = await named(name);
    return isFine && now !== undefined && now.pid !== before?.pid;
  });
  return lastFailureMs;
}

describe("a killed server comes back", () => {
  it.each([
    ["balancer", 1_500],
    ["redis", 1_500],
    ["database-0", 5_000],
    ["helper", 100],
  ])(
    "%s, and the app answers again within %i ms",
    async (name, withinMs) => {
      expect(await killAndWait(name)).toBeLessThan(withinMs);
      expect((await fetch(`${stack.app}/write?id=after-${name}`, { method: "POST" })).status).toBe(200);
    },
    30_000,
  );

  it("without a worker of the old balancer left on its port", async () => {
    const balancer = await named("balancer");
    const { text } = await import("./support/raw.ts").then(({ sendRaw }) =>
      sendRaw(stack.port, "GET /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    );
    expect(text).toContain("200 OK");
    expect(balancer).toMatchObject({ state: "ready", crashes: 1 });
  });
});

describe("when no web process is there", () => {
  it("people get a page and programs get JSON, both with Retry-After", async () => {
    for (const process of (await stack.status()).processes) {
      if (process.role === "web") globalThis.process.kill(process.pid, "SIGKILL");
    }
    const page = await fetch(`${stack.app}/read`, { headers: { accept: "text/html" } });
    const json = await fetch(`${stack.app}/read`, { headers: { accept: "application/json" } });
    expect([page.status, json.status]).toEqual([502, 502]);
    for (const { headers } of [page, json]) {
      expect(headers.get("retry-after")).toBe("2");
      expect(headers.get("cache-control")).toBe("no-store");
    }
    expect(await page.text()).toContain("Back in a moment");
    expect(await json.json()).toMatchObject({ errors: { body: [expect.any(String)] } });
    await until(async () => (await fetch(`${stack.app}/read`)).ok);
  }, 30_000);
});

describe("a frozen web process", () => {
  it("is killed and started again; reads are answered by the other one", async () => {
    await until(async () => (await stack.status()).processes.length === 6);
    await sleep(2_000);
    const victim = await named("web-1");
    const load = startLoad({ port: stack.port, ratePerSecond: 60, connections: 40 });
    await sleep(300);
    process.kill(victim?.pid as number, "SIGSTOP");
    const until20 = performance.now() + 20_000;
    while ((await named("web-1"))?.pid === victim?.pid && performance.now() < until20) await sleep(200);
    await sleep(1_000);
    const { failures, gets } = await load.stop();
    expect((await named("web-1"))?.pid).not.toBe(victim?.pid);
    expect(gets).toBeGreaterThan(300);
    expect(failures.filter(({ method }) => method === "GET")).toEqual([]);
    // Writes that had been sent to it: fewest connections go first, so it got few.
    expect(failures.length).toBeLessThanOrEqual(20);
  }, 40_000);
});

describe("a server that is not installed", () => {
  it("is named with its packages, and nothing is installed without being told to", async () => {
    const output = createOutput({ stdout: process.stdout, stderr: process.stderr }, { isJson: true, environment: {} });
    const missing = { name: "no-such-server", apt: "no-such-package", brew: "no-such-formula" };
    const signal = new AbortController().signal;
    const asked: string[] = [];
    const confirm = async (question: string) => {
      asked.push(question);
      return false;
    };
    const refused = ensurePrograms([missing], { environment: { PATH: "/usr/bin" }, confirm, output, signal }, false);
    await expect(refused).rejects.toThrow(
      /needs no-such-server.*apt-get install no-such-package.*brew install no-such-formula/,
    );
    const silent = ensurePrograms(
      [missing],
      { environment: { PATH: "/nowhere" }, confirm: undefined, output, signal },
      false,
    );
    await expect(silent).rejects.toMatchObject({ code: "PACKAGE_MISSING" });
  });
});
