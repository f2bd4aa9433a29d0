/** `npm start` and its kind: signals, exit codes, and no program left behind when npm dies. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const runner = fileURLToPath(new URL("../run.mjs", import.meta.url));

describe("scripts/run.mjs", () => {
  let folder: string;
  let program: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-run-"));
    program = join(folder, "program.mjs");
    await writeFile(
      program,
      `process.on("SIGTERM", () => process.exit(7));
       process.on("disconnect", () => process.exit(8));
       process.on("SIGINT", () => {});
       console.log(process.version, process.pid, process.argv.slice(2).join(","));
       setInterval(() => {}, 1000);
       if (process.argv.includes("end")) process.exit(3);`,
    );
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** Starts it as npm does, through a shell, and gives what the program said first. */
  const start = async (...args: string[]) => {
    const shell = spawn("sh", ["-c", `node ${runner} ${program} ${args.join(" ")}; exit $?`], { detached: true });
    const [line] = (await once(shell.stdout, "data")) as [Buffer];
    const [version, pid, rest] = String(line).trim().split(" ");
    return { shell, version, pid: Number(pid), rest };
  };

  it("runs on the pinned Node, whatever the machine's own is, and hands arguments and exit code through", async () => {
    const { shell, version, rest } = await start("a", "end");
    expect(version).toMatch(/^v(2[4-9]|[3-9]\d)\./);
    expect(rest).toBe("a,end");
    expect((await once(shell, "exit"))[0]).toBe(3);
  });

  it("leaves Ctrl-C to the program and passes SIGTERM on", async () => {
    const { shell, pid } = await start();
    process.kill(-(shell.pid as number), "SIGINT");
    await sleep(300);
    expect(isAlive(pid)).toBe(true);
    process.kill(-(shell.pid as number), "SIGTERM");
    await gone(pid);
  });

  it("stops the program when the runner, or what started it, is killed outright", async () => {
    const viaRunner = await start();
    const runnerPid = await parentOf(viaRunner.pid);
    process.kill(runnerPid, "SIGKILL");
    await gone(viaRunner.pid);
    const viaShell = await start();
    viaShell.shell.kill("SIGKILL");
    await gone(viaShell.pid);
  });
});

async function parentOf(pid: number): Promise<number> {
  const ps = spawn("ps", ["-o", "ppid=", "-p", String(pid)]);
  const [text] = (await once(ps.stdout, "data")) as [Buffer];
  return Number(String(text));
}

async function gone(pid: number): Promise<void> {
  for (let tries = 0; tries < 100 && isAlive(pid); tries++) await sleep(50);
  expect(isAlive(pid)).toBe(false);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
