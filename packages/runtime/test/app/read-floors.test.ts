/** The floors of reads over shards whose leaders answer when the test says so. */
import { describe, expect, it } from "vitest";
import { type FlooredShard, readFloors } from "../../src/app/reads/read-floors.ts";
import { encodePosition, onLeaders, type Position } from "../../src/database/index.ts";

const at = (lsn: number, timeline = 1): Position => ({ timeline, lsn: BigInt(lsn) });

/** A shard whose floor and holds can be looked at; `answer` ends the oldest question. */
class Shard implements FlooredShard {
  floor: Position | undefined;
  holds = 0;
  readonly questions: ((position: Position | undefined) => void)[] = [];

  positionNow(): Promise<Position> {
    return new Promise((resolve, reject) => {
      this.questions.push((position) => (position === undefined ? reject(new Error("gone")) : resolve(position)));
    });
  }
  raiseFloor(position: Position): void {
    this.floor = position;
  }
  holdFollowers(): () => void {
    this.holds++;
    return () => void this.holds--;
  }
  async answer(position: Position | undefined): Promise<void> {
    await expect.poll(() => this.questions.length).toBeGreaterThan(0);
    this.questions.shift()?.(position);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function site() {
  const shards = [new Shard(), new Shard()] as const;
  return { shards, floors: readFloors(new Map(shards.map((shard, number) => [number, shard]))) };
}

async function known() {
  const { shards, floors } = site();
  floors.stepChanged?.(true);
  for (const shard of shards) await shard.answer(at(10));
  expect(floors.stats().inDoubt).toBe(0);
  return { shards, floors };
}

describe("the floors of a process", () => {
  it("are in doubt at the start, and asked for once everything announced is heard", async () => {
    const { shards, floors } = site();
    expect([shards[0].holds, shards[0].questions.length, floors.stats().inDoubt]).toEqual([1, 0, 2]);
    floors.stepChanged?.(true);
    await shards[0].answer(at(10));
    expect([shards[0].holds, shards[0].floor, shards[1].holds]).toEqual([0, at(10), 1]);
    await shards[1].answer(at(3));
    expect([shards[1].holds, shards[1].floor]).toEqual([0, at(3)]);
  });

  it("rise with a commit here, which gives what others are told", async () => {
    const { shards, floors } = await known();
    const told = floors.committed(1);
    await shards[1].answer(at(20));
    expect(await told).toEqual({ 1: encodePosition(at(20)) });
    expect([shards[1].floor, shards[0].floor]).toEqual([at(20), at(10)]);
    expect(await floors.committed(7)).toEqual({});
  });

  it("rise on the shards too that the same unit of work wrote to before", async () => {
    const { shards, floors } = await known();
    const told = floors.committed(1, [0, 1, 7]);
    await Promise.all([shards[0].answer(at(15)), shards[1].answer(at(20))]);
    expect(await told).toEqual({ 0: encodePosition(at(15)), 1: encodePosition(at(20)) });
    expect([shards[0].floor, shards[1].floor]).toEqual([at(15), at(20)]);
  });

  it("are in doubt after a commit whose position cannot be had, here and where it is told", async () => {
    const one = await known();
    const told = one.floors.committed(0);
    await one.shards[0].answer(undefined);
    expect(await told).toEqual({ 0: "" });
    expect([one.shards[0].holds, one.shards[1].holds]).toEqual([1, 0]);
    const other = await known();
    other.floors.drop(["t"], await told);
    expect([other.shards[0].holds, other.shards[1].holds]).toEqual([1, 0]);
    await one.shards[0].answer(at(30));
    expect([one.shards[0].holds, one.shards[0].floor]).toEqual([0, at(30)]);
  });

  it("rise with what is heard, and are in doubt when it does not say", async () => {
    const { shards, floors } = await known();
    floors.drop(["t"], { 0: encodePosition(at(40)) });
    expect([shards[0].floor, shards[0].holds]).toEqual([at(40), 0]);
    floors.drop(["t"], {});
    expect(floors.stats().inDoubt).toBe(0);
    floors.drop(["t"], { 1: "nonsense" });
    expect([shards[0].holds, shards[1].holds]).toEqual([0, 1]);
    floors.drop("everything", undefined);
    expect([shards[0].holds, shards[1].holds]).toEqual([1, 1]);
  });

  it("are not known by an answer to a question from before the doubt", async () => {
    const { shards, floors } = await known();
    floors.drop("everything", undefined);
    await expect.poll(() => shards[0].questions.length).toBe(1);
    floors.drop("everything", undefined);
    await shards[0].answer(at(50));
    expect(shards[0].holds).toBe(1);
    await shards[0].answer(at(60));
    expect([shards[0].holds, shards[0].floor]).toEqual([0, at(60)]);
  });

  it("are not known by an answer from before all was heard again", async () => {
    const { shards, floors } = await known();
    floors.drop("everything", undefined);
    await expect.poll(() => shards[0].questions.length).toBe(1);
    floors.stepChanged?.(false);
    floors.drop("everything", undefined);
    await shards[0].answer(at(50));
    expect([shards[0].holds, shards[0].questions.length]).toEqual([1, 0]);
    floors.stepChanged?.(true);
    await shards[0].answer(at(60));
    expect([shards[0].holds, shards[0].floor]).toEqual([0, at(60)]);
  });

  it("go on asking a leader that does not answer", async () => {
    const { shards, floors } = await known();
    floors.drop(["t"], { 0: "" });
    await shards[0].answer(undefined);
    expect(shards[0].holds).toBe(1);
    await shards[0].answer(at(70));
    expect([shards[0].holds, shards[0].floor]).toEqual([0, at(70)]);
    floors.close();
    expect(onLeaders(() => floors.stats().doubts)).toBe(3);
  });
});
