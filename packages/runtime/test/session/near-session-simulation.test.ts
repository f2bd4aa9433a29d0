/** Nobody is signed out, misses an own write or keeps a revoked session, in any history of copies that lag, go back and take over. */
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { type Fault, simulate } from "./simulated-regions.ts";

const seedGiven = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);
const runs = 5;

async function violationsOf(seed: number, fault: Fault, expected: RegExp): Promise<string[]> {
  const found: string[] = [];
  for (let run = 0; run < 5 * runs; run++) {
    const { violations } = await simulate(seededRandom(seed + run), fault);
    found.push(...violations.map((violation) => `seed ${seed + run}: ${violation}`));
    if (found.some((violation) => expected.test(violation))) break;
  }
  return found;
}

describe("sessions read near by", { timeout: 120_000 }, () => {
  it(`are nobody's to lose, see what their people wrote and end when they are revoked (simulation, seed ${seedGiven})`, async () => {
    const totals = { requests: 0, acknowledged: 0, near: 0, failOvers: 0 };
    for (let run = 0; run < runs; run++) {
      const { violations, ...counts } = await simulate(seededRandom(seedGiven + run), "none");
      expect({ seed: seedGiven + run, violations }).toEqual({ seed: seedGiven + run, violations: [] });
      for (const name of ["requests", "acknowledged", "near", "failOvers"] as const) totals[name] += counts[name];
    }
    console.info(`near sessions: ${JSON.stringify(totals)}`);
    expect(totals.near).toBeGreaterThan(totals.requests / 25);
    expect(totals.acknowledged).toBeGreaterThan(200);
    expect(totals.failOvers).toBeGreaterThan(2);
  });

  it.each<[Fault, RegExp]>([
    ["no revisions", /own write unseen: header/],
    ["no mark", /own write unseen: cookie/],
    ["no age", /revoked and read/],
    ["no eras", /revoked and read|own write unseen/],
    ["a copy signs out", /signed out/],
    ["writes prove too", /revoked and written/],
  ])("would be found wrong with %s (planted fault)", async (fault, expected) => {
    const violations = await violationsOf(1, fault, expected);
    expect(violations.some((violation) => expected.test(violation))).toBe(true);
  });
});
