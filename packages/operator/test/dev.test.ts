/** `rungs dev`: a change of a file is followed by a new process, also after one that could not start. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bin } from "./support/cli.ts";
import { stackApp, stackFolder } from "./support/stack.ts";

let folder: string;
let app: string;
let data: string;
let dev: ChildProcess;
let lines: { ready?: boolean; app: string; reloaded?: boolean; file?: string }[];
let stderr = "";

beforeAll(async () => {
  // Inside of the checkout, so that the app finds its packages.
  app = await mkdtemp(fileURLToPath(new URL("./support/dev-app-", import.meta.url)));
  await cp(stackApp, app, { recursive: true });
  await mkdir(join(app, "lib"));
  await writeFile(join(app, "lib", "word.ts"), 'export const word = "first";\n');
  await writeFile(
    join(app, "app.ts"),
    `import { defineApp, defineService } from "rungs";
     import { word } from "./lib/word.ts";
     const app = defineService("app", { routes: (fastify) => { fastify.get("/word", async () => ({ word })); } });
     export default defineApp({ name: "dev-app", services: [app] });\n`,
  );
  folder = app;
  data = await stackFolder();
  lines = [];
  dev = spawn(process.execPath, [bin, "dev", "--json", "--port", "0", "--dir", data], {
    cwd: folder,
    env: { ...process.env, DATABASE_URL: undefined, RUNGS_DIR: undefined, npm_command: undefined },
    stdio: ["ignore", "pipe", "pipe"],
  });
  dev.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  let rest = "";
  dev.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) lines.push(JSON.parse(part));
  });
  await within(() => lines.length > 0);
}, 60_000);
afterAll(async () => {
  if (dev?.exitCode === null) {
    dev.kill("SIGINT");
    await once(dev, "exit");
  }
  for (const made of [app, data]) await rm(made, { recursive: true, force: true });
}, 30_000);

async function within(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 25_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so: ${condition}\n${stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

const word = async (): Promise<string> =>
  fetch(`${lines[0]?.app}/word`).then(
    async (answer) => ((await answer.json()) as { word: string }).word,
    () => "",
  );

describe("rungs dev", () => {
  it("answers, and answers anew after a change of any file below the app", async () => {
    expect(lines[0]).toMatchObject({ ready: true, rung: 1 });
    expect(await word()).toBe("first");
    await writeFile(join(app, "lib", "word.ts"), 'export const word = "second";\n');
    await within(async () => (await word()) === "second");
    await within(() => lines.some(({ reloaded, file }) => reloaded === true && file === join("lib", "word.ts")));
  });

  it("tells what is wrong with a broken file, and goes on when it is mended", async () => {
    await writeFile(join(app, "lib", "word.ts"), "export const word = ;\n");
    await within(() => stderr.includes("Waiting for a change"));
    expect(stderr).toMatch(/SyntaxError|Expression expected|Unexpected token/);
    await writeFile(join(app, "lib", "word.ts"), 'export const word = "third";\n');
    await within(async () => (await word()) === "third");
  });

  it("watches folders that are new, and leaves data and dependencies alone", async () => {
    await mkdir(join(app, "node_modules"));
    await writeFile(join(app, "node_modules", "x.ts"), "1");
    await mkdir(join(app, "new"));
    await within(() => lines.some(({ file }) => file === "new"));
    await writeFile(join(app, "new", "file.ts"), "export {};\n");
    await within(() => lines.some(({ file }) => file === join("new", "file.ts")));
    expect(lines.map(({ file = "" }) => file).filter((file) => file.includes("node_modules"))).toEqual([]);
  });

  it("ends with 0 at Ctrl-C", async () => {
    dev.kill("SIGINT");
    const [code] = await once(dev, "exit");
    expect(code).toBe(0);
  });
});
