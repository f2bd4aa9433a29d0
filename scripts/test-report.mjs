/** What a run's report says: which tests failed and how, and which failures may be the machine's and not the code's. */
import { relative } from "node:path";

/**
 * How a wait that ended says so: vitest's own limits and its `expect.poll`, `until` of `@rungs/contract`, and the browser's driver. On a
 * machine that stands still for a moment a wait can end too early, so `npm test` runs the files of such failures once more, alone, and
 * names them. A wrong value is never looked at twice.
 */
const waitedInVain = [
  /^(?:Error: )?(?:(?:Test|Hook) timed out in \d+ms|Waited \d+ ms in vain)/,
  /^TimeoutError: \S+: Timeout \d+ms exceeded/,
  /^Error: expected [\s\S]*\n +at Proxy\.__VITEST_POLL_CHAIN__ /,
];

/** More files than these are no accident. */
const filesMax = 3;

/** Of one failure's text, in characters. */
const textMax = 300;

const isFailed = ({ status }) => status === "failed";

/**
 * Files, by their full path, all of whose failures are such waits; none when any test failed otherwise, a file could not be loaded, or
 * there are too many of them.
 *
 * @param {import("./test-report.d.mts").Report} report
 * @returns {string[]}
 */
export function timedOutFiles({ testResults }) {
  const failed = testResults.filter(isFailed);
  const isWait = ({ failureMessages }) =>
    (failureMessages ?? []).length > 0 &&
    failureMessages.every((message) => waitedInVain.some((pattern) => pattern.test(message)));
  const areWaits = failed.every(({ assertionResults }) => {
    const failures = assertionResults.filter(isFailed);
    return failures.length > 0 && failures.every(isWait);
  });
  return areWaits && failed.length <= filesMax ? failed.map(({ name }) => name) : [];
}

/**
 * One line for each failed test, and for each file that could not be loaded: where, which, what was said first, and the place in the
 * file. It stands at the end of a run's output, which is all that many keep of it.
 *
 * @param {import("./test-report.d.mts").Report} report
 * @param {string} root that the files' names are relative to
 * @returns {string[]}
 */
export function failuresOf({ testResults }, root) {
  return testResults.filter(isFailed).flatMap(({ name, message, assertionResults }) => {
    const file = relative(root, name);
    const failures = assertionResults.filter(isFailed);
    if (failures.length === 0) return [`${file}: ${short(message ?? "could not be loaded")}`];
    return failures.map(({ fullName, failureMessages }) => {
      const said = failureMessages?.[0] ?? "";
      const place = said.split("\n").find((line) => line.includes(`${file}:`));
      const line = place?.match(/:(\d+):\d+\)?$/)?.[1];
      return `${file}${line === undefined ? "" : `:${line}`}: ${fullName}: ${short(said)}`;
    });
  });
}

function short(text) {
  const [first] = text.split(/\n +at /);
  return first.replace(/\s+/g, " ").slice(0, textMax);
}
