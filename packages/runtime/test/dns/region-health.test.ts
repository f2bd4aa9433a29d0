/** A region's health from its checks: prompt, and steady where it comes and goes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type HealthThresholds,
  initialHealth,
  type Observation,
  observe,
  type RegionHealth,
} from "../../src/dns/region-health.ts";

const thresholds: HealthThresholds = { failures: 3, clearAfter: 4, successes: 3, downMsMin: 30_000 };
const everyMs = 5_000;

/** States after each of these checks, five seconds apart: o is fine, x failed, v overloaded. */
function statesOf(checks: string, of: HealthThresholds = thresholds): string[] {
  const kinds: Readonly<Record<string, Observation>> = { o: "ok", x: "failed", v: "overloaded" };
  let health: RegionHealth = initialHealth;
  return [...checks].map((check, index) => {
    health = observe(health, { found: kinds[check] as Observation, atMs: index * everyMs }, of);
    return health.state;
  });
}
const changes = (states: readonly string[]) =>
  states.filter((state, index) => index > 0 && state !== states[index - 1]).length;

describe("a region's health", () => {
  it.each<[what: string, checks: string, last: string]>([
    ["is up at first", "o", "up"],
    ["stands two failures", "xx", "up"],
    ["goes down at the third", "xxx", "down"],
    ["counts failures with successes between", "xoxox", "down"],
    ["forgets them after four successes in a row", "xxooooxx", "up"],
    ["stays down for its time, though all is fine", "xxxooooo", "down"],
    ["comes back after its time", "xxxoooooo", "up"],
    ["does not come back by time alone", "xxxxxxxxxxxxoo", "down"],
    ["comes back after three successes in a row", "xxxxxxxxxxxxooo", "up"],
    ["is overloaded when told so", "ov", "overloaded"],
    ["is so until four checks in a row are fine", "vooovooo", "overloaded"],
    ["is not any more after them", "voooo", "up"],
    ["goes down from overload", "vxxx", "down"],
    ["comes back into overload", "xxxvvvvvv", "overloaded"],
  ])("%s", (_, checks, last) => {
    expect(statesOf(checks).at(-1)).toBe(last);
  });

  it("changes once, not with every check, of one that comes and goes", () => {
    expect(changes(["up", ...statesOf("xo".repeat(500))])).toBe(1);
    expect(changes(["up", ...statesOf("xxo".repeat(500))])).toBe(1);
    expect(changes(["up", ...statesOf("xoo".repeat(500))])).toBe(1);
  });

  it("never is up again before its time and its successes, whatever the checks say", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("o", "x", "v"), { maxLength: 200 }),
        fc.record({
          failures: fc.integer({ min: 1, max: 10 }),
          clearAfter: fc.integer({ min: 1, max: 10 }),
          successes: fc.integer({ min: 1, max: 10 }),
          downMsMin: fc.integer({ min: 0, max: 60_000 }),
        }),
        (checks, of) => {
          const states = statesOf(checks.join(""), of);
          let downAt = -1;
          for (const [index, state] of states.entries()) {
            const before = states[index - 1] ?? "up";
            if (before !== "down" && state === "down") {
              downAt = index;
              expect(checks[index]).toBe("x");
            } else if (before === "down" && state !== "down") {
              expect((index - downAt) * everyMs).toBeGreaterThanOrEqual(of.downMsMin);
              expect(checks.slice(index - of.successes + 1, index + 1)).not.toContain("x");
              expect(index - downAt).toBeGreaterThanOrEqual(of.successes);
            }
          }
        },
      ),
    );
  });

  it("goes down within its failures, whatever came before", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("o", "x", "v"), { maxLength: 50 }), (checks) => {
        expect(statesOf(`${checks.join("")}xxx`).at(-1)).toBe("down");
      }),
    );
  });
});
