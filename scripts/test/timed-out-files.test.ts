import { describe, expect, it } from "vitest";
import { timedOutFiles } from "../timed-out-files.mjs";

const passed = { status: "passed", failureMessages: [] };
const failed = (message: string) => ({ status: "failed", failureMessages: [message] });
const file = (name: string, ...assertionResults: ReturnType<typeof failed>[]) => ({
  name,
  status: assertionResults.every(({ status }) => status === "passed") ? "passed" : "failed",
  assertionResults,
});
const late = failed("Error: Waited 20000 ms in vain until the replicas have everything.\n    at until (until.ts:9)");
const slow = failed("Error: Test timed out in 30000ms.\nIf this is a long-running test ...");
const wrong = failed("AssertionError: expected 1 to be +0\n - a row said: Waited 5 ms in vain until nothing.");

describe("failures that may be the machine's", () => {
  it("are waits that ended in vain", () => {
    expect(timedOutFiles({ testResults: [file("a", passed), file("b", late, passed), file("c", slow)] })).toEqual([
      "b",
      "c",
    ]);
  });

  it("are none as soon as one value was wrong, wherever", () => {
    expect(timedOutFiles({ testResults: [file("b", late), file("c", passed, wrong)] })).toEqual([]);
    expect(timedOutFiles({ testResults: [file("b", late, wrong)] })).toEqual([]);
  });

  it("are none when a file could not be loaded", () => {
    expect(
      timedOutFiles({ testResults: [file("b", late), { name: "c", status: "failed", assertionResults: [] }] }),
    ).toEqual([]);
  });

  it("are none when there are many", () => {
    expect(timedOutFiles({ testResults: ["a", "b", "c", "d"].map((name) => file(name, late)) })).toEqual([]);
  });
});
