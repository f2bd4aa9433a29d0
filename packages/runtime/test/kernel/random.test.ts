import { validate, version as versionOf } from "uuid";
import { describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/kernel/clock.ts";
import { seededRandom, systemRandom, uuidV7 } from "../../src/kernel/random.ts";

function handClock(start: number): Clock & { ms: number } {
  return {
    ms: start,
    now() {
      return this.ms;
    },
    monotonic() {
      return this.ms;
    },
  };
}

const timeOf = (id: string) => Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16);

describe("seededRandom", () => {
  it("gives the published sequence of mulberry32", () => {
    const { next } = seededRandom(0);
    expect([next(), next(), next()]).toEqual([0.26642920868471265, 0.0003297457005828619, 0.2232720274478197]);
  });

  it("replays the same numbers and bytes for the same seed, and others for another", () => {
    const draw = (seed: number) => {
      const random = seededRandom(seed);
      return [random.next(), [...random.bytes(16)], random.next()];
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it("spreads bytes and numbers evenly", () => {
    const random = seededRandom(42);
    const draws = 200_000;
    const bytes = new Array<number>(256).fill(0);
    for (const byte of random.bytes(draws)) bytes[byte] = (bytes[byte] ?? 0) + 1;
    const expected = draws / 256;
    const chiSquare = bytes.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 255 degrees of freedom: 99.99 % of even sources lie below 347.
    expect(chiSquare).toBeLessThan(347);
    let sum = 0;
    for (let draw = 0; draw < draws; draw++) sum += random.next();
    expect(sum / draws).toBeGreaterThan(0.497);
    expect(sum / draws).toBeLessThan(0.503);
  });
});

describe("systemRandom", () => {
  it("gives the asked number of bytes, and numbers from 0 to below 1", () => {
    expect(systemRandom.bytes(33)).toHaveLength(33);
    expect(systemRandom.bytes(32)).not.toEqual(systemRandom.bytes(32));
    for (let draw = 0; draw < 1_000; draw++) {
      const number = systemRandom.next();
      expect(number >= 0 && number < 1).toBe(true);
    }
  });
});

describe("uuidV7", () => {
  it("has the version, variant and time of RFC 9562", () => {
    const clock = handClock(0x017f22e279b0);
    const id = uuidV7(clock, systemRandom);
    expect(validate(id)).toBe(true);
    expect(versionOf(id)).toBe(7);
    expect(id).toMatch(/^017f22e2-79b0-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it("gives a million valid, unique, ascending ids", () => {
    const seen = new Set<string>();
    let last = "";
    let outOfOrder = 0;
    let malformed = 0;
    for (let count = 0; count < 1_000_000; count++) {
      const id = uuidV7(systemClock, systemRandom);
      if (id <= last) outOfOrder++;
      if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)) malformed++;
      seen.add(id);
      last = id;
    }
    expect({ unique: seen.size, outOfOrder, malformed }).toEqual({ unique: 1_000_000, outOfOrder: 0, malformed: 0 });
  }, 60_000);

  it("keeps ascending when the clock stands still for longer than the counter reaches", () => {
    const clock = handClock(1_000_000);
    const ids = Array.from({ length: 10_000 }, () => uuidV7(clock, systemRandom));
    expect(ids).toEqual([...new Set(ids)].sort());
    expect(timeOf(ids.at(-1) ?? "") - 1_000_000).toBeLessThanOrEqual(3);
  });

  it("keeps ascending when the clock is set back, and follows it once it has caught up", () => {
    const clock = handClock(5_000_000);
    const before = uuidV7(clock, systemRandom);
    clock.ms -= 3_600_000;
    const during = uuidV7(clock, systemRandom);
    clock.ms += 3_700_000;
    const after = uuidV7(clock, systemRandom);
    expect([before, during, after]).toEqual([before, during, after].sort());
    expect(timeOf(during)).toBe(5_000_000);
    expect(timeOf(after)).toBe(5_100_000);
  });

  it("replays from a seed and a clock of its own, whatever ids were made before", () => {
    uuidV7(systemClock, systemRandom);
    const draw = () => {
      const clock = handClock(123_456);
      const random = seededRandom(9);
      return Array.from({ length: 5 }, () => uuidV7(clock, random));
    };
    expect(draw()).toEqual(draw());
    expect(timeOf(draw()[0] ?? "")).toBe(123_456);
  });

  it("takes whole milliseconds from a clock that gives fractions", () => {
    expect(validate(uuidV7(handClock(1_700_000_000_000.75), systemRandom))).toBe(true);
  });
});
