/**
 * All checks and tests: `npm test`; with arguments, only the tests they name: `npm test -- crash`.
 * Installs what is missing, names what could not run, and ends with one line: N passed, N failed, N skipped.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { ensureInstalled, nodeBinary, root } from "./install.mjs";
import { ensureServers } from "./servers.mjs";
import { failuresOf, timedOutFiles } from "./test-report.mjs";

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
    // Hundreds of programs are started from the same sources: what compiling one costs is paid once.
    env: { NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "compiled"), ...process.env },
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

/** Runs tests and gives vitest's report; undefined when there is none. */
function runTests(name, timeoutMs, args) {
  rmSync(report, { force: true });
  const vitest = [bin("vitest/vitest.mjs"), "run", "--reporter=default", "--reporter=json"];
  const isWhole = step(name, [...vitest, `--outputFile.json=${report}`, ...args], timeoutMs);
  try {
    return { isWhole, ...JSON.parse(readFileSync(report, "utf8")) };
  } catch {
    return undefined;
  }
}

const again = [];
const failures = [];
const tests = runTests("tests (vitest)", 45 * minute, filters);
if (tests === undefined) counts.failed++;
else {
  failures.push(...failuresOf(tests, root));
  counts.passed += tests.numPassedTests;
  counts.skipped += tests.numPendingTests + tests.numTodoTests;
  let failed = tests.numFailedTests;
  const files = tests.isWhole ? [] : timedOutFiles(tests);
  const second =
    files.length > 0 ? runTests("waits that ended in vain, once more alone", 15 * minute, files) : undefined;
  if (second?.isWhole === true) {
    again.push(...files.map((file) => relative(root, file)));
    counts.passed += failed;
    failed = 0;
  }
  // A file that failed to load has no failed test, but the run has failed all the same.
  counts.failed += !tests.isWhole && again.length === 0 ? Math.max(1, failed) : failed;
}
rmSync(folder, { recursive: true, force: true });

process.stdout.write(
  `\n${lines.join("\n")}\n${failures.map((line) => `failed: ${line}\n`).join("")}${missing.map((line) => `not run: ${line}\n`).join("")}${again.map((file) => `waited in vain at first, passed alone: ${file}\n`).join("")}\n`,
);
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
