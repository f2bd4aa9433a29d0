import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/*/test/**/*.test.ts", "examples/*/test/**/*.test.ts", "scripts/test/**/*.test.ts"],
    pool: "forks",
    // Tests start real servers; more at once than cores would only time out.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
    // What is waited for comes when it comes; the default of 1 s is less than a busy machine may stand still.
    expect: { poll: { timeout: 10_000 } },
  },
});
