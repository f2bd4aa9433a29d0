/** `rungs jobs` beside a running app, on the databases that the app holds. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { until } from "./support/orders.ts";

const program = fileURLToPath(new URL("./support/app.ts", import.meta.url));

describe("rungs jobs beside a running app", () => {
  let folder: string;
  let app: ChildProcess;
  let address: string;
  const flags = () => ["--dir", folder, "--shards", "2"];
  const counts = async () => {
    const { stdout, stderr } = await rungs(["jobs", ...flags(), "--json"]);
    expect(stderr).toBe("");
    return JSON.parse(stdout).handlers;
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-jobs-"));
    // The databases run as another user when the tests run as root.
    await chmod(folder, 0o755);
    app = spawn(process.execPath, [program], {
      env: { ...process.env, PORT: "0", RUNGS_DIR: folder, RUNGS_SHARDS: "2", DATABASE_URL: "" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(app.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
    address = String(line).trim();
  });
  afterAll(async () => {
    if (app?.exitCode === null) {
      app.kill("SIGTERM");
      await once(app, "exit");
    }
    await rm(folder, { recursive: true, force: true });
  });

  it("counts, shows redacted, and makes a dead job of the app run", async () => {
    for (let index = 0; index < 4; index++) {
      expect((await fetch(`${address}/mail`, { method: "POST" })).status).toBe(202);
    }
    await until(async () => (await counts())[0]?.dead === 4);
    const listed = await rungs(["jobs", "dead", ...flags(), "--json"]);
    const { jobs } = JSON.parse(listed.stdout);
    const shown = await rungs(["jobs", "show", jobs[0].id, ...flags()]);
    expect(shown.stdout).toContain('"to": "[redacted]"');
    expect(shown.stdout).not.toContain("ann@example.com");
    await writeFile(join(folder, "mended"), "");
    const retried = await rungs(["jobs", "retry", "--handler", "mail.send", "--yes", ...flags()]);
    expect(retried.stdout).toBe("4 jobs retried.\n");
    await until(async () => (await counts()).length === 0);
  });

  it("finds them by RUNGS_DIR and RUNGS_SHARDS too, and refuses a wrong number of shards", async () => {
    const environment = { RUNGS_DIR: folder, RUNGS_SHARDS: "2" };
    expect(await rungs(["jobs", "--json"], { environment })).toMatchObject({ code: 0, stdout: '{"handlers":[]}\n' });
    const fewer = await rungs(["jobs", "--dir", folder, "--shards", "1"]);
    expect(fewer.code).toBe(2);
    expect(fewer.stderr).toContain("placed on 2 shard(s)");
  });

  it("says that the databases do not run once the app has stopped", async () => {
    app.kill("SIGTERM");
    await once(app, "exit");
    const { code, stderr } = await rungs(["jobs", ...flags()]);
    expect(code).toBe(4);
    expect(stderr).toMatch(/^The embedded database in .*shard-0 does not run\. .*start the app \(npm start\)/);
  });
});
