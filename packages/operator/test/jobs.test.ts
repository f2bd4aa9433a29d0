/** `rungs jobs`, run as the real program against real servers. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bin, rungs } from "./support/cli.ts";
import { type Orders, openOrders, until } from "./support/orders.ts";

let orders: Orders;
const jobs = (...args: string[]) => rungs(["jobs", ...args], { environment: orders.environment });
const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await jobs(...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
};
const counts = async () => (await json()).handlers[0];

beforeAll(async () => {
  orders = await openOrders();
});
afterAll(() => orders?.close());

// The tests of this file follow one another: what one leaves, the next one finds.
describe("rungs jobs", () => {
  it("says so when there are none", async () => {
    expect(await jobs()).toEqual({
      code: 0,
      stdout: "No jobs: nothing waits, and nothing was given up.\n",
      stderr: "",
    });
    expect(await json()).toEqual({ handlers: [] });
    expect(await json("list")).toEqual({ jobs: [], next: null });
  });

  it("counts by handler and state over all shards, with ages", async () => {
    for (let number = 0; number < 9; number++) await orders.publish({ number }, { key: `k${number}` });
    await orders.publish({ number: 100 }, { delayMs: 3_600_000 });
    const age = expect.any(Number);
    expect(await json()).toEqual({
      handlers: [
        {
          ...{ handler: "orders.ship", ready: 9, running: 0, waiting: 0, scheduled: 1, retrying: 0, dead: 0 },
          ...{ isPaused: false, oldestReadyAgeMs: age, oldestDeadAgeMs: null },
        },
      ],
    });
    await orders.startWorker();
    await until(async () => (await counts()).dead === 9);
    const { stdout } = await jobs();
    expect(stdout).toMatch(/^HANDLER +READY +OLDEST +RUNNING +WAITING +SCHEDULED +RETRYING +DEAD +OLDEST\n/);
    expect(stdout).toMatch(/\norders\.ship +0 +- +0 +0 +1 +0 +9 +\d+ (ms|s)\n$/);
  });

  it("prints no colours without a terminal, and those of a terminal not with NO_COLOR", async () => {
    expect((await jobs()).stdout).not.toContain("\u001B");
    expect((await onTerminal({})).includes("\u001B[31m9")).toBe(true);
    expect(await onTerminal({ NO_COLOR: "1" })).not.toContain("\u001B");
  });

  it("lists page by page, each job once", async () => {
    const seen: string[] = [];
    let after: string[] = [];
    for (let page = 0; page < 10; page++) {
      const { jobs: found, next } = await json("list", "--limit", "3", ...after);
      expect(found.length).toBeLessThanOrEqual(3);
      seen.push(...found.map(({ id }: { id: string }) => id));
      if (next === null) break;
      after = ["--after", next];
    }
    expect(seen).toHaveLength(10);
    expect(new Set(seen).size).toBe(10);
    const { stdout } = await jobs("list", "--limit", "3");
    expect(stdout).toMatch(/Next page: the same with --after \S+\n$/);
  });

  it("lists by state and key, in a stable shape", async () => {
    const { jobs: found, next } = await json("list", "--state", "dead", "--key", "k3");
    const text = expect.any(String);
    expect({ found, next }).toEqual({
      found: [
        {
          ...{ id: text, shard: expect.stringMatching(/^shard [01]$/), event: "order.placed", handler: "orders.ship" },
          ...{ key: "k3", state: "dead", attempts: 1, priority: "normal", publishedAt: text, runAt: text },
          lastError: "out of stock\u001B[2J",
        },
      ],
      next: null,
    });
    expect((await json("list", "--state", "scheduled")).jobs).toHaveLength(1);
    expect((await json("list", "--handler", "orders.none")).jobs).toEqual([]);
  });

  it("lists dead letters with the reason, and lets nothing in it reach the terminal's controls", async () => {
    const { stdout } = await jobs("dead");
    expect(stdout.match(/out of stock/g)).toHaveLength(9);
    expect(stdout).not.toContain("\u001B");
    expect(await onTerminal({ NO_COLOR: "1" }, "dead")).not.toContain("\u001B");
  });

  it("shows a job without what its event marks sensitive", async () => {
    const [{ id }] = (await json("dead", "--key", "k3")).jobs;
    const { stdout, code } = await jobs("show", id);
    expect(code).toBe(0);
    expect(stdout).toContain('"number": 3');
    expect(stdout).toContain('"card": "[redacted]"');
    expect(stdout).not.toContain("4242-secret");
    const [shown] = (await json("show", id)).jobs;
    expect(shown).toMatchObject({
      id,
      state: "dead",
      payload: { number: 3, card: "[redacted]" },
      workerId: null,
      steps: [],
    });
  });

  it("shows nothing of a payload whose event no app has declared", async () => {
    const id = "0190c7a0-0000-7000-8000-00000000abcd";
    await orders.sql(`insert into rungs_dead_jobs (job_id, handler, event, payload, priority, published_at, attempts, steps)
      values ('${id}', 'old.handler', 'old.event', '{"token":"4242-secret"}', 1, now(), 3, '{}')`);
    const { stdout } = await jobs("show", id);
    expect(stdout).toContain("[redacted]");
    expect(stdout).not.toContain("4242-secret");
    expect(await json("drop", id)).toEqual({ dropped: 1 });
  });

  it("tries one dead job again, which then runs", async () => {
    orders.mend();
    const [{ id }] = (await json("dead", "--key", "k3")).jobs;
    expect(await json("retry", id)).toEqual({ retried: 1 });
    await until(() => orders.shipped.length === 1);
    expect(orders.shipped).toEqual([3]);
    expect((await jobs("retry", id)).code).toBe(3);
  });

  it("asks before it changes many, and refuses where nobody can answer", async () => {
    const refused = await jobs("drop", "--handler", "orders.ship");
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(refused.stderr).toContain("--yes");
    expect((await counts()).dead).toBe(8);
    const declined = await onTerminal({ NO_COLOR: "1" }, "drop --handler orders.ship", "n\n");
    expect(declined).toContain("8 dead jobs of orders.ship. Delete them for good? [y/N]");
    expect(declined).toContain("Nothing was changed.");
    // Ctrl-D, and Ctrl-C.
    expect(await onTerminal({ NO_COLOR: "1" }, "drop --handler orders.ship; echo code $?", "\u0004")).toMatch(/code 0/);
    expect(await onTerminal({ NO_COLOR: "1" }, "drop --handler orders.ship; echo code $?", "\u0003")).toMatch(
      /code 130/,
    );
    expect((await counts()).dead).toBe(8);
  });

  it("retries and drops by handler and state, never more than the limit", async () => {
    expect(await json("retry", "--handler", "orders.ship", "--limit", "2", "--yes")).toEqual({ retried: 2 });
    await until(() => orders.shipped.length === 3);
    const limited = await jobs("drop", "--handler", "orders.ship", "--limit", "5", "--yes");
    expect(limited.stdout).toBe("5 jobs dropped.\nThat was the limit; there may be more.\n");
    expect((await counts()).dead).toBe(1);
    expect(await onTerminal({ NO_COLOR: "1" }, "drop --state dead", "y\n")).toContain("1 job dropped.");
    expect(await json("retry", "--state", "scheduled", "--yes")).toEqual({ retried: 1 });
    await until(() => orders.shipped.includes(100));
    expect(await json()).toEqual({ handlers: [] });
  });

  it("pauses a handler and lets it go on, and tells which name may have been meant", async () => {
    expect(await json("pause", "orders.ship")).toEqual({ handler: "orders.ship", isPaused: true, wasChanged: true });
    expect((await jobs("pause", "orders.ship")).stdout).toBe("orders.ship was paused already.\n");
    const { stdout } = await jobs();
    expect(stdout).toMatch(/\norders\.ship \(paused\) +0 /);
    expect(stdout).toMatch(/\nPaused handlers go on after: rungs jobs resume orders\.ship\n$/);
    expect(await counts()).toMatchObject({ handler: "orders.ship", isPaused: true, ready: 0 });
    const mistyped = await jobs("resume", "orders.shpi");
    expect(mistyped).toMatchObject({ code: 3, stdout: "" });
    expect(mistyped.stderr).toContain("Did you mean orders.ship?");
    expect((await jobs("pause")).code).toBe(2);
    expect((await jobs("resume", "orders.ship")).stdout).toBe("orders.ship goes on.\n");
    expect(await json("resume", "orders.ship")).toEqual({ handler: "orders.ship", isPaused: false, wasChanged: false });
    expect(await json()).toEqual({ handlers: [] });
  });

  it("refuses a replay where messages are forgotten once they are done, and times that are none", async () => {
    const refused = await rungs(["jobs", "replay", "orders.ship", "--from", "2h", "--json"], {
      environment: orders.environment,
    });
    expect(refused.code).toBe(2);
    const { error } = JSON.parse(refused.stderr);
    expect(error).toMatchObject({ code: "CAPABILITY_MISSING", message: expect.stringContaining("Kafka") });
    for (const from of ["yesterday", "2h ago", "3000-01-01", "2026-13-01"]) {
      const { code, stderr } = await jobs("replay", "orders.ship", "--from", from);
      expect({ code, from, stderr }).toEqual({ code: 2, from, stderr: expect.stringContaining("--from") });
    }
  });

  it("works on the other shards while one is down, and says which is missing", async () => {
    await orders.sql(`insert into rungs_dead_jobs (job_id, handler, event, payload, priority, published_at, attempts, steps)
      values (gen_random_uuid(), 'old.handler', 'old.event', '{}', 1, now(), 3, '{}')`);
    const [first] = (orders.environment["DATABASE_URL"] as string).split(",");
    const environment = { DATABASE_URL: `${first},postgres://rungs:x@127.0.0.1:1/nobody` };
    const without = (...args: string[]) => rungs(["jobs", ...args], { environment });
    const missing = [{ name: "shard 1", reason: expect.stringContaining("shard 1") }];
    const told = await without();
    expect(told.code).toBe(0);
    expect(told.stdout).toMatch(/\nold\.handler +0 /);
    expect(told.stderr).toMatch(/^Without shard 1, which is missing here: /);
    expect(JSON.parse((await without("--json")).stdout)).toMatchObject({ handlers: [{ dead: 1 }], missing });
    const page = JSON.parse((await without("dead", "--json")).stdout);
    expect(page).toMatchObject({ jobs: [{ shard: "shard 0" }], next: null, missing });
    const nowhere = await without("show", "0190c7a0-0000-7000-8000-00000000abcd");
    expect(nowhere).toMatchObject({ code: 3, stderr: expect.stringContaining("shard 1, which did not answer") });
    const dropped = JSON.parse((await without("drop", page.jobs[0].id, "--json")).stdout);
    expect(dropped).toMatchObject({ dropped: 1, missing });
    const homeless = { DATABASE_URL: "postgres://rungs:x@127.0.0.1:1/nobody" };
    expect((await rungs(["jobs"], { environment: homeless })).code).toBe(4);
  });

  it("counts again and again with --watch, one line of JSON a time, until its bound or a signal", async () => {
    const bounded = await jobs("--watch", "--times", "2", "--json");
    expect(bounded.stdout).toBe('{"handlers":[]}\n{"handlers":[]}\n');
    expect(bounded.code).toBe(0);
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ] as const) {
      const ended = await rungs(["jobs", "--watch"], {
        environment: orders.environment,
        onOutput: (_, kill) => kill(signal),
      });
      expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code, stderr: "" });
    }
  });

  it("ends when its reader has enough, or at Ctrl-C while the database is busy", async () => {
    const since = performance.now();
    const shell = spawn("sh", ["-c", `"${process.execPath}" "${bin}" jobs --watch | head -n 1`], {
      env: { ...process.env, ...orders.environment },
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(shell, "close");
    await orders.locked(async () => {
      const { code, stderr } = await rungs(["jobs"], { environment: orders.environment, killAfterMs: 1_500 });
      expect({ code, stderr }).toEqual({ code: 130, stderr: "" });
    });
    expect(performance.now() - since).toBeLessThan(10_000);
  });

  it("writes nothing to a database by looking", async () => {
    const changes = () =>
      orders.sql(`select relname, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables
        where relname not in ('rungs_workers', 'rungs_handler_load', 'rungs_load_turns') order by relname`);
    await orders.sql(`insert into rungs_dead_jobs (job_id, handler, event, payload, priority, published_at, attempts, steps)
      values (gen_random_uuid(), 'old.handler', 'old.event', '{}', 1, now(), 3, '{}')`);
    await orders.sql("select pg_stat_force_next_flush()");
    const before = await changes();
    const [{ id }] = (await json("dead")).jobs;
    for (const args of [[], ["list"], ["show", id]]) await json(...args);
    expect(await changes()).toEqual(before);
    await json("drop", id);
    expect(await changes()).not.toEqual(before);
  });
});

/** Runs `rungs jobs` on a pseudo-terminal, which `script` of util-linux makes. */
async function onTerminal(environment: Record<string, string>, args = "", input = ""): Promise<string> {
  const child = spawn("script", ["-qec", `"${process.execPath}" "${bin}" jobs ${args}`, "/dev/null"], {
    env: { ...process.env, NO_COLOR: undefined, TERM: "xterm", ...orders.environment, ...environment },
    stdio: ["pipe", "pipe", "inherit"],
    timeout: 20_000,
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (input !== "" && text.includes("[y/N]")) child.stdin.write(input);
  });
  await once(child, "close");
  return output;
}
