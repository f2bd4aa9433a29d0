/** The port that keeps counts of attempts for the login throttle, in fixed windows of time. */

/** Counts of one key in a window and in the one before it. */
export interface AttemptCounts {
  readonly current: number;
  readonly previous: number;
}

/** Keeps counts by key and window. Raises `UnavailableError` when it cannot answer. */
export interface AttemptStore {
  /** Adds `change` to the key's count in the window, atomically and never below 0; gives the counts afterwards. */
  add(key: string, window: AttemptWindow, change: number): Promise<AttemptCounts>;
  /** Forgets the key. */
  clear(key: string): Promise<void>;
}

/** A fixed window of time. Counts may be forgotten once two windows have passed. */
export interface AttemptWindow {
  /** Whole windows since the Unix epoch. */
  readonly index: number;
  readonly windowMs: number;
}
