/** What an operator sees of the jobs and can do about them. */
import type { MessagePriority } from "../kernel/event.ts";

/**
 * ready: may run now · running: a worker has it · waiting: behind an earlier one of its key · scheduled: not yet due ·
 * retrying: failed and not yet due again · dead: given up.
 */
export type JobState = "ready" | "running" | "waiting" | "scheduled" | "retrying" | "dead";

/** All states, in the order in which tools show them. */
export const jobStates: readonly JobState[] = ["ready", "running", "waiting", "scheduled", "retrying", "dead"];

/** Most jobs of one page of {@link JobAdmin.list}. */
export const jobPageMax = 1_000;
/** Most jobs that one call of {@link JobAdmin.retry} or {@link JobAdmin.drop} acts on. */
export const jobSelectionMax = 1_000_000;

/** How many jobs of one handler are in which state. */
export interface JobCounts extends Readonly<Record<JobState, number>> {
  readonly handler: string;
  /** An operator paused it: what it has runs on the day that it is resumed. */
  readonly isPaused: boolean;
  /** Age of the oldest ready job since it was due; null when none is ready. */
  readonly oldestReadyAgeMs: number | null;
  /** Time since the first of the dead jobs was given up; null when none is dead. */
  readonly oldestDeadAgeMs: number | null;
}

export interface JobSummary {
  /** The message's id, shared by the jobs of all its handlers. */
  readonly id: string;
  /** The database that holds it, e.g. "shard 0". */
  readonly shard: string;
  readonly event: string;
  readonly handler: string;
  readonly key: string | null;
  readonly state: JobState;
  readonly attempts: number;
  readonly priority: MessagePriority;
  readonly publishedAt: Date;
  /** When it is or was due; of a dead job, when it was given up. */
  readonly runAt: Date;
  readonly lastError: string | null;
}

export interface JobDetail extends JobSummary {
  /** Version of the payload's schema. */
  readonly version: number;
  /**
   * Fields that the event's schema of that version marks sensitive read "[redacted]"; of an event or a version that no app
   * declared, the whole does.
   */
  readonly payload: unknown;
  readonly workerId: string | null;
  /** Names of the steps whose effects have committed; "" is the unnamed one. */
  readonly steps: readonly string[];
}

/** Which jobs to list. */
export interface JobFilter {
  readonly handler?: string;
  readonly state?: JobState;
  readonly key?: string;
  /** 1 to {@link jobPageMax}. */
  readonly limit: number;
  /** `next` of the page before. */
  readonly after?: string;
}

/** Which jobs to act on: by ids, or by handler and state; never more than `limit`. */
export interface JobSelection {
  readonly ids?: readonly string[];
  readonly handler?: string;
  readonly state?: Exclude<JobState, "running">;
  /** 1 to {@link jobSelectionMax}. */
  readonly limit: number;
}

/**
 * Which messages to deliver once more. A step that is on record as done is not done again; records are kept for a day. So what a
 * handler did longer ago happens a second time, and that has to be asked for.
 */
export interface Replay {
  readonly from: Date;
  /** Take that effects of the handler made longer than {@link replaySafeMs} ago happen again; default false: refused. */
  readonly mayRepeat?: boolean;
}

/** How far back a replay may go without repeating effects: a day less an hour for clocks that differ. */
export const replaySafeMs = 23 * 60 * 60 * 1_000;

/** The jobs of all databases together. Calls raise `CONFIG_INVALID` on an id, page mark or limit that is none. */
export interface JobAdmin {
  /** What is in the outbox or the broker counts as ready, until it is done. Handlers that are paused are told of, too. */
  counts(): Promise<JobCounts[]>;
  /** Those in the job tables. Shard after shard, of each the live jobs as they were published and then the dead ones by handler and id. */
  list(filter: JobFilter): Promise<{ readonly jobs: JobSummary[]; readonly next: string | null }>;
  /** One id may have a job for each of several handlers. Reads all jobs: no index has ids. */
  show(id: string): Promise<JobDetail[]>;
  /**
   * Dead jobs are published again, at the end of their key; retrying and scheduled ones become due now. Gives how many. Done
   * in batches: when one fails, those before it have taken effect.
   */
  retry(selection: JobSelection): Promise<number>;
  /** Deletes dead jobs and those that no worker has, in batches as {@link JobAdmin.retry}. Gives how many. */
  drop(selection: JobSelection): Promise<number>;
  /**
   * Within about a second no process begins a message of that handler any more, until it is resumed; what runs is finished. It
   * outlives restarts. Gives false when it was paused before. Raises `HANDLER_UNKNOWN`.
   */
  pause(handler: string): Promise<boolean>;
  /** Lets it go on. Gives false when it was not paused. Raises `HANDLER_UNKNOWN`. */
  resume(handler: string): Promise<boolean>;
  /**
   * Delivers once more what was published for that handler from a time on, as far as the broker still has it; see {@link Replay}.
   * Raises `HANDLER_UNKNOWN`, `CAPABILITY_MISSING` where messages are forgotten once they are done, `HANDLER_AT_WORK` while a process
   * is at work on the handler, so pause it first, and `REPLAY_REPEATS`.
   */
  replay(handler: string, replay: Replay): Promise<void>;
}
