import { describe, expect, it } from "vitest";
import { HeldRefusals } from "../../src/web/held-refusals.ts";

describe("held refusals", () => {
  it("are answered once their time is over, in the order in which they came", () => {
    const held = new HeldRefusals<string>({ holdMs: 200, countMax: 10 });
    held.add("a", 1_000);
    held.add("b", 1_050);
    held.add("c", 1_050);
    expect(held.due(1_199)).toEqual([]);
    expect(held.due(1_200)).toEqual(["a"]);
    expect(held.due(1_300)).toEqual(["b", "c"]);
    expect(held.due(5_000)).toEqual([]);
  });

  it("are so many at most, and others again once some were answered", () => {
    const held = new HeldRefusals<number>({ holdMs: 10, countMax: 2 });
    expect([held.add(1, 0), held.add(2, 0), held.add(3, 0)]).toEqual([true, true, false]);
    expect(held.due(10)).toEqual([1, 2]);
    expect([held.add(4, 10), held.add(5, 10), held.add(6, 10)]).toEqual([true, true, false]);
  });

  it("are all answered at the end, and none twice", () => {
    const held = new HeldRefusals<number>({ holdMs: 200, countMax: 10 });
    held.add(1, 0);
    held.add(2, 100);
    expect(held.due(Number.POSITIVE_INFINITY)).toEqual([1, 2]);
    expect(held.due(Number.POSITIVE_INFINITY)).toEqual([]);
  });
});
