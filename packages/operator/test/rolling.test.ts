/** What clients see behind nginx while web processes are killed and replaced: counted request by request. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Failure, startLoad } from "./support/load.ts";
import { until } from "./support/orders.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "2", "--processes", "2"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

const webs = async () => (await stack.status()).processes.filter(({ role }) => role === "web");
const written = async (): Promise<Set<string>> => {
  const { ids } = (await (await fetch(`${stack.app}/writes`)).json()) as { ids: string[] };
  return new Set(ids);
};

/** Kills a web process under load and waits until another one is in its place. */
async function killOne(isKeyed: boolean) {
  const load = startLoad({ port: stack.port, isKeyed });
  await sleep(700);
  const [victim] = await webs();
  process.kill(victim?.pid as number, "SIGKILL");
  await until(async () => (await webs()).some(({ name, pid }) => name === victim?.name && pid !== victim.pid));
  await sleep(700);
  return { result: await load.stop(), victim };
}

describe("kill -9 of a web process under load", () => {
  it("fails no read, and of writes only those that had been sent to that process", async () => {
    const { result, victim } = await killOne(false);
    expect(result.gets).toBeGreaterThan(100);
    expect(result.failures.filter(({ method }) => method === "GET")).toEqual([]);
    // Sent, unanswered, not safe to repeat: 502 is the truth. At most one for each request under way at that moment.
    expect(result.failures.length).toBeLessThanOrEqual(8);
    for (const failure of result.failures) expect(await placesTried(failure)).toContain(`127.0.0.1:${victim?.port}`);
    expect(new Set(result.failures.map(({ reason }) => reason))).toEqual(
      new Set(result.failures.length === 0 ? [] : ["502"]),
    );
  }, 30_000);

  it("fails no write that carries an idempotency key", async () => {
    const { result } = await killOne(true);
    expect(result.posts).toBeGreaterThan(50);
    expect(result.failures).toEqual([]);
  }, 30_000);
});

describe("rungs restart web under load", () => {
  it("replaces every process, and no request fails", async () => {
    const before = await webs();
    const load = startLoad({ port: stack.port });
    await sleep(300);
    const { code, stdout, stderr } = await stack.run("restart", "web", "--json");
    await sleep(300);
    const result = await load.stop();
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toMatchObject({ restarted: true });
    expect(result.failures).toEqual([]);
    const after = (await webs()).map(({ pid }) => pid);
    expect(after).toHaveLength(2);
    for (const { pid } of before) expect(after).not.toContain(pid);
    // Both new ones have answered, and all that was acknowledged is there.
    for (const pid of after) expect(result.pids).toContain(pid);
    expect((await written()).size).toBeGreaterThanOrEqual(result.posts);
  }, 60_000);
});

/** Addresses that nginx tried for a failed write, by its access log. */
async function placesTried({ id }: Failure): Promise<string> {
  const path = join(stack.folder, "logs", "balancer-access.log");
  const number = id.split("-")[2];
  let found = "";
  await until(async () => {
    const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line.includes('"status":502'));
    found = lines.map((line) => JSON.parse(line).upstream as string).join(" ");
    return found !== "" && number !== undefined;
  });
  return found;
}
