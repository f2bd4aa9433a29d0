/** What clients see behind nginx while the number of web processes changes and nginx reads its configuration again. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLoad } from "./support/load.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "2", "--processes", "2"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

const webs = async () => (await stack.status()).processes.filter(({ role }) => role === "web");

describe("rungs scale web N under load", () => {
  it("goes from 2 to 5 and back to 2, and no request fails", async () => {
    const load = startLoad({ port: stack.port });
    await sleep(300);
    const up = await stack.run("scale", "web", "5", "--json");
    expect(up).toMatchObject({ code: 0, stderr: "" });
    expect(await webs()).toHaveLength(5);
    await sleep(500);
    const down = await stack.run("scale", "web", "2", "--json");
    expect(down).toMatchObject({ code: 0, stderr: "" });
    expect(await webs()).toHaveLength(2);
    await sleep(300);
    const result = await load.stop();
    expect(result.failures).toEqual([]);
    expect(result.pids.size).toBe(5);
  }, 60_000);

  it("refuses what the balancer has no places for, and says what to do", async () => {
    const { code, stderr } = await stack.run("scale", "web", "200");
    expect(code).toBe(2);
    expect(stderr).toContain("places for 12 web processes");
    expect(stderr).toContain("rungs up --processes 200");
  });
});

describe("a reload of nginx under load", () => {
  it("fails requests only by closing an idle connection just when one is sent on it", async () => {
    const balancer = (await stack.status()).processes.find(({ role }) => role === "balancer");
    const load = startLoad({ port: stack.port });
    for (let round = 0; round < 3; round++) {
      await sleep(700);
      process.kill(balancer?.pid as number, "SIGHUP");
    }
    await sleep(700);
    const { failures, gets } = await load.stop();
    expect(gets).toBeGreaterThan(100);
    // nginx closes idle connections of clients at once; a request on its way then meets a closed one (docs/operating/running.md).
    expect(failures.length).toBeLessThanOrEqual(6);
    for (const failure of failures)
      expect(failure).toMatchObject({ isReused: true, reason: expect.not.stringMatching(/^\d/) });
  }, 30_000);
});
