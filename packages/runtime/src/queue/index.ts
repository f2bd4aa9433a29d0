/** The queue tier: events published with a transaction, handled at least once with effects exactly once. */
export {
  type EventType,
  type MessagePriority,
  type Publication,
  type PublishOptions,
  publication,
} from "../kernel/event.ts";
export type {
  Broker,
  BrokerBacklog,
  BrokerConsumer,
  BrokerDelivery,
  BrokerMessage,
  ConsumeOptions,
  Subscription,
} from "./broker.ts";
export { queueMigrations } from "./drivers/job-tables.ts";
export { type OutboxWriter, type OutboxWriterOptions, outboxWriter } from "./drivers/outbox-writer.ts";
export { type JobAdminOptions, jobAdmin } from "./drivers/postgres-job-admin.ts";
export { postgresJobStore } from "./drivers/postgres-job-store.ts";
export { HandlerUnknownError } from "./drivers/postgres-pauses.ts";
export {
  type PostgresQueue,
  postgresQueue,
  type QueueLoad,
  type QueueStart,
  type RunningQueue,
} from "./drivers/postgres-queue.ts";
export { type Relay, type RelayOptions, type RelayStats, startRelay } from "./drivers/postgres-relay.ts";
export { defineEvent, type Event, type EventOptions, payloadBytesMax, redact, type Upcasts } from "./event.ts";
export {
  backoffMs,
  type Delivery,
  type EffectShard,
  type Handler,
  type HandlerOptions,
  handle,
  type NamedHandler,
} from "./handler.ts";
export type { HandlerStats } from "./handler-lane.ts";
export type { HandlerLoad } from "./handler-load.ts";
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
  type Replay,
  replaySafeMs,
} from "./job-admin.ts";
export { type JobRunner, startJobRunner } from "./job-runner.ts";
export type { ClaimedJob, JobStore, Outcome, SettledJob, Wanted } from "./job-store.ts";
export { every, type NamedSchedule, type Schedule } from "./schedule.ts";
