/** The life of a stack: what `rungs up` says, makes and refuses, how it ends, and what a killed launcher leaves. */
import { execFileSync } from "node:child_process";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { until } from "./support/orders.ts";
import { identities, type RunningStack, stackApp, stackFolder, startStackApp, stillRunning } from "./support/stack.ts";

let folder: string;
let stack: RunningStack;
beforeAll(async () => {
  folder = await stackFolder();
  stack = await startStackApp(["--rung", "2", "--processes", "2"], folder);
}, 60_000);
afterAll(async () => {
  await stack?.dispose();
  await rm(folder, { recursive: true, force: true });
}, 30_000);

describe("a running stack", () => {
  it("is told in one line of JSON", () => {
    expect(stack.stdout().trim().split("\n")).toHaveLength(1);
    expect(stack.line).toMatchObject({ ready: true, dashboard: null, rung: 2, app: `http://127.0.0.1:${stack.port}` });
    const roles = stack.line.processes.map(({ role }) => role).sort();
    expect(roles).toEqual(["balancer", "companion", "database", "sessions", "web", "web"]);
    expect(stillRunning(identities(stack.line.processes))).toHaveLength(6);
  });

  it("answers status, logs and the app itself, with what the companion provided", async () => {
    expect(await stack.status()).toMatchObject({ running: true, rung: 2, processes: { length: 6 } });
    const table = await stack.run("status");
    expect(table.stdout).toMatch(/web-1 +web +\d+ +\d+ +ready/);
    const logs = await stack.run("logs", "web-1", "--lines", "5");
    expect(logs).toMatchObject({ code: 0, stdout: expect.stringContaining("ready after") });
    expect(await stack.run("logs", "wbe-1")).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("did you mean web-"),
    });
    const seen = (await (await fetch(`${stack.app}/mirror`)).json()) as { helper: string };
    expect(await (await fetch(seen.helper)).text()).toBe("helped");
  });

  it("refuses a second launcher on its folder, and names the first", async () => {
    const second = await rungs(["up", "--rung", "1", "--port", "0", "--dir", folder], { folder: stackApp });
    expect(second.code).toBe(2);
    expect(second.stderr).toContain(`${folder} is in use by the launcher with process id ${stack.launcher.pid}`);
    expect(second.stderr).toContain("rungs down");
  });

  it("refuses a port in use", async () => {
    const other = await stackFolder();
    const second = await rungs(["up", "--rung", "1", "--port", String(stack.port), "--dir", other], {
      folder: stackApp,
    });
    await rm(other, { recursive: true, force: true });
    expect(second.code).toBe(2);
    expect(second.stderr).toContain(`Port ${stack.port} on 127.0.0.1 is in use`);
    expect(second.stderr).toContain(`--port ${stack.port + 1}`);
  }, 20_000);

  it("listens on loopback only, and nowhere but where it says", () => {
    const pids = new Set(stack.line.processes.map(({ pid }) => pid));
    const told = stack.line.processes.flatMap(({ port }) => (port === null ? [] : [port])).sort();
    const lines = execFileSync("ss", ["-H", "-ltnp"], { encoding: "utf8" }).split("\n");
    const own = lines.filter((line) => [...line.matchAll(/pid=(\d+)/g)].some(([, pid]) => pids.has(Number(pid))));
    const addresses = own.map((line) => line.trim().split(/\s+/)[3] ?? "");
    expect(addresses.length).toBeGreaterThanOrEqual(told.length);
    for (const address of addresses) expect(address).toMatch(/^127\.0\.0\.1:\d+$/);
    expect([...new Set(addresses.map((address) => Number(address.split(":")[1])))].sort()).toEqual(told);
  });

  it("keeps secrets in files of their own, out of command lines, world-readable files and logs", async () => {
    const password = (await readFile(join(folder, "secrets", "redis-password"), "utf8")).trim();
    expect(password.length).toBeGreaterThan(40);
    const secrets = [password, "a secret of the helper"];
    for (const { pid } of stack.line.processes) {
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8");
      for (const secret of secrets) expect(line).not.toContain(secret);
    }
    for (const { path, mode, content } of await allFiles(folder)) {
      if (secrets.some((secret) => content.includes(secret))) expect({ path, mode }).toEqual({ path, mode: 0o600 });
      if (path.includes("/logs/")) for (const secret of secrets) expect(content).not.toContain(secret);
    }
    for (const name of ["secrets", "logs"]) expect((await stat(join(folder, name))).mode & 0o777).toBe(0o700);
    expect((await stat(join(folder, "control.sock"))).mode & 0o777).toBe(0o600);
  });

  it("has a Redis that tells nothing without its password", async () => {
    const { sendRaw } = await import("./support/raw.ts");
    const redis = stack.line.processes.find(({ role }) => role === "sessions");
    const { text } = await sendRaw(redis?.port as number, "KEYS *\r\n", { withinMs: 300 });
    expect(text).toContain("NOAUTH");
  });
});

describe("rungs up --dry-run", () => {
  it("tells what would start, and starts and writes nothing", async () => {
    const place = join(folder, "not-there");
    const args = ["up", "--rung", "2", "--processes", "3", "--dir", place, "--dry-run"];
    const table = await rungs(args, { folder: stackApp });
    expect(table).toMatchObject({ code: 0, stderr: "" });
    for (const part of ["database", "redis", "helper", "web", "nginx on 127.0.0.1:3000", "Nothing was started."]) {
      expect(table.stdout).toContain(part);
    }
    const json = await rungs([...args, "--json"], { folder: stackApp });
    const { parts } = JSON.parse(json.stdout) as { parts: { part: string; number: number }[] };
    expect(parts.find(({ part }) => part === "web")).toMatchObject({ number: 3 });
    await expect(stat(place)).rejects.toThrow("ENOENT");
  });

  it.each([
    [["up", "--processes", "0"], "--processes"],
    [["up", "--balancer", "ngnix"], "did you mean nginx?"],
    [["up", "--rung", "4", "--queue", "kafka"], "--rung 5"],
    [["up", "--rung", "5", "--queue", "kafak"], "did you mean kafka?"],
    [["up", "--workers", "0"], "services.workers.processes: expected an integer from 1 to 256"],
    [["up", "--group", "workers"], "Unknown flag --group"],
    [["up", "--rung", "3", "--replication", "strict"], "--rung 4"],
    [["up", "--rung", "4", "--replication", "none"], "expected one of synchronous, strict, asynchronous"],
    [["switchover", "first"], "rungs switchover 0"],
    [["scale", "web", "none"], "rungs scale web 6"],
    [["restart"], "rungs restart web"],
  ])("%s is refused with what to type", async (args, message) => {
    const refused = await rungs([...args, "--dir", join(folder, "not-there")], { folder: stackApp });
    expect(refused).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining(message) });
    expect(refused.stderr).not.toMatch(/^\s+at /m);
  });
});

describe("the end of a stack", () => {
  it("kill -9 of the launcher leaves no process, and up again finds data and secrets", async () => {
    await fetch(`${stack.app}/write?id=before-the-kill`, { method: "POST" });
    const password = await readFile(join(folder, "secrets", "redis-password"), "utf8");
    const all = identities((await stack.status()).processes);
    expect(all).toHaveLength(6);
    stack.launcher.kill("SIGKILL");
    await until(() => stillRunning(all).length === 0);
    expect(await stack.run("status", "--json")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('"running":false'),
    });
    expect(await stack.run("status")).toMatchObject({ code: 3, stderr: expect.stringContaining("Nothing runs in") });

    stack = await startStackApp(["--rung", "2", "--processes", "2"], folder);
    const { ids } = (await (await fetch(`${stack.app}/writes`)).json()) as { ids: string[] };
    expect(ids).toContain("before-the-kill");
    expect(await readFile(join(folder, "secrets", "redis-password"), "utf8")).toBe(password);
  }, 60_000);

  it("rungs down stops everything, and the launcher ends with 0", async () => {
    const all = identities((await stack.status()).processes);
    const ended = stack.end;
    expect(await stack.run("down")).toMatchObject({ code: 0, stdout: "Stopped.\n", stderr: "" });
    expect(await ended()).toBe(0);
    expect(stillRunning(all)).toEqual([]);
    expect(await stack.run("down")).toMatchObject({ code: 0, stdout: expect.stringContaining("Nothing runs in") });
  }, 30_000);

  it.each(["SIGINT", "SIGTERM"] as const)(
    "%s at rung 1 is an ordinary end",
    async (signal) => {
      stack = await startStackApp(["--rung", "1"], folder);
      expect(stack.line).toMatchObject({
        rung: 1,
        processes: [{ role: "database" }, { role: "companion" }, { role: "web", port: stack.port }],
      });
      const all = identities(stack.line.processes);
      expect((await fetch(`${stack.app}/read`)).status).toBe(200);
      expect(await stack.end(signal)).toBe(0);
      expect(stillRunning(all)).toEqual([]);
    },
    40_000,
  );
});

interface Found {
  readonly path: string;
  readonly mode: number;
  readonly content: string;
}

/** Files of the stack, but for the database's own. */
async function allFiles(at: string): Promise<Found[]> {
  const found: Found[] = [];
  for (const entry of await readdir(at, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || path.includes("/database/")) continue;
    found.push({ path, mode: (await stat(path)).mode & 0o777, content: await readFile(path, "latin1") });
  }
  return found;
}
