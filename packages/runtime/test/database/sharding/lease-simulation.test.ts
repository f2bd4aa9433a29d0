/** No key ever has two owners, and nobody reads behind an acknowledged write, in any history of moves, deaths and frozen processes. */
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../src/kernel/random.ts";
import { testSeed } from "../support.ts";
import { type Fault, simulate } from "./simulated-cluster.ts";

const runs = 10;

async function violationsOf(seed: number, fault: Fault, expected: RegExp): Promise<string[]> {
  const found: string[] = [];
  for (let run = 0; run < runs; run++) {
    const { violations } = await simulate(seededRandom(seed + run), fault);
    found.push(...violations.map((violation) => `seed ${seed + run}: ${violation}`));
    if (found.some((violation) => expected.test(violation))) break;
  }
  return found;
}

describe("leases and changes of owner", { timeout: 120_000 }, () => {
  it("give no key two owners and show nobody an old row (simulation)", async () => {
    const seed = testSeed("leases");
    const totals = { writes: 0, reads: 0, changes: 0, rerouted: 0 };
    for (let run = 0; run < runs; run++) {
      const { violations, ...counts } = await simulate(seededRandom(seed + run), "none");
      expect({ seed: seed + run, violations }).toEqual({ seed: seed + run, violations: [] });
      for (const name of ["writes", "reads", "changes", "rerouted"] as const) totals[name] += counts[name];
    }
    console.info(`leases: ${JSON.stringify(totals)}`);
    expect(totals.changes).toBeGreaterThan(20);
    expect(totals.rerouted).toBeGreaterThan(0);
  });

  it.each<[Fault, RegExp]>([
    ["no wait for leases", /acknowledged before/],
    ["no guard", /acknowledged before/],
    ["leases without end", /acknowledged before/],
    ["no fence of movers", /two owners|acknowledged before/],
  ])("would be found wrong with %s (planted fault)", async (fault, expected) => {
    const violations = await violationsOf(1, fault, expected);
    expect(violations.some((violation) => expected.test(violation))).toBe(true);
  });
});
