/** A program under limits, and what becomes of it when its owner dies. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { findHelpers, type Helpers, type LimitedProgram, runLimited } from "../../src/media/drivers/limited-process.ts";
import { eventually, ffmpeg, processesWith, reason, source, tools } from "./support/videos.ts";

const megabyte = 1024 * 1024;
const limits = {
  ...{ timeLimitMs: 10_000, cpuMsMax: 7_000, memoryBytesMax: 256 * megabyte, fileBytesMax: megabyte },
  outputBytesMax: 10_000,
};

let folder: string;
let work: string;
let helpers: Helpers;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-test-limits-"));
  helpers = await findHelpers({ withoutNetwork: true });
});
afterAll(async () => {
  // What a failed test left running is ours to end.
  for (const { pid } of await processesWith(folder)) process.kill(pid, "SIGKILL");
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  work = await mkdtemp(join(folder, "work-"));
});

async function run(script: string, change: Partial<LimitedProgram> = {}) {
  let output = "";
  const onOutput = (text: string) => {
    output += text;
  };
  const program = { path: "/bin/sh", args: ["-c", script, "shell", work], directory: work, limits, helpers };
  const end = await runLimited({ ...program, signal: undefined, onOutput, ...change });
  return { ...end, output };
}

describe("a limited program", () => {
  it("has the limits it was given, nothing of our environment, and no input", async () => {
    process.env["RUNGS_TEST_SECRET"] = "s3cret";
    const shown = "ulimit -S -t; ulimit -H -t; ulimit -f; ulimit -c; pwd; env; wc -c";
    const { output, exitCode, reason: how } = await run(shown);
    delete process.env["RUNGS_TEST_SECRET"];
    const [soft, hard, blocks, core, directory, ...rest] = output.trim().split("\n");
    expect([soft, hard, blocks, core, directory]).toEqual(["7", "12", "2048", "0", work]);
    expect(rest.filter((line) => !/^(PWD|OLDPWD|SHLVL|_)=/.test(line))).toEqual(["0"]);
    expect([exitCode, how]).toEqual([0, "exited"]);
  });

  it.skipIf(process.platform === "darwin")(
    "gets no more memory than its limit (macOS knows no such limit)",
    async () => {
      const copy = "dd if=/dev/zero of=/dev/null bs=300M count=1";
      const refused = await run(copy);
      expect([refused.exitCode, refused.complaint]).toEqual([1, expect.stringMatching(/memory/)]);
      expect((await run(copy, { limits: { ...limits, memoryBytesMax: 1024 * megabyte } })).exitCode).toBe(0);
    },
  );

  it("is stopped when it has used up its processor time", async () => {
    const { reason: how } = await run("while :; do :; done", { limits: { ...limits, cpuMsMax: 1 } });
    expect(how).toBe("cpu-limit");
  });

  it("that ends for a signal of someone else is not taken for one that used up its time", async () => {
    for (const end of ["kill -TERM $$", "kill -KILL $$", "exit 255"]) expect((await run(end)).reason).toBe("killed");
    const caught = "trap 'exit 255' XCPU; while :; do :; done";
    expect((await run(caught, { limits: { ...limits, cpuMsMax: 1 } })).reason).toBe("cpu-limit");
  });

  it("is stopped when a file grows too large, and the file has no byte more", async () => {
    const { reason: how } = await run("exec dd if=/dev/zero of=large bs=64k count=100");
    expect(how).toBe("file-limit");
    expect((await stat(join(work, "large"))).size).toBe(megabyte);
  });

  it("is stopped when it talks too much, with no more passed on than allowed", async () => {
    const { reason: how, output } = await run("while :; do echo y; done");
    expect(how).toBe("output-limit");
    expect(output.length).toBeLessThanOrEqual(limits.outputBytesMax);
  });

  it("is stopped with all it started when its time is up, or at an abort", async () => {
    const many = "tail -f $1/a & tail -f $1/b & echo started; wait";
    for (const name of ["a", "b"]) await writeFile(join(work, name), "");
    const late = await run(many, { limits: { ...limits, timeLimitMs: 1_000 } });
    expect([late.reason, late.output]).toEqual(["time-limit", "started\n"]);
    await eventually("none left", async () => (await processesWith(work)).length === 0);

    const stop = new AbortController();
    const aborted = run(many, { signal: stop.signal });
    await eventually("two started", async () => (await processesWith(`tail -f ${work}`)).length === 2);
    stop.abort(new Error("no longer wanted"));
    await expect(aborted).rejects.toThrow("no longer wanted");
    await eventually("none left", async () => (await processesWith(work)).length === 0);
  });

  it("leaves no process behind when it ends by itself, and its exit code is told", async () => {
    const { exitCode, complaint } = await run("echo no luck >&2; exit 3");
    expect([exitCode, complaint]).toEqual([3, "no luck\n"]);
    expect(await processesWith(work)).toEqual([]);
  });

  it("that cannot be started is an end like any other", async () => {
    expect(await run("", { path: join(work, "nothing") })).toMatchObject({
      reason: "exited",
      exitCode: expect.any(Number),
    });
    await expect(run("", { directory: join(work, "nowhere") })).rejects.toMatchObject({ code: "ENOENT" });
  });

  const isLinux = process.platform === "linux";
  it.skipIf(!isLinux)("is nice, and sees no network where the system permits (Linux)", async () => {
    const { output } = await run("nice; tail -n +3 /proc/net/dev | cut -d: -f1");
    const [niceness, ...interfaces] = output.trim().split(/\s+/);
    expect(niceness).toBe("10");
    if (helpers.noNetwork.length > 0) expect(interfaces).toEqual(["lo"]);
    else expect(interfaces.length).toBeGreaterThan(0);
  });
});

describe(`when the owner is killed with SIGKILL${reason}`, () => {
  let video = "";
  beforeAll(async () => {
    if (tools === undefined) return;
    video = join(folder, "long.mp4");
    const short = join(folder, "short.mp4");
    await ffmpeg(...source("1280x720", 1), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", short);
    await ffmpeg("-stream_loop", "299", "-i", short, "-c", "copy", video);
  });

  async function startWorker(withVideo: boolean, helpersMode: string): Promise<ChildProcess> {
    await mkdir(join(work, "careless"));
    for (const file of ["careful", "careless/file"]) await writeFile(join(work, file), "");
    const script = fileURLToPath(new URL("support/worker.ts", import.meta.url));
    const args = [script, withVideo ? video : "", work, join(work, "careful"), join(work, "careless/file")];
    const env = { PATH: process.env["PATH"], HELPERS: helpersMode };
    const worker = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(worker, "exit").then(() => expect.unreachable("the worker ended before it was at work"));
    await Promise.race([once(worker.stdout, "data"), ended]);
    ended.catch(() => {});
    return worker;
  }

  const carefulOnes = async () => (await processesWith(work)).filter(({ line }) => !line.includes("careless"));

  /** Kills the worker; what was started with care must go, what was started without must be there still. */
  async function expectAllGoneAfterKill(worker: ChildProcess): Promise<void> {
    const exited = once(worker, "exit");
    worker.kill("SIGKILL");
    expect(await exited).toEqual([null, "SIGKILL"]);
    await eventually("all that the worker had started is gone", async () => (await carefulOnes()).length === 0);
    const careless = await processesWith(join(work, "careless"));
    for (const { pid } of careless) process.kill(pid, "SIGKILL");
    expect(careless).toHaveLength(1);
  }

  it.skipIf(tools === undefined)("ffmpeg ends with it", async () => {
    const worker = await startWorker(true, "all");
    const lines = (await carefulOnes()).map(({ line }) => line);
    expect(lines.some((line) => line.startsWith(tools?.ffmpegPath as string))).toBe(true);
    await expectAllGoneAfterKill(worker);
  });

  it("the watcher alone suffices, without any of the helpers", async () => {
    const worker = await startWorker(false, "none");
    await eventually("program runs", async () =>
      (await carefulOnes()).some(({ line }) => line.startsWith("/usr/bin/tail")),
    );
    await expectAllGoneAfterKill(worker);
  });

  it.skipIf(!existsSync("/usr/bin/setpriv"))("so does setpriv, without the watcher (Linux)", async () => {
    const worker = await startWorker(false, "tied");
    await eventually("program runs", async () =>
      (await carefulOnes()).some(({ line }) => line.startsWith("/usr/bin/tail")),
    );
    const shells = (await carefulOnes()).filter(({ line }) => line.startsWith("/bin/sh"));
    const watcher = shells.find(({ parent }) => parent !== worker.pid);
    expect(shells).toHaveLength(2);
    process.kill(watcher?.pid as number, "SIGKILL");
    await expectAllGoneAfterKill(worker);
  });

  it("a program whose shell is killed ends too", async () => {
    await writeFile(join(work, "a"), "");
    const running = run("exec tail -f $1/a", { path: "/bin/sh" });
    await eventually("program runs", async () => (await processesWith(`tail -f ${work}`)).length === 1);
    const leader = (await processesWith(work)).find(({ parent }) => parent === process.pid);
    process.kill(leader?.pid as number, "SIGKILL");
    expect((await running).reason).toBe("killed");
    await eventually("none left", async () => (await processesWith(work)).length === 0);
  });
});
