/** Every kind of mistake ends with its message, its exit code and no stack. */
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { type Orders, openOrders } from "./support/orders.ts";

let orders: Orders;
let folder: string;
let empty: TestPostgres;
let silent: Server;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-exit-code-"));
  orders = await openOrders();
  empty = await startTestPostgres();
  silent = createServer((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1");
});
afterAll(async () => {
  silent?.close();
  await orders?.close();
  await empty?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Runs it in the empty folder; the environment leads to the orders unless another one is given. */
const run = (line: string, environment?: Record<string, string>) =>
  rungs(line.split(" "), { folder, environment: environment ?? orders.environment });
const absentId = "0190c7a0-0000-7000-8000-000000000000";

describe("exit code 2, usage", () => {
  it.each([
    ["jbos", "did you mean rungs jobs?"],
    ["jobs lsit", "did you mean rungs jobs list?"],
    ["jobs list --stat dead", "did you mean --state?"],
    ["jobs list --state ded", "did you mean dead?"],
    ["jobs list --state", "--state needs a value"],
    ["jobs list --limit 0", "from 1 to 1000"],
    ["jobs list --limit 1e3", "from 1 to 1000"],
    ["jobs list --after x", "no page mark"],
    ["jobs list --after WzAsMCwieCJd", "no page mark"],
    ["jobs list --json=yes", "--json takes no value"],
    ["jobs list more", '"more" belongs to no flag'],
    ["jobs show", "Name a job"],
    ["jobs show 17", "no job id"],
    [`jobs show ${absentId} ${absentId}`, "At most 1"],
    ["jobs retry", "All at once is refused"],
    [`jobs retry ${absentId} --handler x`, "not both"],
    ["jobs drop --state running --yes", "--state: expected one of"],
    ["jobs drop --handler x", "--yes"],
    ["jobs --config nope.ts", "there is no file"],
    ["jobs --shards two", "database.shards"],
    ["jobs --watch --times 0", "--times"],
  ])("rungs %s", async (line, message) => {
    const { code, stdout, stderr } = await run(line);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  it("a database that no app was started on, or another one than the topology says", async () => {
    const other = await run("jobs", { DATABASE_URL: await empty.createDatabase() });
    expect(other).toMatchObject({ code: 2, stdout: "" });
    expect(other.stderr).toContain("No app of Rungs has been started on this database");
    const [first = ""] = (orders.environment["DATABASE_URL"] ?? "").split(",");
    const fewer = await run("jobs", { DATABASE_URL: first });
    expect(fewer.code).toBe(2);
    expect(fewer.stderr).toContain("placed on 2 shard(s)");
  });

  it("a group without a command shows its help on stderr", async () => {
    const { code, stdout, stderr } = await rungs([], { folder });
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("USAGE");
  });
});

describe("exit code 3, not found", () => {
  it.each([`jobs show ${absentId}`, `jobs retry ${absentId}`, `jobs drop ${absentId}`])("rungs %s", async (line) => {
    const { code, stdout, stderr } = await run(line);
    expect({ code, stdout }).toEqual({ code: 3, stdout: "" });
    expect(stderr).toMatch(/^(There is no job|None of the 1 id)/);
  });
});

describe("exit code 4, unavailable", () => {
  it("an embedded database that does not run is named, with what to start, and no folder is made", async () => {
    const { code, stderr } = await run("jobs --dir data", {});
    expect(code).toBe(4);
    expect(stderr).toContain(join("data", "database", "shard-0"));
    expect(stderr).toContain("start the app (npm start)");
    expect(await readdir(folder)).toEqual([]);
  });

  it("a server that refuses, or takes the connection and says nothing", async () => {
    const address = silent.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const url = (of: number | undefined) => ({ DATABASE_URL: `postgres://user:hush@127.0.0.1:${of}/app` });
    for (const environment of [url(1), url(port)]) {
      const { code, stderr } = await run("jobs", environment);
      expect(stderr).toMatch(/^(shard 0 did not answer|No connection to shard 0)/);
      expect(stderr).not.toMatch(/hush|^\s+at /m);
      expect(code).toBe(4);
    }
  });
});

describe("with --json", () => {
  it("the problem is one JSON object on stderr with its code", async () => {
    const absent = await run(`jobs show ${absentId} --json`);
    expect(JSON.parse(absent.stderr)).toEqual({ error: { code: "NOT_FOUND", message: expect.any(String) } });
    const config = join(folder, "rungs.config.json");
    await writeFile(config, '{ "web": { "prot": 1 } }');
    const broken = await run("jobs --json");
    await rm(config);
    expect(broken.code).toBe(2);
    expect(JSON.parse(broken.stderr)).toMatchObject({ error: { code: "CONFIG_INVALID" } });
  });
});

describe("--help", () => {
  it.each(["--help", "jobs -h", "jobs list --help", "jobs dead --help", "jobs show --help", "jobs retry --help"])(
    "rungs %s shows usage, examples and exit codes, whatever else is wrong",
    async (line) => {
      const { code, stdout, stderr } = await run(line, { DATABASE_URL: "nonsense" });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      for (const part of ["USAGE rungs", "EXAMPLES", "EXIT CODES"]) expect(stdout).toContain(part);
      expect(stdout).not.toContain("\u001B");
    },
  );
});
