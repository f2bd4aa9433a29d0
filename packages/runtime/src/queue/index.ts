/** The queue tier: events published with a transaction, handled at least once with effects exactly once. */
export {
  type EventType,
  type MessagePriority,
  type Publication,
  type PublishOptions,
  publication,
} from "../kernel/event.ts";
export { queueMigrations } from "./drivers/job-tables.ts";
export { jobAdmin } from "./drivers/postgres-job-admin.ts";
export { postgresJobStore } from "./drivers/postgres-job-store.ts";
export { type PostgresQueue, postgresQueue, type QueueStart, type RunningQueue } from "./drivers/postgres-queue.ts";
export { defineEvent, type Event, payloadBytesMax, redact } from "./event.ts";
export {
  backoffMs,
  type Delivery,
  type EffectShard,
  type Handler,
  type HandlerOptions,
  handle,
  type NamedHandler,
} from "./handler.ts";
export {
  type JobAdmin,
  type JobCounts,
  type JobDetail,
  type JobFilter,
  type JobSelection,
  type JobState,
  type JobSummary,
  jobPageMax,
  jobSelectionMax,
  jobStates,
} from "./job-admin.ts";
export { type HandlerStats, type JobRunner, startJobRunner } from "./job-runner.ts";
export type { ClaimedJob, JobStore, Outcome, SettledJob, Wanted } from "./job-store.ts";
export { every, type NamedSchedule, type Schedule } from "./schedule.ts";
