/** The breaker, the bulkhead and the budget by themselves, on a clock that the test moves. */
import { describe, expect, it } from "vitest";
import { Bulkhead } from "../../src/call/bulkhead.ts";
import { CircuitBreaker } from "../../src/call/circuit-breaker.ts";
import { RetryBudget } from "../../src/call/retry-budget.ts";
import { seededRandom } from "../../src/kernel/random.ts";

class TestClock {
  at = 1_000_000;
  now = () => this.at;
  monotonic = () => this.at;
}

describe("a circuit breaker", () => {
  const limits = { windowMs: 1_000, callsMin: 4, failureRatio: 0.5, openMs: 100, openMsMax: 400, probesMax: 2 };
  const start = () => {
    const clock = new TestClock();
    const breaker = new CircuitBreaker({ clock, random: seededRandom(1), limits });
    const call = (outcome: "success" | "failure" | "nothing") => {
      const leave = breaker.admit();
      if (leave !== undefined) breaker.note(leave, outcome);
      return leave !== undefined;
    };
    return { clock, breaker, call };
  };
  const opened = () => {
    const started = start();
    for (let index = 0; index < 4; index++) started.call("failure");
    return started;
  };

  it("opens by the share of failures, once there are enough calls to judge by", () => {
    const { breaker, call } = start();
    for (const outcome of ["failure", "failure", "failure"] as const) call(outcome);
    expect(breaker.state).toBe("closed");
    call("success");
    call("failure");
    expect(breaker.state).toBe("open");
    expect(call("success")).toBe(false);
  });

  it("stays closed while fewer than the share fail, and forgets what is older than its window", () => {
    const { clock, breaker, call } = start();
    for (let index = 0; index < 40; index++) {
      call(index % 3 === 2 ? "failure" : "success");
      clock.at += 10;
    }
    expect(breaker.state).toBe("closed");
    const old = start();
    for (let index = 0; index < 3; index++) old.call("failure");
    old.clock.at += 1_100;
    old.call("failure");
    expect(old.breaker.state).toBe("closed");
  });

  it("does not count calls that their callers gave up", () => {
    const { breaker, call } = start();
    for (let index = 0; index < 20; index++) call("nothing");
    for (let index = 0; index < 3; index++) call("failure");
    expect(breaker.state).toBe("closed");
  });

  it("lets a few calls find out whether the target is back, and closes on their success", () => {
    const { clock, breaker, call } = opened();
    clock.at += 70;
    expect(breaker.state).toBe("open");
    clock.at += 80;
    expect(breaker.state).toBe("halfOpen");
    const probes = [breaker.admit(), breaker.admit(), breaker.admit()];
    expect(probes.map((leave) => leave !== undefined)).toEqual([true, true, false]);
    breaker.note(probes[0] as number, "success");
    expect(breaker.state).toBe("halfOpen");
    breaker.note(probes[1] as number, "success");
    expect(breaker.state).toBe("closed");
    // With an empty window: one failure says nothing.
    expect(call("failure")).toBe(true);
    expect(breaker.state).toBe("closed");
  });

  it("opens again, for twice as long each time up to a limit, when a probe fails", () => {
    const { clock, breaker, call } = opened();
    const lengths: number[] = [];
    for (let round = 0; round < 5; round++) {
      const since = clock.at;
      while (breaker.state === "open") clock.at += 1;
      lengths.push(clock.at - since);
      expect(call("failure")).toBe(true);
      expect(breaker.state).toBe("open");
    }
    for (const [index, nominal] of [100, 200, 400, 400, 400].entries()) {
      expect(lengths[index]).toBeGreaterThanOrEqual(nominal * 0.75);
      expect(lengths[index]).toBeLessThanOrEqual(nominal * 1.25 + 1);
    }
    expect(new Set(lengths.slice(2)).size).toBeGreaterThan(1);
  });

  it("gives a probe's place back when its caller gives up", () => {
    const { clock, breaker } = opened();
    clock.at += 150;
    const [one] = [breaker.admit(), breaker.admit()];
    expect(breaker.wouldAdmit).toBe(false);
    breaker.note(one as number, "nothing");
    expect(breaker.wouldAdmit).toBe(true);
    expect(breaker.state).toBe("halfOpen");
  });

  it("does not count in one state what began in another", () => {
    const { clock, breaker, call } = start();
    const slow = [breaker.admit(), breaker.admit()];
    for (let index = 0; index < 4; index++) call("failure");
    clock.at += 150;
    expect(breaker.state).toBe("halfOpen");
    for (const leave of slow) breaker.note(leave as number, "success");
    expect(breaker.state).toBe("halfOpen");
    expect([breaker.admit(), breaker.admit(), breaker.admit()].filter((leave) => leave !== undefined)).toHaveLength(2);
  });
});

describe("a bulkhead", () => {
  const never = new AbortController().signal;

  it("lets so many in, so many wait in their order, and refuses the others", async () => {
    const bulkhead = new Bulkhead({ underWayMax: 1, waitingMax: 2 });
    const order: string[] = [];
    expect(await bulkhead.enter(never)).toBe(true);
    const waiting = ["first", "second"].map((name) => bulkhead.enter(never).then(() => order.push(name)));
    expect(await bulkhead.enter(never)).toBe(false);
    expect([bulkhead.underWay, bulkhead.waiting]).toEqual([1, 2]);
    bulkhead.leave();
    await waiting[0];
    expect([order, bulkhead.underWay, bulkhead.waiting]).toEqual([["first"], 1, 1]);
    bulkhead.leave();
    await waiting[1];
    bulkhead.leave();
    expect([order, bulkhead.underWay, bulkhead.waiting]).toEqual([["first", "second"], 0, 0]);
  });

  it("forgets who gives up waiting", async () => {
    const bulkhead = new Bulkhead({ underWayMax: 1, waitingMax: 1 });
    await bulkhead.enter(never);
    const controller = new AbortController();
    const waiting = bulkhead.enter(controller.signal);
    controller.abort(new Error("no longer"));
    await expect(waiting).rejects.toThrow("no longer");
    expect(bulkhead.waiting).toBe(0);
    bulkhead.leave();
    expect(bulkhead.underWay).toBe(0);
    await expect(bulkhead.enter(controller.signal)).rejects.toThrow("no longer");
    expect(bulkhead.underWay).toBe(0);
  });
});

describe("a budget of retries", () => {
  it("allows ten at once, and then one for ten calls", () => {
    const budget = new RetryBudget();
    const spend = () => budget.spend();
    expect(Array.from({ length: 12 }, spend).filter(Boolean)).toHaveLength(10);
    for (let call = 0; call < 9; call++) budget.earn();
    expect(spend()).toBe(false);
    budget.earn();
    expect([spend(), spend()]).toEqual([true, false]);
    for (let call = 0; call < 1_000; call++) budget.earn();
    expect(Array.from({ length: 12 }, spend).filter(Boolean)).toHaveLength(10);
  });
});
