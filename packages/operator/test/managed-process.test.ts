/** A child process under the launcher: readiness, crashes, ends, and what remains when the launcher is killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ComponentState } from "../src/stack/component.ts";
import { ManagedProcess, type ProcessPlan } from "../src/stack/process/managed-process.ts";
import { identify, isRunning } from "../src/stack/process/process-identity.ts";
import { until } from "./support/orders.ts";

let folder: string;
let managed: ManagedProcess[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-process-"));
  managed = [];
});
afterEach(async () => {
  await Promise.all(managed.map((process) => process.stop()));
  await rm(folder, { recursive: true, force: true });
});

const never = new AbortController().signal;

/** A shell script; it is ready when the file "ready" is there. */
function script(text: string, options: Partial<ProcessPlan> = {}): ManagedProcess {
  const process = new ManagedProcess({
    name: "child",
    role: "companion",
    command: "/bin/sh",
    args: ["-c", text],
    folder,
    environment: { PATH: globalThis.process.env["PATH"] },
    port: null,
    logFolder: folder,
    probe: async () => void (await readFile(join(folder, "ready"))),
    ...options,
  });
  managed.push(process);
  return process;
}

describe("one that is lost", () => {
  it("is killed with its group, and stays down until it is started again; what precedes a start is done each time", async () => {
    let prepared = 0;
    const process = script("sleep 60 & echo $! > child; echo $$ > ready; sleep 60", {
      prepare: async () => void prepared++,
    });
    await process.start(never);
    const child = identify(Number(await readFile(join(folder, "child"), "utf8")));
    await process.lose();
    expect([process.state, process.report()]).toEqual(["lost", []]);
    await until(() => child !== undefined && !isRunning(child));
    // Longer than the first wait after a crash.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([process.state, prepared]).toEqual(["lost", 1]);
    await process.start(never);
    expect(process.report()).toMatchObject([{ state: "ready", crashes: 0 }]);
    expect(prepared).toBe(2);
  });
});

describe("a start", () => {
  it("is done when the probe says so, under the pid of the program itself", async () => {
    const process = script("sleep 0.2; echo $$ > ready; sleep 60");
    await process.start(never);
    expect(Number(await readFile(join(folder, "ready"), "utf8"))).toBe(process.pid);
    expect(process.report()).toMatchObject([{ name: "child", state: "ready", crashes: 0 }]);
  });

  it("that ends at once is an error with the end of the log, and is not tried again", async () => {
    const process = script("echo the port is taken >&2; exit 7");
    const error = (await process.start(never).catch((caught: unknown) => caught)) as { code: string; message: string };
    expect(error.code).toBe("SERVER_START_FAILED");
    expect(error.message).toMatch(/child did not start: it ended with code 7[\s\S]*the port is taken/);
    expect(process.report()).toEqual([]);
  });

  it("that takes too long is an error, and leaves nothing", async () => {
    const process = script("sleep 60 & sleep 60", { startTimeoutMs: 200 });
    await expect(process.start(never)).rejects.toThrow("it was not ready within 200 ms");
    expect(process.pid).toBeUndefined();
  });

  it("can be broken off", async () => {
    const process = script("sleep 60");
    const stop = new AbortController();
    const started = process.start(stop.signal);
    stop.abort(new Error("enough"));
    await expect(started).rejects.toThrow("enough");
  });

  it("of a program that does not exist is an error", async () => {
    await expect(script("", { command: join(folder, "nowhere") }).start(never)).rejects.toThrow(
      "it ended with code 127",
    );
  });
});

describe("a crash", () => {
  it("is followed by a new start, and counted", async () => {
    const states: ComponentState[] = [];
    const process = script("touch ready; sleep 60", { onChange: (state) => states.push(state) });
    await process.start(never);
    const { pid } = process;
    process.kill();
    await until(() => states.includes("ready"));
    expect(process.pid).not.toBe(pid);
    expect(process.report()).toMatchObject([{ state: "ready", crashes: 1 }]);
    expect(await readFile(process.log.path, "utf8")).toContain("crashed: it ended by SIGKILL");
  });

  it("takes what the program had started with it", async () => {
    const process = script("sleep 61 & echo $! > helper; touch ready; wait");
    await process.start(never);
    const helper = identify(Number(await readFile(join(folder, "helper"), "utf8")));
    expect(helper).toBeDefined();
    process.kill();
    await until(() => helper !== undefined && !isRunning(helper));
  });

  it("after crash comes later each time", async () => {
    await writeFile(join(folder, "ready"), "");
    let starts = 0;
    const process = script("sleep 0.05; exit 1", {
      onChange(state) {
        if (state === "ready") starts++;
      },
    });
    await process.start(never);
    // 100 + 200 + 400 ms, and the next after 800.
    await new Promise((resolve) => setTimeout(resolve, 1_400));
    expect(starts).toBeGreaterThanOrEqual(2);
    expect(starts).toBeLessThanOrEqual(4);
  });
});

describe("an end", () => {
  it("waits for the program's own", async () => {
    const process = script("trap 'echo done > ended; exit 0' TERM; touch ready; while :; do sleep 0.05; done");
    await process.start(never);
    await process.stop();
    expect(await readFile(join(folder, "ended"), "utf8")).toBe("done\n");
  });

  it("is forced when the time is over", async () => {
    const process = script("trap '' TERM; touch ready; while :; do sleep 0.05; done", { stopTimeoutMs: 200 });
    await process.start(never);
    const identity = identify(process.pid ?? 0);
    await process.stop();
    expect(identity !== undefined && isRunning(identity)).toBe(false);
  });

  it("comes to the whole group when the launcher is killed, also to a program that takes no notice", async () => {
    const module = fileURLToPath(new URL("../src/stack/process/managed-process.ts", import.meta.url));
    const launcher = spawn(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `const { ManagedProcess } = await import(${JSON.stringify(module)});
         const child = new ManagedProcess({ name: "child", role: "companion", command: "/bin/sh", port: null, folder: ".", logFolder: ".",
           args: ["-c", "trap '' TERM; sleep 62 & echo $! > helper; while :; do sleep 1; done"], environment: { PATH: process.env.PATH },
           probe: async () => {} });
         await child.start(new AbortController().signal);
         console.log(child.pid);
         setInterval(() => {}, 1000);`,
      ],
      { cwd: folder, stdio: ["ignore", "pipe", "inherit"] },
    );
    const [line] = (await once(launcher.stdout, "data")) as [Buffer];
    const child = identify(Number(String(line)));
    await until(async () => (await readFile(join(folder, "helper"), "utf8").catch(() => "")) !== "");
    const helper = identify(Number(await readFile(join(folder, "helper"), "utf8")));
    expect([child, helper]).not.toContain(undefined);
    launcher.kill("SIGKILL");
    const since = performance.now();
    while ([child, helper].some((one) => one !== undefined && isRunning(one)) && performance.now() - since < 15_000) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect([child, helper].filter((one) => one !== undefined && isRunning(one))).toEqual([]);
  }, 20_000);
});
