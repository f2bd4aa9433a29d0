/** vitest's report in JSON, as far as it is read. */
export interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName?: string;
      readonly failureMessages: readonly string[] | null;
    }[];
  }[];
}

/** Files, by their full path, all of whose failures are waits that ended in vain; see `test-report.mjs`. */
export function timedOutFiles(report: Report): string[];

/** One line for each failed test; see `test-report.mjs`. */
export function failuresOf(report: Report, root: string): string[];
