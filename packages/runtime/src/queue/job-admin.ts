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
  /** Fields that the event's schema marks sensitive read "[redacted]"; of an event that no app declared, the whole does. */
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

/** The jobs of all databases together. Calls raise `CONFIG_INVALID` on an id, page mark or limit that is none. */
export interface JobAdmin {
  counts(): Promise<JobCounts[]>;
  /** Shard after shard, of each the live jobs as they were published and then the dead ones by handler and id. */
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
}
