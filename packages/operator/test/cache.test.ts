/** `rungs cache` on a running stack: two web processes with a shared cache, behind nginx and Varnish. */
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { ask } from "./support/edge.ts";
import { until } from "./support/orders.ts";
import { type RunningStack, stackFolder, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
let webPorts: number[];
beforeAll(async () => {
  stack = await startStackApp(["--rung", "3", "--processes", "2"]);
  webPorts = stack.line.processes.filter(({ role }) => role === "web").map(({ port }) => port as number);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

/** The number of a key, asked of one process past the balancer. */
async function numberAt(process: number, id: string): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${webPorts[process]}/cached/${id}`);
  return ((await response.json()) as { number: number }).number;
}

async function json(...args: string[]) {
  const { code, stdout, stderr } = await stack.run(...args, "--json");
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: "" });
  return JSON.parse(stdout);
}

interface Level {
  readonly where: string;
  readonly notServed: string | null;
  readonly endedBy: string | null;
  readonly tags: readonly string[] | null;
  readonly ageMs: number | null;
  readonly asOf: number | null;
  readonly bytes: number | null;
}

const inspect = async (key: string) => {
  const { levels } = (await json("cache", "inspect", key)) as { levels: Level[] };
  return Object.fromEntries(levels.map((level) => [level.where, level])) as Record<string, Level>;
};

/** Loaded by the first process, and written to the shared level. */
async function loaded(id: string): Promise<number> {
  const number = await numberAt(0, id);
  await until(async () => (await inspect(`number:${id}`))["shared"]?.notServed === null);
  return number;
}

describe("rungs cache", () => {
  it("counts hits by level, over all processes", async () => {
    const before = (await json("cache")).all;
    await loaded("counted");
    for (let read = 0; read < 9; read++) await numberAt(0, "counted");
    for (let read = 0; read < 5; read++) await numberAt(1, "counted");
    const { all, processes } = await json("cache");
    expect(processes.map(({ process }: { process: string }) => process)).toEqual(["web-1", "web-2"]);
    expect(
      [all.reads, all.localHits, all.sharedHits, all.loads].map(
        (of, index) => of - [before.reads, before.localHits, before.sharedHits, before.loads][index],
      ),
    ).toEqual([15, 13, 1, 1]);
    expect(all.localHitRatio).toBeGreaterThan(0);
    expect(all.entries).toBeGreaterThanOrEqual(2);
    expect(all.bytes).toBeGreaterThan(0);
    const { stdout } = await stack.run("cache");
    expect(stdout).toMatch(/WHAT +WEB-1 +WEB-2 +ALL/);
    expect(stdout).toMatch(/of the rest, shared/);
  }, 20_000);

  it("says where a key is, and of what age and tags", async () => {
    await loaded("seen");
    const levels = await inspect("number:seen");
    expect(Object.keys(levels)).toEqual(["web-1", "web-2", "shared"]);
    expect(levels["web-1"]).toMatchObject({ notServed: null, tags: ["numbers", "number:seen"], bytes: null });
    expect(levels["web-2"]).toMatchObject({ notServed: "absent", ageMs: null });
    expect(levels["shared"]).toMatchObject({ notServed: null, tags: ["numbers", "number:seen"] });
    expect(levels["shared"]?.bytes).toBeGreaterThan(20);
    // Numbers of invalidations are microseconds of Redis's clock.
    expect(levels["shared"]?.asOf).toBeGreaterThan(1e15);
    const { stdout } = await stack.run("cache", "inspect", "number:seen");
    expect(stdout).toMatch(/web-1 +yes/);
    expect(stdout).toMatch(/web-2 +no: not there/);
    expect(stdout).toContain("tags: numbers, number:seen");
  }, 20_000);

  it("says why a key would not be served, and by which tag", async () => {
    await loaded("ended");
    await fetch(`${stack.app}/bump`, { method: "POST" });
    await until(async () => (await inspect("number:ended"))["web-1"]?.notServed === "invalidated");
    const levels = await inspect("number:ended");
    expect(levels["web-1"]?.endedBy).toBe("numbers");
    expect(levels["shared"]).toMatchObject({ notServed: "invalidated", endedBy: "numbers" });
    expect((await stack.run("cache", "inspect", "number:ended")).stdout).toContain("no: numbers was invalidated");
  }, 20_000);

  it("shows what is remembered as missing", async () => {
    await numberAt(0, "none");
    const { stdout } = await stack.run("cache", "inspect", "number:none", "--json");
    const local = JSON.parse(stdout).levels[0];
    expect(local).toMatchObject({ isNegative: true });
  });

  it("purges a tag in every process", async () => {
    const before = await loaded("tagged");
    expect(await numberAt(1, "tagged")).toBe(before);
    expect(await json("cache", "purge", "number:tagged")).toEqual({
      purged: true,
      tags: ["number:tagged"],
      keys: [],
      by: "web-1",
    });
    await until(async () => (await inspect("number:tagged"))["web-2"]?.endedBy === "number:tagged");
    const now = await numberAt(1, "tagged");
    expect(now).toBeGreaterThan(before);
    expect(await numberAt(0, "tagged")).toBe(now);
  }, 20_000);

  it("purges one key in every process and leaves others with its tags", async () => {
    const [before, other] = [await loaded("single"), await loaded("other")];
    expect([await numberAt(1, "single"), await numberAt(1, "other")]).toEqual([before, other]);
    expect((await stack.run("cache", "purge", "--key", "number:single")).stdout).toBe(
      "1 key purged, told to all processes by web-1.\n",
    );
    await until(async () => (await inspect("number:single"))["web-2"]?.notServed === "invalidated");
    expect((await inspect("number:single"))["shared"]?.endedBy).toBe("key=number:single");
    const now = await numberAt(1, "single");
    expect(now).toBeGreaterThan(before);
    expect(await numberAt(0, "single")).toBe(now);
    expect([await numberAt(0, "other"), await numberAt(1, "other")]).toEqual([other, other]);
  }, 20_000);

  it("lists the keys read most, of all processes", async () => {
    for (let round = 0; round < 1_500; round++) await numberAt(round % 2, round % 5 === 0 ? `cold-${round}` : "hot");
    const { keys, reads } = await json("cache", "top", "--number", "3");
    expect(keys).toHaveLength(3);
    expect(keys[0].key).toBe("number:hot");
    expect(keys[0].reads).toBeGreaterThan(600);
    expect(keys[0].reads).toBeLessThan(2_400);
    expect(keys[0].share).toBeGreaterThan(keys[1].share);
    expect(reads).toBeGreaterThan(1_000);
    expect((await stack.run("cache", "top")).stdout).toMatch(/number:hot +~/);
  }, 30_000);

  it("counts without a process that does not answer, and says so", async () => {
    const { pid } = stack.line.processes.find(({ name }) => name === "web-2") as { pid: number };
    process.kill(pid, "SIGSTOP");
    try {
      const { code, stdout, stderr } = await stack.run("cache", "--json");
      expect(code).toBe(0);
      expect(stderr).toContain("web-2 is not counted: The process did not answer: not within 5000 ms.");
      expect(JSON.parse(stdout).all.processes).toBe(1);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await until(async () => (await json("cache")).all.processes === 2);
  }, 30_000);

  it("asks the process that took a crashed one's place", async () => {
    const web2 = async () => (await stack.status()).processes.find(({ name }) => name === "web-2");
    const before = await web2();
    process.kill(before?.pid as number, "SIGKILL");
    await until(async () => {
      const { all, processes } = await json("cache");
      // It started with nothing.
      return all.processes === 2 && processes[1].cache.hits === 0;
    });
    expect((await web2())?.pid).not.toBe(before?.pid);
  }, 30_000);
});

describe("the way to the processes", () => {
  it("is no address: nothing of it is on their ports or in front", async () => {
    for (const port of [stack.port, ...webPorts]) {
      for (const path of ["/ask", "/cache", "/operations"]) {
        expect([port, path, (await ask(port, path)).status]).toEqual([port, path, 404]);
      }
    }
  });

  it("takes no question that is unknown, too long or no JSON", async () => {
    const socket = JSON.parse(await readFile(join(stack.folder, "stack.json"), "utf8")).control as string;
    const post = (body: string) =>
      new Promise<{ status: number; text: string }>((resolve, reject) => {
        const asked = request({ socketPath: socket, method: "POST", path: "/ask", agent: false }, async (response) => {
          let text = "";
          for await (const part of response.setEncoding("utf8")) text += part;
          resolve({ status: response.statusCode ?? 0, text });
        });
        asked.once("error", reject);
        asked.end(body);
      });
    expect((await post('{"about":"environment"}')).text).toContain("CONFIG_INVALID");
    expect((await post("no JSON")).status).toBe(400);
    expect((await post(JSON.stringify({ about: "cache.inspect", key: "k".repeat(20_000) }))).text).toContain(
      "CONFIG_INVALID",
    );
    expect(await post("x".repeat(2_000_000)).catch(() => ({ status: 400 }))).toMatchObject({ status: 400 });
    expect((await json("cache")).all.processes).toBe(2);
  });
});

describe("a command line that cannot be carried out", () => {
  it.each([
    [["cache", "inspect"], 2, "rungs cache top"],
    [["cache", "purge"], 2, "Which tags?"],
    [["cache", "top", "--number", "0"], 2, "--number"],
    [["cache", "inspect", "number:never-read"], 3, "No level holds the key number:never-read"],
  ])("%s", async (args, code, message) => {
    expect(await stack.run(...(args as string[]))).toMatchObject({
      code,
      stdout: "",
      stderr: expect.stringContaining(message as string),
    });
  });

  it("tells when nothing runs", async () => {
    const place = await stackFolder();
    for (const args of [["cache"], ["cache", "top"], ["cache", "purge", "x"], ["cache", "inspect", "x"]]) {
      const { code, stderr } = await rungs([...args, "--dir", place]);
      expect([args, code]).toEqual([args, 3]);
      expect(stderr).toContain("Nothing runs in");
    }
  }, 20_000);
});
