/**
 * The queue tier's port: where messages wait, one job a message and handler.
 *
 * A worker holds what it claimed for as long as it gives signs of life; then everything it held can be claimed again.
 * A store may deliver a job twice. Effects happen once because `once` notes each in the transaction that makes it.
 */

/** A job as claimed by a worker. */
export interface ClaimedJob {
  /** Its place in the store; with {@link ClaimedJob.attempt} it names this delivery. */
  readonly sequence: number;
  /** The message's id, shared by the jobs of all its handlers. */
  readonly jobId: string;
  readonly handler: string;
  readonly key: string | null;
  readonly payload: unknown;
  /** Version of the payload's schema. */
  readonly version: number;
  /** 1 at the first delivery. */
  readonly attempt: number;
  readonly publishedAt: Date;
  /** How long it was ready before it was claimed. */
  readonly waitedMs: number;
}

/** What became of a try. */
export type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "retry"; readonly delayMs: number; readonly error: string }
  | { readonly kind: "dead"; readonly error: string }
  /** Counts as no try: its version is newer than this process knows, or what it publishes finds no room now. Kept, and due after `delayMs`. */
  | { readonly kind: "putOff"; readonly delayMs: number }
  /** Not tried, or broken off by a stop: goes back as if it had never been claimed. */
  | { readonly kind: "handBack" };

/** A job and its outcome. */
export interface SettledJob {
  readonly job: ClaimedJob;
  readonly outcome: Outcome;
}

/** How many jobs of which handler a worker has room for. */
export interface Wanted {
  readonly handler: string;
  readonly slots: number;
  /** Highest version of payloads that the worker reads; default all. A store may give newer ones nevertheless. */
  readonly version?: number;
}

/** Where one database keeps its jobs. Every call raises what the database raises; all but `once` may be repeated. */
export interface JobStore {
  /** Name for messages, e.g. "shard 0". */
  readonly name: string;
  /** Claims at most the wanted numbers, first by priority, then by due time; of each key only the first. */
  claim(workerId: string, wanted: readonly Wanted[]): Promise<ClaimedJob[]>;
  /**
   * Ends tries; what the worker no longer holds is left alone. `freed`: how many jobs behind them came free. `busy`: those
   * whose step is still being made, to be settled again later.
   */
  settle(
    workerId: string,
    settled: readonly SettledJob[],
  ): Promise<{ readonly freed: number; readonly busy: readonly SettledJob[] }>;
  /**
   * A sign of life, to be given every second or so. Takes over what workers held that gave none for `timeoutMs`; gives how
   * many jobs came free.
   */
  heartbeat(workerId: string, timeoutMs: number): Promise<number>;
  /** Gives back all that the worker holds but the jobs of these sequences: what a claim took whose answer was lost. */
  releaseUnknown?(workerId: string, held: readonly number[]): Promise<void>;
  /** The worker ends. What it held after all goes to others as if it had died. */
  leave(workerId: string): Promise<void>;
  /** Handlers that have jobs for newer processes only, and the highest of their versions; as far as that is cheap to know. */
  newer?(wanted: readonly Wanted[]): Promise<{ readonly handler: string; readonly version: number }[]>;
  /**
   * Inside the caller's transaction `tx`, on this database or another: notes that the step was made by this delivery.
   * "first": go on; "repeated": it was committed before; "lost": another worker has the job now.
   */
  once(tx: unknown, workerId: string, job: ClaimedJob, step: string): Promise<"first" | "repeated" | "lost">;
  /** When the oldest message was published that still has a job here, live or dead; undefined when there is none. */
  oldestPublished(): Promise<Date | undefined>;
  /** Forgets steps noted on this database before `before` for jobs of other databases. Gives their number, at most 10,000. */
  forgetSteps(before: Date): Promise<number>;
}
