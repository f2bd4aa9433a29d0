/** Files, by their full path, all of whose failures are waits that ended in vain; see `timed-out-files.mjs`. */
export function timedOutFiles(report: {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly failureMessages: readonly string[] | null;
    }[];
  }[];
}): string[];
