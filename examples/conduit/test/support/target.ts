/** Where a suite runs. */
export interface Target {
  /** For the names of tests. */
  readonly title: string;
  readonly rung: 1 | 2 | 4 | 5;
  readonly shards: number;
  readonly cache: "on" | "off";
  /** Web processes that answer requests. */
  readonly processes: number;
  /** How people are placed on shards; default "hash". */
  readonly strategy?: "hash" | "range";
  /** Whether followers show late what they have received; default false. Of rung 4. */
  readonly isLate?: boolean;
  /** Whether it is two regions, with the leaders in the first; default false. Of rung 5, and without a broker. */
  readonly isRegional?: boolean;
}

/** What is started. */
export type StackTarget = Omit<Target, "title">;
