/** What a unit of work asks for and what it is settled to, over servers that say what the test has them say. */
import { describe, expect, it } from "vitest";
import { inReadContext, onLeaders, type Position, ReadContext, readContext } from "../../../src/database/index.ts";

const at = (lsn: number, timeline = 1): Position => ({ timeline, lsn: BigInt(lsn) });
const server = (position: Position | undefined, coveredBy?: { positionNow(): Promise<Position> }) => ({
  coveredBy,
  async positionNow() {
    if (position === undefined) throw new Error("gone");
    return position;
  },
});

describe("a unit of work", () => {
  it("is settled to what was required, read and written, the later of each shard", async () => {
    const context = new ReadContext(
      new Map([
        [0, at(5)],
        [1, at(5)],
        [2, at(5)],
      ]),
    );
    context.noteRead(0, server(at(9)));
    context.noteRead(1, server(at(3)));
    context.noteRead(1, server(at(4)));
    context.noteWrite(3, server(at(70, 2)));
    expect(await context.settle()).toEqual(
      new Map([
        [0, at(9)],
        [1, at(5)],
        [2, at(5)],
        [3, at(70, 2)],
      ]),
    );
  });

  it("is settled by the leader where the follower that it read from is gone", async () => {
    const context = new ReadContext();
    context.noteRead(0, server(undefined, server(at(50))));
    context.noteRead(1, server(undefined, server(undefined)));
    expect(await context.settle()).toEqual(new Map([[0, at(50)]]));
  });

  it("cannot be settled when the leader that it wrote to is gone", async () => {
    const context = new ReadContext();
    context.noteWrite(0, server(undefined));
    await expect(context.settle()).rejects.toThrow("gone");
  });

  it("needs leaders while it is held, and of a shard that it wrote to", () => {
    const context = new ReadContext();
    context.hold();
    expect([context.needsLeader(0), context.hasWritten(0)]).toEqual([true, false]);
    context.release();
    context.noteWrite(1, server(at(1)));
    expect([context.needsLeader(0), context.needsLeader(1), context.hasWrites]).toEqual([false, true, true]);
  });

  it("is around all that is done in it, but for what is meant for leaders, until it is over", async () => {
    const context = new ReadContext();
    const inside = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      return readContext();
    };
    expect(readContext()).toBeUndefined();
    expect(await inReadContext(context, inside)).toBe(context);
    expect(await inReadContext(context, () => onLeaders(inside))).toBeUndefined();
    const later = inReadContext(context, inside);
    context.end();
    expect(await later).toBeUndefined();
  });
});
