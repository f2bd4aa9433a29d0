/**
 * Leaders that die or freeze under writers: nothing that was acknowledged is lost, nothing is there twice, and writes go on by themselves.
 *
 * `FAILOVER_ROUNDS=10` strikes that often; `FAILOVER_REPLICATION=asynchronous` shows what that setting loses, and fails by it.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Fault, failOver, plot, reckon, startWriters, type Writers, whole } from "./support/failover.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

const rounds = Number(process.env["FAILOVER_ROUNDS"] ?? 3);
const replication = process.env["FAILOVER_REPLICATION"] ?? "synchronous";
const faults: readonly Fault[] = ["gone", "both frozen", "server killed", "both killed"];
const writesAgainWithinMs = 15_000;

let stack: RunningStack;
let writers: Writers;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "4", "--processes", "2", "--replication", replication]);
  await whole(stack, 0, 60_000);
  writers = startWriters(stack.app);
}, 120_000);
afterAll(async () => {
  await writers?.stop();
  await stack?.dispose();
}, 60_000);

describe("a leader is struck while clients write", () => {
  it.each(Array.from({ length: rounds }, (_, round) => [round + 1, faults[round % faults.length] as Fault] as const))(
    "round %i, %s: another one takes writes, and the shard becomes whole again",
    async (_round, fault) => {
      const found = await failOver(stack, writers, fault);
      process.stdout.write(`${plot(writers, found)}\n`);
      // One that comes back at once may lead on: it has everything.
      if (fault !== "both killed") expect(found.to).not.toBe(found.from);
      expect(found.writesAgainMs).toBeLessThan(writesAgainWithinMs);
    },
    150_000,
  );

  it("every acknowledged write is there, and none is there twice", async () => {
    await writers.stop();
    const { lost, twice, acknowledged } = await reckon(stack, writers);
    process.stdout.write(
      `${replication}: ${acknowledged} writes acknowledged, ${lost.length} lost, ${twice.length} twice, ${writers.failures.length} failed\n`,
    );
    expect(acknowledged).toBeGreaterThan(100 * rounds);
    expect(twice).toEqual([]);
    expect(lost).toEqual([]);
  }, 30_000);
});
