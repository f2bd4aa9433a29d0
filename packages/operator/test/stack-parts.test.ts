/** Order of starts and stops, who holds a folder, bounds of logs, and what an app says of itself. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveTopology } from "rungs/topology";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readAppPackage } from "../src/stack/app-package.ts";
import type { Component } from "../src/stack/component.ts";
import { LogFile } from "../src/stack/process/log-file.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { identify } from "../src/stack/process/process-identity.ts";
import { generatedSecret } from "../src/stack/process/secrets.ts";
import { planStack } from "../src/stack/stack-plan.ts";
import { clearUp, holdFolder } from "../src/stack/stack-record.ts";
import { startAll, stopAll } from "../src/stack/start-order.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-parts-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const never = new AbortController().signal;

function parts(events: string[], failing?: string): Component[] {
  const part = (name: string, needs: readonly string[]): Component => ({
    ...{ name, needs, role: "companion", plan: "" },
    async start(signal) {
      events.push(`+${name}`);
      if (name === failing) throw new Error(`${name} does not work`);
      await new Promise((resolve) => setTimeout(resolve, 10));
      signal.throwIfAborted();
      events.push(`=${name}`);
    },
    async stop() {
      events.push(`-${name}`);
    },
    processes: () => [],
  });
  return [part("balancer", ["web"]), part("web", ["database", "redis"]), part("database", []), part("redis", [])];
}

describe("the order of a start", () => {
  it("is by need, side by side where nothing is needed, and the other way round at the end", async () => {
    const events: string[] = [];
    const all = parts(events);
    await startAll(all, { signal: never });
    expect(events.slice(0, 2).sort()).toEqual(["+database", "+redis"]);
    expect(events.slice(4)).toEqual(["+web", "=web", "+balancer", "=balancer"]);
    await stopAll(all);
    expect(events.slice(8, 10)).toEqual(["-balancer", "-web"]);
    expect(events).toHaveLength(12);
  });

  it("ends with the first failure: what needs it never starts, and everything is stopped", async () => {
    const events: string[] = [];
    await expect(startAll(parts(events, "redis"), { signal: never })).rejects.toThrow("redis does not work");
    expect(events).not.toContain("+web");
    expect(events.filter((event) => event.startsWith("-")).sort()).toEqual([
      "-balancer",
      "-database",
      "-redis",
      "-web",
    ]);
  });

  it("refuses parts that need each other, or something unknown", async () => {
    const [balancer, web] = parts([]) as [Component, Component];
    await expect(startAll([balancer, { ...web, needs: ["balancer"] }], { signal: never })).rejects.toThrow("a circle");
    await expect(startAll([balancer], { signal: never })).rejects.toThrow("no part of the stack");
  });
});

describe("a stack's folder", () => {
  it("has one holder, by pid and start; a dead one's mark is no hindrance", async () => {
    const release = await holdFolder(folder);
    await expect(holdFolder(folder)).rejects.toThrow(`process id ${process.pid}`);
    await release();
    // This very pid, but another process: numbers are given out again.
    await writeFile(join(folder, "launcher.json"), JSON.stringify({ pid: process.pid, startedAt: "1" }));
    await (await holdFolder(folder))();
    await writeFile(join(folder, "launcher.json"), "half a fi");
    await (await holdFolder(folder))();
  });

  it("is taken by one of many that come at once", async () => {
    await writeFile(join(folder, "launcher.json"), JSON.stringify({ pid: 999_999, startedAt: "1" }));
    const results = await Promise.allSettled(Array.from({ length: 20 }, () => holdFolder(folder)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });

  it("is cleared of nothing but the very processes of the record", async () => {
    const self = identify(process.pid);
    const record = { launcher: { pid: 1, startedAt: "" }, control: "", ports: {} };
    expect(await clearUp({ ...record, children: [{ name: "web-1", pid: process.pid, startedAt: "1" }] })).toEqual([]);
    expect(self).toBeDefined();
  });

  it("keeps a secret for the next start, for its owner only", async () => {
    const first = await generatedSecret(folder, "redis-password");
    expect(first).toMatch(/^[\w-]{43}$/);
    expect(await generatedSecret(folder, "redis-password")).toBe(first);
    expect(await generatedSecret(folder, "other")).not.toBe(first);
    expect((await stat(join(folder, "redis-password"))).mode & 0o777).toBe(0o600);
  });

  it("keeps its ports, and takes others where one is taken", async () => {
    const first = await choosePorts(["a", "b"], {});
    expect(await choosePorts(["a", "b", "c"], first)).toMatchObject(first);
    const both = await choosePorts(["a", "b"], { a: first["a"] as number, b: first["a"] as number });
    expect(both["a"]).not.toBe(both["b"]);
  });
});

describe("a log", () => {
  it("is bounded, whole lines only, without those that are not worth keeping", async () => {
    const path = join(folder, "child.log");
    const log = new LogFile(path, { bytesMax: 1_000, keep: (line) => !line.includes("noise") });
    for (let index = 0; index < 200; index++) log.write(`line ${index}\nnoi`);
    log.write("se\n");
    const [now, before] = await Promise.all([readFile(path, "utf8"), readFile(`${path}.1`, "utf8")]);
    expect(now.length).toBeLessThanOrEqual(1_000);
    expect(before.length).toBeLessThanOrEqual(1_000);
    expect(now).not.toContain("noise");
    expect(log.tail(1)).toContain("line 199");
  });
});

describe("the plan of an app", () => {
  const planned = async (manifest: object, environment: Record<string, string> = {}, rung = "2") => {
    await writeFile(join(folder, "package.json"), JSON.stringify(manifest));
    const { topology } = resolveTopology({ environment, flags: { rung } });
    return planStack({ topology, app: await readAppPackage(folder), folder, environment });
  };

  it("finds the app by its package.json or by habit, and says what to write when it is not there", async () => {
    await expect(planned({})).rejects.toThrow('"rungs": { "app": "src/app.ts" }');
    await writeFile(join(folder, "app.ts"), "");
    expect((await planned({})).app.app).toBe(join(folder, "app.ts"));
    await expect(planned({ rungs: { app: "nowhere.ts" } })).rejects.toThrow("nowhere.ts");
    await expect(planned({ rungs: { balancer: { uploads: [{ path: "x; evil" }] } } })).rejects.toThrow(
      "rungs.balancer.uploads",
    );
  });

  it("starts a Redis unless the operator has one, and gives web processes references, not secrets", async () => {
    await writeFile(join(folder, "app.ts"), "");
    const own = await planned({});
    expect(own).toMatchObject({ rung: 2, balancer: "nginx", hasRedis: true, embedded: 1, places: 12 });
    expect(own.groups).toMatchObject([{ name: "web", processes: 4, places: 12, isRouted: true }]);
    const given = await planned({}, { REDIS_URL: "redis://:hush@10.0.0.1:6379" });
    expect(given.hasRedis).toBe(false);
    const web = given.processTopology({ group: "web", port: 21_000 });
    expect(web.web).toMatchObject({ host: "127.0.0.1", port: 21_000, processes: 1, trustProxy: ["loopback"] });
    expect(JSON.stringify(web)).not.toContain("hush");
  });

  it("refuses what nothing carries out yet", async () => {
    await writeFile(join(folder, "app.ts"), "");
    await writeFile(join(folder, "package.json"), "{}");
    const content = { regions: { eu: { addresses: ["192.0.2.1"] } } };
    const { topology } = resolveTopology({ file: { name: "f", content } });
    const app = await readAppPackage(folder);
    expect(() => planStack({ topology, app, folder, environment: {} })).toThrow("regions");
  });
});
