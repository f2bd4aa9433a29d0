/**
 * Which failures of a run may be the machine's and not the code's: those that only waited in vain. On a machine that stands still for a
 * moment a wait can end too early, so `npm test` runs their files once more, alone, and names them. A wrong value is never looked at twice.
 */

/** How a wait that ended says so: vitest's own limits, and `until` of `@rungs/contract`. */
const waitedInVain = /^(?:Error: )?(?:(?:Test|Hook) timed out in \d+ms|Waited \d+ ms in vain)/;

/** More files than these are no accident. */
const filesMax = 3;

/**
 * Files, by their full path, all of whose failures are such waits; none when any test failed otherwise, a file could not be loaded, or
 * there are too many of them.
 *
 * @param {{ testResults: readonly { name: string, status: string, assertionResults: readonly { status: string, failureMessages: readonly string[] | null }[] }[] }} report
 *   vitest's, in JSON
 * @returns {string[]}
 */
export function timedOutFiles({ testResults }) {
  const failed = testResults.filter(({ status }) => status === "failed");
  const isWait = ({ failureMessages }) =>
    (failureMessages ?? []).length > 0 && failureMessages.every((message) => waitedInVain.test(message));
  const areWaits = failed.every(({ assertionResults }) => {
    const failures = assertionResults.filter(({ status }) => status === "failed");
    return failures.length > 0 && failures.every(isWait);
  });
  return areWaits && failed.length <= filesMax ? failed.map(({ name }) => name) : [];
}
