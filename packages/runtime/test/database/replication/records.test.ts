/** What is kept of positions, timelines and durations: pure, with a clock that is moved by hand. */
import { describe, expect, it } from "vitest";
import { LagRecord } from "../../../src/database/replication/lag-record.ts";
import {
  decodePosition,
  encodePosition,
  formatLsn,
  isAfter,
  laterOf,
  parseLsn,
} from "../../../src/database/replication/position.ts";
import { ReadPace } from "../../../src/database/replication/read-pace.ts";
import { isBeyond, parseHistory } from "../../../src/database/replication/timeline-history.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { testSeed } from "./support.ts";

describe("lag", () => {
  it("is the time since the leader was last known to be no further than the follower", () => {
    const record = new LagRecord();
    expect(record.lagMs({ timeline: 1, lsn: 5n }, 1_000)).toBe(0);
    record.note({ timeline: 1, lsn: 10n }, 1_000);
    record.note({ timeline: 1, lsn: 10n }, 1_500);
    record.note({ timeline: 1, lsn: 20n }, 2_000);
    expect(record.lagMs({ timeline: 1, lsn: 20n }, 60_000)).toBe(0);
    // At 10 the leader was still at 1,500; it may have gone on right after.
    expect(record.lagMs({ timeline: 1, lsn: 15n }, 2_100)).toBe(600);
    expect(record.lagMs({ timeline: 1, lsn: 5n }, 2_100)).toBe(600);
  });

  it("is unknown for another timeline, and nothing for one that this process has not heard of", () => {
    const record = new LagRecord();
    record.note({ timeline: 2, lsn: 10n }, 0);
    expect(record.lagMs({ timeline: 1, lsn: 99n }, 1)).toBeUndefined();
    expect(record.lagMs({ timeline: 3, lsn: 1n }, 1)).toBe(0);
    record.note({ timeline: 3, lsn: 12n }, 5);
    expect(record.newest).toEqual({ timeline: 3, lsn: 12n });
    expect(record.lagMs({ timeline: 2, lsn: 99n }, 6)).toBeUndefined();
  });

  it("never says less than it is, whatever the leader and the looks do (property)", () => {
    const random = seededRandom(testSeed("lag"));
    for (let round = 0; round < 200; round++) {
      const record = new LagRecord();
      // The leader's position at each ms, and looks at it now and then.
      const at: bigint[] = [];
      let lsn = 0n;
      for (let ms = 0; ms < 500; ms++) {
        if (random.next() < 0.3) lsn += BigInt(Math.ceil(random.next() * 5));
        at.push(lsn);
        if (ms === 0 || random.next() < 0.05) record.note({ timeline: 1, lsn }, ms);
      }
      const follower = BigInt(Math.floor(random.next() * Number(lsn + 1n)));
      const said = record.lagMs({ timeline: 1, lsn: follower }, 500) ?? -1;
      const isCurrent = follower >= (record.newest?.lsn ?? 0n);
      // The leader was first beyond it at this ms; a look may have missed that by the time between two of them.
      const passed = at.findIndex((position) => position > follower);
      const least = isCurrent || passed < 0 ? 0 : 500 - passed;
      expect(said).toBeGreaterThanOrEqual(least);
    }
  });

  it("keeps a bounded number of samples", () => {
    const record = new LagRecord();
    for (let index = 0; index < 5_000; index++) record.note({ timeline: 1, lsn: BigInt(index) }, index);
    expect(record.lagMs({ timeline: 1, lsn: 4_990n }, 5_000)).toBe(10);
    // Older than what is kept: as old as the oldest kept, at least.
    expect(record.lagMs({ timeline: 1, lsn: 1n }, 5_000)).toBeGreaterThan(800);
  });
});

describe("positions", () => {
  it("survive being written and read, and their texts order as they do (property)", () => {
    const random = seededRandom(testSeed("positions"));
    const any = () => ({
      timeline: 1 + Math.floor(random.next() * 2 ** (1 + 31 * random.next())),
      lsn: BigInt(Math.floor(random.next() * 2 ** 32)) * (random.next() < 0.5 ? 1n : 2n ** 31n),
    });
    for (let round = 0; round < 2_000; round++) {
      const [a, b] = [any(), any()];
      expect(decodePosition(encodePosition(a))).toEqual(a);
      expect(parseLsn(formatLsn(a.lsn))).toBe(a.lsn);
      expect(isAfter(a, b)).toBe(encodePosition(a) > encodePosition(b));
    }
    for (const text of ["", "0", "g".repeat(24), "0".repeat(25), "1/2", "0000000100000000000000AB"]) {
      expect(decodePosition(text)).toBeUndefined();
    }
    expect(parseLsn("16/B374D848")).toBe(0x16_b374_d848n);
    for (const text of ["", "16", "16/", "16/B374D848F", "x/1"]) expect(parseLsn(text)).toBeUndefined();
  });

  it("are merged shard by shard to the later one", () => {
    const a = new Map([
      [0, { timeline: 1, lsn: 9n }],
      [1, { timeline: 2, lsn: 1n }],
    ]);
    const b = new Map([
      [0, { timeline: 2, lsn: 1n }],
      [2, { timeline: 1, lsn: 1n }],
    ]);
    expect(laterOf(a, b)).toEqual(
      new Map([
        [0, { timeline: 2, lsn: 1n }],
        [1, { timeline: 2, lsn: 1n }],
        [2, { timeline: 1, lsn: 1n }],
      ]),
    );
  });
});

describe("timelines", () => {
  it("a position is beyond the history when it is after its timeline's end, or of none that led here", () => {
    const history = parseHistory("1\t0/3000148\tno recovery target specified\n\n# note\n2\t0/5000000\tx\n");
    expect(isBeyond({ timeline: 1, lsn: 0x3000148n }, history)).toBe(false);
    expect(isBeyond({ timeline: 1, lsn: 0x3000149n }, history)).toBe(true);
    expect(isBeyond({ timeline: 2, lsn: 0x4000000n }, history)).toBe(false);
    expect(isBeyond({ timeline: 4, lsn: 1n }, history)).toBe(true);
  });
});

describe("the pace of reads", () => {
  it("gives what 95 of 100 stay below, lately", () => {
    const pace = new ReadPace(0.05);
    expect(pace.p95Ms).toBeUndefined();
    for (let index = 0; index < 1_000; index++) pace.note(index % 100 < 97 ? 2 : 200);
    expect(pace.p95Ms).toBeGreaterThanOrEqual(2);
    expect(pace.p95Ms).toBeLessThan(4);
    for (let index = 0; index < 5_000; index++) pace.note(100);
    expect(pace.p95Ms).toBeGreaterThanOrEqual(100);
  });

  it("pays for one hedge in twenty reads, saves ten at most, and none when turned off", () => {
    const pace = new ReadPace(0.05);
    let hedges = 0;
    for (let index = 0; index < 2_000; index++) {
      pace.note(1);
      if (pace.takeHedge()) hedges++;
    }
    expect(hedges).toBeGreaterThan(90);
    expect(hedges).toBeLessThanOrEqual(101);
    for (let index = 0; index < 100_000; index++) pace.note(1);
    let saved = 0;
    while (pace.takeHedge()) saved++;
    expect(saved).toBeLessThanOrEqual(11);
    const off = new ReadPace(0);
    for (let index = 0; index < 1_000; index++) off.note(1);
    expect(off.takeHedge()).toBe(false);
  });
});
