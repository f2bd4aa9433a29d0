/** `rungs up --rung 3` on the small app: client -> Varnish -> nginx -> web, and the commands about it. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask } from "./support/edge.ts";
import { startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "3", "--processes", "2"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

const process3 = (name: string) => stack.line.processes.find((process) => process.name === name);

/** Of the answer that visitors get. */
const number = async () => ((await (await fetch(`${stack.app}/shared`)).json()) as { number: number }).number;

describe("rungs up --rung 3", () => {
  it("starts a cache and Varnish beside the servers of rung 2", () => {
    expect(stack.line.rung).toBe(3);
    const names = stack.line.processes.map(({ name }) => name);
    expect(names).toEqual(["database-0", "helper", "redis", "cache", "web-1", "web-2", "balancer", "varnish"]);
    expect(process3("varnish")?.port).toBe(stack.port);
  });

  it("tells the app who really asks, and no more than that", async () => {
    const lies = { "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https", "x-forwarded-host": "evil.example" };
    const { body } = await ask(stack.port, "/mirror", { headers: { ...lies, cookie: "a=b" } });
    const mirror = JSON.parse(body);
    expect(mirror).toMatchObject({ ip: "127.0.0.1", protocol: "http", host: `127.0.0.1:${stack.port}` });
    expect(mirror.headers["x-forwarded-for"]).toBe("127.0.0.1");
    expect(JSON.stringify(mirror)).not.toMatch(/6\.6\.6\.6|evil\.example/);
  });

  it("listens on loopback alone but for what is meant to be public", async () => {
    const listening = await readFile("/proc/net/tcp", "utf8");
    const ours = new Set(stack.line.processes.map(({ port }) => port));
    const open = listening
      .split("\n")
      .slice(1)
      .filter((line) => line.split(/\s+/)[4] === "0A")
      .map((line) => (line.split(/\s+/)[2] ?? "").split(":"))
      .filter(([, port]) => ours.has(Number.parseInt(port ?? "", 16)));
    expect(open.length).toBeGreaterThanOrEqual(5);
    for (const [address] of open) expect(address).toBe("0100007F");
  });

  it("keeps its secrets out of arguments and away from other users", async () => {
    const secret = (await readFile(join(stack.folder, "secrets", "purge-secret"), "utf8")).trim();
    expect(secret.length).toBeGreaterThan(30);
    for (const pid of await readdir("/proc")) {
      if (!/^\d+$/.test(pid)) continue;
      expect(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).not.toContain(secret);
    }
    for (const file of ["secrets/purge-secret", "secrets/cache-password", "cache/redis.conf"]) {
      expect([file, (await stat(join(stack.folder, file))).mode & 0o077]).toEqual([file, 0]);
    }
    // Started by root, Varnish reads its file as a user of its own.
    for (const file of ["varnish", "varnish/edge.vcl"]) {
      expect([file, (await stat(join(stack.folder, file))).mode & 0o007]).toEqual([file, 0]);
    }
  });

  it("takes uploads and streams through", async () => {
    const bytes = Buffer.alloc(1_000_000, 7);
    const sent = await fetch(`${stack.app}/uploads`, {
      method: "POST",
      body: bytes,
      headers: { "content-type": "application/octet-stream" },
    });
    expect(await sent.json()).toMatchObject({ bytes: bytes.length });
    const stream = await fetch(`${stack.app}/stream`);
    expect(stream.headers.get("content-type")).toContain("text/event-stream");
    const first = await stream.body?.getReader().read();
    expect(first?.value?.length).toBeGreaterThan(0);
  });

  it("hides what is not for the outside", async () => {
    for (const path of ["/metrics", "/internal/secret", "/internal"])
      expect((await ask(stack.port, path)).status).toBe(404);
  });

  it.runIf(process.getuid?.() === 0)("runs Varnish as users of its own when root starts it", async () => {
    const { pid } = process3("varnish") as { pid: number };
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
    const workers = children
      .trim()
      .split(" ")
      .filter((child) => child !== "");
    const users = await Promise.all(
      workers.map(async (child) => /^Uid:\t(\d+)/m.exec(await readFile(`/proc/${child}/status`, "utf8"))?.[1]),
    );
    expect(users.length).toBeGreaterThan(0);
    // The shell that ends it with the launcher is root's; the process that talks to clients is not.
    expect(users.some((user) => user !== "0")).toBe(true);
  });

  it("brings Varnish back when it was killed", async () => {
    const before = (await stack.status()).processes.find(({ name }) => name === "varnish");
    process.kill(before?.pid as number, "SIGKILL");
    const since = performance.now();
    await until(async () => {
      const now = (await stack.status()).processes.find(({ name }) => name === "varnish");
      return (
        now !== undefined &&
        now.pid !== before?.pid &&
        (await fetch(`${stack.app}/read`).catch(() => undefined))?.ok === true
      );
    });
    expect(performance.now() - since).toBeLessThan(3_000);
  }, 20_000);

  it("shows what it has while the balancer is gone", async () => {
    await fetch(`${stack.app}/shared`);
    const balancer = (await stack.status()).processes.find(({ role }) => role === "balancer");
    process.kill(balancer?.pid as number, "SIGKILL");
    for (let look = 0; look < 20; look++) expect((await fetch(`${stack.app}/shared`)).status).toBe(200);
    await until(async () => (await fetch(`${stack.app}/read`)).ok);
  }, 20_000);

  it("fails no request while every web process is replaced", async () => {
    const load = startLoad({ port: stack.port });
    const { code } = await stack.run("restart", "web", "--json");
    const result = await load.stop();
    expect(code).toBe(0);
    expect(result.gets).toBeGreaterThan(50);
    expect(result.posts).toBeGreaterThan(50);
    expect(result.failures).toEqual([]);
  }, 60_000);
});

describe("rungs cdn", () => {
  it("tells how much it takes", async () => {
    await fetch(`${stack.app}/shared`);
    await fetch(`${stack.app}/shared`);
    const { code, stdout, stderr } = await stack.run("cdn", "--json");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const figures = JSON.parse(stdout);
    expect(figures.hits).toBeGreaterThan(0);
    expect(figures.misses).toBeGreaterThan(0);
    expect(figures.hitRatio).toBeGreaterThan(0);
    expect(figures.hitRatio).toBeLessThan(1);
    expect((await stack.run("cdn")).stdout).toContain("hit ratio");
  });

  it("inspects an address: kept, and why not", async () => {
    await fetch(`${stack.app}/shared`);
    const { stdout } = await stack.run("cdn", "inspect", "/shared", "--json");
    const kept = JSON.parse(stdout);
    expect(kept).toMatchObject({ status: 200, result: "hit", keys: ["site", "numbers"], notKept: null });
    expect(kept.ttlSeconds).toBeGreaterThan(10);
    const private_ = JSON.parse((await stack.run("cdn", "inspect", "/read", "--json")).stdout);
    expect(private_).toMatchObject({ keys: [], notKept: expect.stringContaining("does not opt in") });
    const { stdout: text } = await stack.run("cdn", "inspect", `${stack.app}/shared`);
    expect(text).toContain("from the CDN");
    expect((await stack.run("cdn", "inspect")).code).toBe(2);
  });

  it("purges by tag", async () => {
    const before = await number();
    expect(await number()).toBe(before);
    const { code, stdout } = await stack.run("cdn", "purge", "numbers", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ purged: true, cdn: "varnish", keys: ["numbers"] });
    expect(await number()).toBeGreaterThan(before);
    expect((await stack.run("cdn", "purge", "--all")).stdout).toContain("1 key purged");
    expect((await stack.run("cdn", "purge")).code).toBe(2);
  });
});

describe("a write", () => {
  it("purges what it changed, from whichever process", async () => {
    for (let round = 0; round < 10; round++) {
      await fetch(`${stack.app}/shared`);
      const before = await number();
      await fetch(`${stack.app}/bump`, { method: "POST" });
      await until(async () => (await number()) > before);
    }
  }, 20_000);
});
