import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createLifecycle } from "../../src/kernel/lifecycle.ts";

afterEach(() => void vi.useRealTimers());

function recorder() {
  const events: string[] = [];
  const part = (name: string, failing: "start" | "stop" | "none" = "none") => ({
    name,
    async start() {
      if (failing === "start") throw new Error(`${name} cannot start`);
      events.push(`start ${name}`);
    },
    async stop() {
      events.push(`stop ${name}`);
      if (failing === "stop") throw new Error(`${name} cannot stop`);
    },
  });
  return { events, part };
}

describe("createLifecycle", () => {
  it("starts parts in order and stops them in reverse", async () => {
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    for (const name of ["a", "b", "c"]) lifecycle.add(part(name));
    await lifecycle.start();
    expect(await lifecycle.stop()).toEqual([]);
    expect(events).toEqual(["start a", "start b", "start c", "stop c", "stop b", "stop a"]);
  });

  it("stops what had started when a part fails to start, and raises that part's error", async () => {
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    for (const item of [part("a"), part("b"), part("c", "start"), part("d")]) lifecycle.add(item);
    await expect(lifecycle.start()).rejects.toThrow("c cannot start");
    expect(events).toEqual(["start a", "start b", "stop b", "stop a"]);
  });

  it("stops every part and collects every error", async () => {
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    for (const item of [part("a", "stop"), part("b"), part("c", "stop")]) lifecycle.add(item);
    lifecycle.started("d", () => {
      throw new Error("d cannot stop, at once");
    });
    await lifecycle.start();
    const errors = await lifecycle.stop();
    // d was noted before the others had started, so it stops last.
    expect(errors.map((error) => error.message)).toEqual(["c cannot stop", "a cannot stop", "d cannot stop, at once"]);
    expect(events.slice(3)).toEqual(["stop c", "stop b", "stop a"]);
  });

  it("stops once however often it is asked", async () => {
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    lifecycle.add(part("a"));
    await lifecycle.start();
    const [first, second] = await Promise.all([lifecycle.stop(), lifecycle.stop()]);
    expect(second).toBe(first);
    await lifecycle.stop();
    expect(events).toEqual(["start a", "stop a"]);
  });

  it("gives up on a part that does not stop within its bound and goes on with the next", async () => {
    vi.useFakeTimers();
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    lifecycle.add(part("a"));
    await lifecycle.start();
    lifecycle.started("stuck", () => new Promise(() => {}), 5_000);
    const stopped = lifecycle.stop();
    await vi.advanceTimersByTimeAsync(4_999);
    expect(events).toEqual(["start a"]);
    await vi.advanceTimersByTimeAsync(1);
    expect((await stopped).map((error) => error.message)).toEqual(["stuck did not stop within 5000 ms."]);
    expect(events).toEqual(["start a", "stop a"]);
  });

  it("aborts a start that runs past its bound, and stops the part if it comes up late", async () => {
    vi.useFakeTimers();
    const events: string[] = [];
    const lifecycle = createLifecycle();
    lifecycle.add({
      name: "slow",
      startTimeoutMs: 1_000,
      start: (signal) =>
        new Promise((resolve) => {
          signal.addEventListener("abort", () => events.push("aborted"));
          setTimeout(resolve, 3_000);
        }),
      stop: () => void events.push("stopped"),
    });
    const started = lifecycle.start();
    const outcome = expect(started).rejects.toThrow("slow did not start within 1000 ms.");
    await vi.advanceTimersByTimeAsync(1_000);
    await outcome;
    expect(events).toEqual(["aborted"]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(events).toEqual(["aborted", "stopped"]);
  });

  it("lets the starting part finish when a stop is asked for, starts no further one, and stops the rest", async () => {
    const { events, part } = recorder();
    const lifecycle = createLifecycle();
    const { promise, resolve } = Promise.withResolvers<void>();
    lifecycle.add({ ...part("a"), start: () => promise });
    lifecycle.add(part("b"));
    const start = lifecycle.start();
    const outcome = expect(start).rejects.toMatchObject({ code: "SHUTTING_DOWN" });
    const stopped = lifecycle.stop();
    resolve();
    await outcome;
    expect(await stopped).toEqual([]);
    expect(events).toEqual(["stop a"]);
  });

  it("refuses a part that comes up after the stop, and stops it", async () => {
    const { events } = recorder();
    const lifecycle = createLifecycle();
    await lifecycle.stop();
    expect(() => lifecycle.started("late", () => void events.push("stop late"))).toThrow(/late is stopped again/);
    await vi.waitFor(() => expect(events).toEqual(["stop late"]));
    await expect(lifecycle.start()).rejects.toMatchObject({ code: "SHUTTING_DOWN" });
  });
});

describe("runUntilSignal", () => {
  const program = fileURLToPath(new URL("./run-until-signal-program.ts", import.meta.url));

  /** Starts a real process and waits for the line that says it is ready. */
  async function run(mode: string): Promise<{ child: ChildProcess; output: () => string; ended: Promise<unknown[]> }> {
    const child = spawn(process.execPath, [program, mode], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    const ended = once(child, "exit");
    await vi.waitFor(() => expect(text).toContain("ready"), { timeout: 20_000, interval: 10 });
    return { child, output: () => text, ended };
  }

  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "stops once on %s and lets the process end by itself",
    async (signal) => {
      const { child, output, ended } = await run("quick");
      child.kill(signal);
      expect(await ended).toEqual([0, null]);
      expect(output()).toBe("ready\nstop\nerrors 0\n");
    },
    30_000,
  );

  it("takes two SIGINT of one key press, as npm forwards them, for one", async () => {
    const { child, output, ended } = await run("quick");
    child.kill("SIGINT");
    child.kill("SIGINT");
    expect(await ended).toEqual([0, null]);
    expect(output()).toBe("ready\nstop\nerrors 0\n");
  }, 30_000);

  it("ends at once with code 130 on a second SIGINT while the stop hangs", async () => {
    const { child, output, ended } = await run("hang");
    child.kill("SIGTERM");
    await vi.waitFor(() => expect(output()).toContain("stop"), { timeout: 10_000, interval: 10 });
    // A SIGTERM again changes nothing; the key press has to come later than npm's echo of the first.
    child.kill("SIGTERM");
    const repeat = setInterval(() => child.kill("SIGINT"), 100);
    const [code] = await ended;
    clearInterval(repeat);
    expect(code).toBe(130);
    expect(output()).toBe("ready\nstop\n");
  }, 30_000);

  it("stops an app that is still starting", async () => {
    const { child, output, ended } = await run("starting");
    child.kill("SIGINT");
    expect(await ended).toEqual([0, null]);
    expect(output()).toBe("ready\nstop\nerrors 0\n");
  }, 30_000);

  it("stops what runs and raises when the start fails", async () => {
    const { output, ended } = await run("failing");
    expect(await ended).toEqual([3, null]);
    expect(output()).toBe("ready\nstop\nraised port taken\n");
  }, 30_000);
});
