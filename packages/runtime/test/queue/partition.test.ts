import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ownersOf, partitionOf } from "../../src/queue/partition.ts";

const id = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
const members = (count: number) => Array.from({ length: count }, (_, index) => id(index * 7_919));

describe("the partition of a message", () => {
  it("is that of its key, whatever its id; without one that of its id, and never that of a key of the same text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "binary" }),
        fc.nat(),
        fc.nat(),
        fc.integer({ min: 1, max: 64 }),
        (key, a, b, count) => {
          const partition = partitionOf({ key, id: id(a) }, count);
          expect(partition).toBe(partitionOf({ key, id: id(b) }, count));
          expect(partition).toBeGreaterThanOrEqual(0);
          expect(partition).toBeLessThan(count);
          expect(partitionOf({ key: null, id: id(a) }, count)).toBe(partitionOf({ key: null, id: id(a) }, count));
        },
      ),
    );
    const differing = Array.from({ length: 64 }, (_, index) =>
      [null, id(index)].map((key) => partitionOf({ key, id: id(index) }, 8)),
    );
    expect(differing.some(([keyless, keyed]) => keyless !== keyed)).toBe(true);
  });

  it.each([
    ["numbers", (index: number) => String(index)],
    ["ids in a row", id],
    ["names", (index: number) => `user-${index}@example.org`],
  ])("spreads keys that are %s evenly over 8", (_, keyAt) => {
    const counts = new Array<number>(8).fill(0);
    for (let index = 0; index < 8_000; index++) {
      const partition = partitionOf({ key: keyAt(index), id: "" }, 8);
      counts[partition] = (counts[partition] ?? 0) + 1;
    }
    for (const count of counts) expect(Math.abs(count - 1_000)).toBeLessThan(150);
  });

  it("never changes: stored messages are where it said", () => {
    const of = (key: string | null) => partitionOf({ key, id: id(1) }, 8);
    expect(["a", "b", "c", "ü", "", null].map(of)).toMatchInlineSnapshot(`
      [
        2,
        2,
        0,
        2,
        0,
        3,
      ]
    `);
  });
});

describe("the owners of partitions", () => {
  it("are the members in even shares, in whatever order they are known", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 32 }),
        fc.string(),
        (count, partitions, handler) => {
          const owners = ownersOf({ handler, partitions, members: members(count) });
          expect(owners).toHaveLength(partitions);
          expect(ownersOf({ handler, partitions, members: members(count).reverse() })).toEqual(owners);
          const shares = members(count).map((member) => owners.filter((owner) => owner === member).length);
          expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);
          expect(shares.reduce((sum, share) => sum + share, 0)).toBe(partitions);
        },
      ),
    );
    expect(ownersOf({ handler: "h", partitions: 8, members: [] })).toEqual([]);
  });

  it("change little when a member comes or goes", () => {
    let moved = 0;
    let least = 0;
    for (let handler = 0; handler < 200; handler++) {
      for (const count of [2, 3, 4]) {
        const before = ownersOf({ handler: `h${handler}`, partitions: 8, members: members(count) });
        const after = ownersOf({ handler: `h${handler}`, partitions: 8, members: members(count + 1) });
        moved += before.filter((owner, partition) => owner !== after[partition]).length;
        least += Math.floor(8 / (count + 1));
      }
    }
    // Moving everything would be 8 of 8; the least is the newcomer's share.
    expect(moved / least).toBeLessThan(1.7);
  });

  it("leave the extra partitions of different handlers to different members", () => {
    const shares = new Map<string, number>();
    for (let handler = 0; handler < 300; handler++) {
      for (const owner of ownersOf({ handler: `h${handler}`, partitions: 8, members: members(3) })) {
        shares.set(owner, (shares.get(owner) ?? 0) + 1);
      }
    }
    for (const share of shares.values()) expect(Math.abs(share - 800)).toBeLessThan(60);
  });
});
