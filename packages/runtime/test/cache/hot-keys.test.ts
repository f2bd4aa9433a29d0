/** Which keys are read most, from a sample in a bounded number of counters. */
import { describe, expect, it } from "vitest";
import { HotKeys } from "../../src/cache/hot-keys.ts";

describe("hot keys", () => {
  it("finds those that stand out of many others, with their reads", () => {
    const hot = new HotKeys();
    const reads = 400_000;
    for (let read = 0; read < reads; read++) {
      hot.saw(read % 10 === 0 ? "a" : read % 20 === 1 ? "b" : `cold-${(read * 7_919) % 100_003}`);
    }
    const { reads: all, keys } = hot.hottest(2);
    expect(all / reads).toBeGreaterThan(0.9);
    expect(all / reads).toBeLessThan(1.1);
    expect(keys.map(({ key }) => key)).toEqual(["a", "b"]);
    for (const [index, share] of [0.1, 0.05].entries()) {
      const { reads: estimate, errorMax } = keys[index] as { reads: number; errorMax: number };
      expect(estimate).toBeGreaterThan(reads * share * 0.8);
      expect(estimate - errorMax).toBeLessThan(reads * share * 1.2);
    }
  });

  it("keeps no more than 256 counters, and forgets what was hot long ago", () => {
    const hot = new HotKeys();
    for (let read = 0; read < 1_000_000; read++) hot.saw("before");
    for (let read = 0; read < 40_000_000; read++) hot.saw("now");
    for (let read = 0; read < 100_000; read++) hot.saw(`cold-${read}`);
    const { keys } = hot.hottest(10_000);
    expect(keys.length).toBeLessThanOrEqual(256);
    expect(keys[0]?.key).toBe("now");
    expect(keys.find(({ key }) => key === "before")?.reads ?? 0).toBeLessThan(100_000);
  });
});
