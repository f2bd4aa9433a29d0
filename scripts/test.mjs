/**
 * All checks and tests: `npm test`; with arguments, only the tests they name: `npm test -- crash`.
 * Installs what is missing, names what could not run, and ends with one line: N passed, N failed, N skipped.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureInstalled, nodeBinary, root } from "./install.mjs";
import { ensureServers } from "./servers.mjs";

const minute = 60_000;
const filters = process.argv.slice(2);
ensureInstalled();
const missing = ensureServers();
const folder = mkdtempSync(join(tmpdir(), "rungs-tests-"));
const report = join(folder, "vitest.json");
const counts = { passed: 0, failed: 0, skipped: 0 };
const lines = [];

/** Runs one step with the pinned Node and counts it as one check. */
function step(name, args, timeoutMs) {
  const since = performance.now();
  process.stdout.write(`\n== ${name}\n`);
  const { status } = spawnSync(nodeBinary(), args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    timeout: timeoutMs,
  });
  const isFine = status === 0;
  lines.push(`${isFine ? "ok    " : "FAILED"} ${name} (${((performance.now() - since) / 1_000).toFixed(1)} s)`);
  return isFine;
}

function check(name, args, timeoutMs = 5 * minute) {
  counts[step(name, args, timeoutMs) ? "passed" : "failed"]++;
}

const bin = (path) => join("node_modules", path);
if (filters.length === 0) {
  check("format and lint (biome)", [bin("@biomejs/biome/bin/biome"), "check", "--error-on-warnings", "."]);
  check("types (tsc)", [bin("typescript/bin/tsc"), "-p", "tsconfig.json"]);
  check("unused code (knip)", [bin("knip/bin/knip.js")]);
  check("layers (dependency-cruiser)", ["scripts/layers.ts"]);
  check("build, publint, packed package", ["scripts/build.ts", "--check"]);
}
const isWhole = step(
  "tests (vitest)",
  [bin("vitest/vitest.mjs"), "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...filters],
  45 * minute,
);
try {
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(readFileSync(report, "utf8"));
  counts.passed += numPassedTests;
  counts.failed += numFailedTests;
  counts.skipped += numPendingTests + numTodoTests;
  // A file that failed to load has no failed test, but the run has failed all the same.
  if (!isWhole && numFailedTests === 0) counts.failed++;
} catch {
  counts.failed++;
}
rmSync(folder, { recursive: true, force: true });

process.stdout.write(`\n${lines.join("\n")}\n${missing.map((line) => `not run: ${line}\n`).join("")}\n`);
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
