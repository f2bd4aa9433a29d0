/** The queue tier on the app's own databases: what transactions publish, handlers get. */
import type { Clock } from "../../kernel/clock.ts";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import { type Publication, publication } from "../../kernel/event.ts";
import type { Logger } from "../../kernel/log.ts";
import { type Random, uuidV7 } from "../../kernel/random.ts";
import type { NamedHandler } from "../handler.ts";
import { type HandlerStats, type JobRunnerOptions, startJobRunner } from "../job-runner.ts";
import type { JobStore } from "../job-store.ts";
import type { NamedSchedule } from "../schedule.ts";
import { insertSql, jobValues } from "./job-writer.ts";
import { lateJobStore } from "./late-job-store.ts";
import { postgresJobStore, type SqlDatabase } from "./postgres-job-store.ts";
import { startSchedules } from "./postgres-schedules.ts";

export interface PostgresQueueOptions<C> {
  /** All handlers of the app, also those that other processes run: publishing writes a job for each. */
  readonly handlers: readonly NamedHandler<C>[];
  /** Recurring messages; default none. */
  readonly schedules?: readonly NamedSchedule[];
  readonly clock: Clock;
  readonly random: Random;
}

/** What a start needs; bounds and intervals as in {@link JobRunnerOptions}. */
export interface QueueStart<C> extends Omit<JobRunnerOptions<C>, "stores" | "handlers" | "clock" | "random"> {
  /** One a shard, each with the tables of `queueMigrations`. */
  readonly shards: readonly SqlDatabase[];
  /** Where schedules are kept; one of the shards. */
  readonly home: SqlDatabase;
  readonly log: Logger;
  /** Names of the handlers to run in this process; default all. */
  readonly only?: readonly string[];
}

/** A queue, before and while its handlers run. */
export interface PostgresQueue<C> {
  /** For the database tier: how its transactions publish. */
  readonly messages: {
    values(publications: readonly Publication[]): readonly unknown[] | undefined;
    insertSql(condition: string): string;
    committed(shardName: string): void;
  };
  /** Runs the handlers in this process until {@link RunningQueue.stop}. */
  start(start: QueueStart<C>): Promise<RunningQueue>;
}

export interface RunningQueue {
  stats(): HandlerStats[];
  /** Drains: see {@link startJobRunner}. */
  stop(): Promise<void>;
}

/** Inbox rows are kept at least this long, far longer than a frozen worker takes to come back and commit. */
const inboxKeptMs = 24 * 60 * 60 * 1_000;
/** Each database notes times by its own clock. */
const clockSkewMsMax = 60 * 60 * 1_000;
const sweepEveryMs = 10 * 60 * 1_000;

/** Makes the queue. Raises `CONFIG_INVALID` when two handlers share a name. */
export function postgresQueue<C>(options: PostgresQueueOptions<C>): PostgresQueue<C> {
  const { handlers, schedules = [], clock, random } = options;
  const handlersOf = indexByEvent(handlers);
  let wake: (shardName: string) => void = () => {};
  const values = (publications: readonly Publication[]) =>
    jobValues(
      publications,
      (event) => handlersOf.get(event) ?? [],
      () => uuidV7(clock, random),
    );
  return {
    messages: { values, insertSql, committed: (shardName) => wake(shardName) },

    async start({ shards, home, log, only, ...rest }) {
      const run = only === undefined ? handlers : handlers.filter(({ name }) => only.includes(name));
      const stores = await Promise.all(
        shards.map(async (shard): Promise<JobStore> => {
          const open = async () => {
            await declareEvents(shard, handlers);
            return postgresJobStore(shard, () => clock.monotonic());
          };
          try {
            return await open();
          } catch (error) {
            // A shard that is down keeps its own jobs waiting, and no others.
            if (shard === home || !(error instanceof UnavailableError)) throw error;
            log.warn({ store: shard.name, error }, "a shard's jobs wait until it is back");
            return lateJobStore(shard.name, open);
          }
        }),
      );
      const runner = startJobRunner({ ...rest, stores, handlers: run, log, clock, random });
      wake = (shardName) => runner.wake(shardName);
      const stopSchedules = await startSchedules({
        home,
        schedules,
        log,
        valuesOf: ({ schedule }) => values([publication(schedule.event, schedule.payload, schedule.options)]),
        published: () => runner.wake(home.name),
      });
      const sweep = setInterval(() => {
        forgetOldSteps(stores, new Date(clock.now() - inboxKeptMs)).catch((error: unknown) =>
          log.warn({ error }, "old inbox rows were not deleted"),
        );
      }, sweepEveryMs).unref();
      return {
        stats: () => runner.stats(),
        async stop() {
          clearInterval(sweep);
          await stopSchedules();
          await runner.stop();
          wake = () => {};
        },
      };
    },
  };
}

/**
 * Deletes inbox rows that no job can ask for any more: a step is noted after its message was published, so those older than
 * every job that is left, dead ones included, belong to jobs that are gone.
 */
export async function forgetOldSteps(stores: readonly JobStore[], before: Date): Promise<void> {
  const oldest = await Promise.all(stores.map((store) => store.oldestPublished()));
  const noted = oldest.flatMap((date) => (date === undefined ? [] : [date.getTime() - clockSkewMsMax]));
  const bound = new Date(Math.min(before.getTime(), ...noted));
  for (const store of stores) await store.forgetSteps(bound);
}

function indexByEvent<C>(handlers: readonly NamedHandler<C>[]): Map<string, string[]> {
  const names = new Set<string>();
  const byEvent = new Map<string, string[]>();
  for (const { name, event } of handlers) {
    if (names.has(name)) throw new ConfigError("CONFIG_INVALID", `Two handlers are named "${name}". Rename one.`);
    names.add(name);
    byEvent.set(event.name, [...(byEvent.get(event.name) ?? []), name]);
  }
  return byEvent;
}

/** Puts on record what tools must not show of each event. */
async function declareEvents<C>(shard: SqlDatabase, handlers: readonly NamedHandler<C>[]): Promise<void> {
  const events = [...new Map(handlers.map(({ event }) => [event.name, event])).values()];
  if (events.length === 0) return;
  await shard.query(
    undefined,
    `insert into rungs_events (name, sensitive)
     select m.name, m.sensitive from unnest($1::text[], $2::jsonb[]) m(name, sensitive) order by m.name
     on conflict (name) do update set sensitive = excluded.sensitive where rungs_events.sensitive <> excluded.sensitive`,
    [events.map(({ name }) => name), events.map(({ sensitive }) => JSON.stringify(sensitive))],
  );
}
