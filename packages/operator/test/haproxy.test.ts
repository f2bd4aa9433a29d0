/** HAProxy as the second driver of the same balancer: killed, replaced, scaled and reloaded under load, and as strict. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { sendRaw } from "./support/raw.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "2", "--processes", "2", "--balancer", "haproxy"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

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
