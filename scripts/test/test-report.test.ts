import { describe, expect, it } from "vitest";
import { failuresOf, timedOutFiles } from "../test-report.mjs";

const passed = { status: "passed", fullName: "a thing is", failureMessages: [] };
const failed = (message: string) => ({ status: "failed", fullName: "a thing does", failureMessages: [message] });
const file = (name: string, ...assertionResults: ReturnType<typeof failed>[]) => ({
  name,
  status: assertionResults.every(({ status }) => status === "passed") ? "passed" : "failed",
  assertionResults,
});
const late = failed("Error: Waited 20000 ms in vain until the replicas have everything.\n    at until (until.ts:9)");
const slow = failed("Error: Test timed out in 30000ms.\nIf this is a long-running test ...");
const unseen = failed(
  'TimeoutError: locator.waitFor: Timeout 10000ms exceeded.\nCall log:\n  - waiting for locator("h1")',
);
const polled = failed(
  "Error: expected 1 to be 2 // Object.is equality\n    at Proxy.__VITEST_POLL_CHAIN__ (index.js:7:4)",
);
const wrong = failed("AssertionError: expected 1 to be +0\n - a row said: Waited 5 ms in vain until nothing.");

describe("failures that may be the machine's", () => {
  it("are waits that ended in vain", () => {
    expect(
      timedOutFiles({ testResults: [file("a", passed), file("b", late, polled), file("c", slow, unseen)] }),
    ).toEqual(["b", "c"]);
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

describe("what is said of failures at the end", () => {
  it("is where, which, and what was said first", () => {
    const message =
      "AssertionError: expected 1\n  to be +0\n    at x (/p/deep.ts:3:1)\n    at /p/a.test.ts:93:9\n    at /p/a.test.ts:7:1";
    expect(
      failuresOf({ testResults: [file("/p/b.test.ts", passed), file("/p/a.test.ts", passed, failed(message))] }, "/p"),
    ).toEqual(["a.test.ts:93: a thing does: AssertionError: expected 1 to be +0"]);
  });

  it("names files that could not be loaded", () => {
    const unloaded = { name: "/p/c.test.ts", status: "failed", message: "No such\nmodule", assertionResults: [] };
    expect(failuresOf({ testResults: [unloaded] }, "/p")).toEqual(["c.test.ts: No such module"]);
  });

  it("is short", () => {
    const [line] = failuresOf({ testResults: [file("/p/a.test.ts", failed("x".repeat(5_000)))] }, "/p");
    expect(line?.length).toBeLessThan(400);
  });
});
