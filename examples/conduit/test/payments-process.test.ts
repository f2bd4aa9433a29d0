/** Tips in Conduit as `npm start` runs it: a provider out of the box, nothing lost when it is killed, and nothing left behind. */
import { execFile } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { client, registered } from "./support/client.ts";
import { balanceOf, ended, give, until } from "./support/payments.ts";
import { type ConduitProcess, databasePid, spawnConduit } from "./support/process.ts";

describe("Conduit as a process", () => {
  let folder: string;
  let running: ConduitProcess | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "conduit-payments-"));
    await chmod(folder, 0o755);
  });
  afterEach(async () => {
    await running?.end("SIGINT");
    running = undefined;
    await rm(folder, { recursive: true, force: true });
  });

  it("offers tips at once, ends those under way after a kill, and leaves no provider behind", async () => {
    running = await spawnConduit(folder);
    const payer = await registered(running.url, "payer");
    const payee = await registered(running.url, "payee");
    const first = (await give(payer, "payee", { amount: 1_000 })).body.tip;
    expect((await ended(payer, first.id)).state).toBe("succeeded");
    const [provider, ...others] = await providersOf(folder);
    expect([typeof provider, others]).toEqual(["number", []]);

    const underWay = await Promise.all(
      Array.from({ length: 10 }, (_, index) => give(payer, "payee", { amount: 2_000 }, `key-${index}`)),
    );
    await running.end("SIGKILL");
    await until(
      () => providersOf(folder),
      (found) => found.length === 0,
    );
    running = await spawnConduit(folder);
    const again = client(running.url, payer.token);
    for (const [index, { body }] of underWay.entries()) {
      const repeated = await give(again, "payee", { amount: 2_000 }, `key-${index}`);
      expect([repeated.status, repeated.body.tip.id]).toEqual([202, body.tip.id]);
      expect((await ended(again, body.tip.id)).state).toBe("succeeded");
    }
    expect(await balanceOf(client(running.url, payee.token), 950 + 10 * 1_900)).toBe(19_950);

    expect(await running.end("SIGTERM")).toBe(0);
    expect(await providersOf(folder)).toEqual([]);
    expect(await databasePid(folder)).toBeUndefined();
  }, 120_000);

  it("starts no provider in production", async () => {
    running = await spawnConduit(folder, { NODE_ENV: "production" });
    const payer = await registered(running.url, "payer");
    await registered(running.url, "payee");
    expect((await give(payer, "payee", { amount: 1_000 })).status).toBe(404);
    expect(await providersOf(folder)).toEqual([]);
  }, 60_000);
});

/** Process ids of providers that keep their charges in the folder. Read from /proc where there is one: not every system has ps. */
async function providersOf(folder: string): Promise<number[]> {
  const lines =
    (await commandLinesOfProc()) ?? (await promisify(execFile)("ps", ["-eo", "pid=,args="])).stdout.split("\n");
  return lines
    .filter((line) => line.includes("fake-provider/main.ts") && line.includes(folder))
    .map((line) => Number.parseInt(line, 10));
}

async function commandLinesOfProc(): Promise<string[] | undefined> {
  const entries = await readdir("/proc").catch(() => undefined);
  const pids = entries?.filter((entry) => /^\d+$/.test(entry));
  if (pids === undefined) return undefined;
  // One that has ended meanwhile, or waits as a zombie, has no command line.
  return Promise.all(
    pids.map(
      async (pid) => `${pid} ${(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).replaceAll("\0", " ")}`,
    ),
  );
}
