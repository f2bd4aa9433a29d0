/** The bin on an older Node than the one that runs these tests: it runs itself again on the one npm brought. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bin } from "./support/cli.ts";

/** Makes a process believe that its Node is 20; what it starts does not inherit this. */
const pretendOld = "data:text/javascript,Object.defineProperty(process,'version',{value:'v20.1.0'})";
const nodePackage = fileURLToPath(new URL("../../../node_modules/node", import.meta.url));

async function runOld(file: string, folder: string, onOutput = (_: number | undefined) => {}) {
  const child = spawn(process.execPath, ["--import", pretendOld, file, "jobs", "--help"], { cwd: folder });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (text) => {
    stdout += text;
    onOutput(child.pid);
  });
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout, stderr };
}

describe("bin/rungs.mjs on an old Node", () => {
  let folder: string;
  /** A copy outside of the checkout, with a program in place of the command line. */
  let copy: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-bin-"));
    await mkdir(join(folder, "package", "bin"), { recursive: true });
    await mkdir(join(folder, "project", "node_modules"), { recursive: true });
    copy = join(folder, "package", "bin", "rungs.mjs");
    await cp(bin, copy);
    await writeFile(
      join(folder, "package", "main.js"),
      `export async function main(args) {
        const isWaiting = process.env.WAIT !== undefined;
        if (isWaiting) process.once("SIGTERM", () => process.exit(9));
        console.log(process.version, args.join(","));
        if (isWaiting) return void setInterval(() => {}, 1000);
        process.exitCode = 7;
        process.disconnect();
      };`,
    );
    await writeFile(join(folder, "package", "package.json"), '{ "type": "module" }');
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("runs on the Node of the checkout", async () => {
    const { code, stdout, stderr } = await runOld(bin, tmpdir());
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("USAGE rungs jobs");
  });

  it("says what to install where there is none", async () => {
    const { code, stdout, stderr } = await runOld(copy, join(folder, "project"));
    expect({ code, stdout }).toEqual({ code: 4, stdout: "" });
    expect(stderr).toContain("rungs needs Node 24 or newer, and this is v20.1.0");
    expect(stderr).toContain("npm install --save-dev node@24");
  });

  it("runs on the Node of the project, and passes arguments, exit code and signals through", async () => {
    await symlink(nodePackage, join(folder, "project", "node_modules", "node"));
    const ended = await runOld(copy, join(folder, "project"));
    expect(ended).toEqual({
      code: 7,
      stderr: "",
      stdout: expect.stringMatching(/^v(2[4-9]|[3-9]\d)\S+ jobs,--help\n$/),
    });
    process.env["WAIT"] = "1";
    try {
      const stopped = await runOld(copy, join(folder, "project"), (pid) => process.kill(pid as number, "SIGTERM"));
      expect(stopped.code).toBe(9);
    } finally {
      delete process.env["WAIT"];
    }
  });
});
