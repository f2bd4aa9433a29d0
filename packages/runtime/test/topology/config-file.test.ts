import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadConfigFile } from "../../src/topology/index.ts";

const entryPoint = new URL("../../src/topology/index.ts", import.meta.url).href;
const secret = "hunter2zebra";
let folder = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-config-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const put = (name: string, text: string) => writeFile(join(folder, name), text);

/** Loads with Node itself, as an app does, and gives all that it prints: the content, or the whole error. */
async function loadInNode(name?: string): Promise<string> {
  const program = `
    import { inspect } from "node:util";
    const { loadConfigFile } = await import(${JSON.stringify(entryPoint)});
    try { console.log(JSON.stringify(await loadConfigFile(${JSON.stringify(folder)}, ${JSON.stringify(name)}))); }
    catch (error) { console.log(error.code, inspect(error, { depth: 20, showHidden: true })); }`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: folder,
    timeout: 30_000,
  });
  return stdout + stderr;
}

describe("loadConfigFile", () => {
  it("gives nothing where there is no file", async () => {
    expect(await loadConfigFile(folder)).toBeUndefined();
  });

  it("reads TypeScript, modules and JSON, in this order", async () => {
    await put("rungs.config.json", '\uFEFF{ "web": { "port": 1 } }');
    expect(await loadInNode()).toBe('{"name":"rungs.config.json","content":{"web":{"port":1}}}\n');
    await put("rungs.config.mjs", "export default { web: { port: 2 } };");
    expect(await loadInNode()).toBe('{"name":"rungs.config.mjs","content":{"web":{"port":2}}}\n');
    await put(
      "rungs.config.ts",
      `import { defineTopology, env, type TopologyInput } from ${JSON.stringify(entryPoint)};
       const topology: TopologyInput = defineTopology({ database: { shards: [{ leader: env("DB") }] } });
       export default topology;`,
    );
    const content = { database: { shards: [{ leader: "[secret env:DB]" }] } };
    expect(await loadInNode()).toBe(`${JSON.stringify({ name: "rungs.config.ts", content })}\n`);
  });

  it("reads the named file before any other", async () => {
    await put("rungs.config.json", "{}");
    await put("other.json", '{"log":{}}');
    expect(await loadConfigFile(folder, "other.json")).toEqual({ name: "other.json", content: { log: {} } });
  });

  it("says that a named file is missing", async () => {
    await expect(loadConfigFile(folder, "gone.ts")).rejects.toMatchObject({
      code: "CONFIG_FILE_UNREADABLE",
      message: expect.stringContaining("The config file gone.ts could not be read: there is no file "),
    });
  });

  it("says where JSON is broken without quoting it", async () => {
    await put("rungs.config.json", `{\n  "sessions": { "url": "redis://:${secret}@h" ${secret} }\n}`);
    const output = await loadInNode();
    expect(output).toContain("CONFIG_FILE_UNREADABLE");
    expect(output).toContain("it is not valid JSON at line 2, column 50.");
    expect(output).not.toContain(secret);
  });

  it.each(["ts", "mjs"])("says that .%s is broken without quoting it", async (extension) => {
    await put(
      `rungs.config.${extension}`,
      `export default {\n  sessions: { url: "redis://:${secret}@h" "${secret}" },\n};`,
    );
    const output = await loadInNode();
    expect(output).toContain("CONFIG_FILE_UNREADABLE");
    expect(output).toContain("it has a syntax error");
    expect(output).not.toContain(secret);
  });

  it("says what a module lacks: its default export, an import, or a run without an error", async () => {
    await put("a.mjs", "export const topology = {};");
    expect(await loadInNode("a.mjs")).toContain(
      "it has no default export. Write `export default defineTopology({ ... })`.",
    );
    await put("b.mjs", 'import "no-such-package"; export default {};');
    expect(await loadInNode("b.mjs")).toContain("a module it imports was not found: no-such-package.");
    await put("c.mjs", `throw new RangeError("${secret}");`);
    const output = await loadInNode("c.mjs");
    expect(output).toContain("it raised RangeError when imported");
    expect(output).not.toContain(secret);
  });
});
