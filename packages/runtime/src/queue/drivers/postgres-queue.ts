/**
 * The queue tier: what transactions publish, handlers get. Messages wait on the app's own databases: all of them without a broker,
 * and with one those on their way to it and those that have to wait.
 */
import type { Clock } from "../../kernel/clock.ts";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import { type Publication, publication } from "../../kernel/event.ts";
import type { Logger } from "../../kernel/log.ts";
import { type Random, uuidV7 } from "../../kernel/random.ts";
import { type Broker, type BrokerBacklog, partitionsDefault } from "../broker.ts";
import { type NamedHandler, subscriptionOf } from "../handler.ts";
import type { HandlerStats } from "../handler-lane.ts";
import { type HandlerLoad, processesFor } from "../handler-load.ts";
import { type JobRunner, type JobRunnerOptions, startJobRunner } from "../job-runner.ts";
import type { JobStore } from "../job-store.ts";
import { type OutboxWatch, watchOutbox } from "../outbox-watch.ts";
import type { NamedSchedule } from "../schedule.ts";
import { type Brokered, type RelaySettings, startBrokered } from "./brokered.ts";
import { insertSql, jobValues } from "./job-writer.ts";
import { lateJobStore } from "./late-job-store.ts";
import { unloadOutboxes } from "./outbox-unloading.ts";
import { outboxWriter } from "./outbox-writer.ts";
import { meterLoad } from "./postgres-handler-load.ts";
import { postgresJobStore, type SqlDatabase } from "./postgres-job-store.ts";
import { postgresOutbox } from "./postgres-outbox.ts";
import { pausedHandlers, watchPauses } from "./postgres-pauses.ts";
import type { RelayStats } from "./postgres-relay.ts";
import { startSchedules } from "./postgres-schedules.ts";

export interface PostgresQueueOptions<C> {
  /** All handlers of the app, also those that other processes run: publishing writes a job for each. */
  readonly handlers: readonly NamedHandler<C>[];
  /** Recurring messages; default none. */
  readonly schedules?: readonly NamedSchedule[];
  /** Carries what is due at once to the handlers; default: the job tables do. */
  readonly broker?: Broker;
  /** Name of the database, where it is one of several that the broker joins; default: the app's own. */
  readonly database?: string;
  /**
   * Names of the handlers whose services have other databases: what is published here reaches them by the broker, and they never run
   * here. Default none.
   */
  readonly elsewhere?: ReadonlySet<string>;
  /** Sequences of the broker a handler has, for {@link RunningQueue.load}; default 8. */
  readonly partitions?: number;
  readonly clock: Clock;
  readonly random: Random;
}

/** What a start needs; bounds and intervals as in {@link JobRunnerOptions}. */
export interface QueueStart<C>
  extends Omit<JobRunnerOptions<C>, "stores" | "handlers" | "paused" | "clock" | "random"> {
  /** One a shard, each with the tables of `queueMigrations`. */
  readonly shards: readonly SqlDatabase[];
  /** Where schedules are kept; one of the shards. */
  readonly home: SqlDatabase;
  readonly log: Logger;
  /**
   * Names of the handlers to run in this process; default all of this database. Without any it takes no part in schedules and relays
   * either, unless no process of this database has any.
   */
  readonly only?: readonly string[];
  /** Bounds of the relays to the broker. */
  readonly relay?: RelaySettings;
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
  /** Names of the app's handlers that are paused, as last read. */
  paused(): readonly string[];
  /**
   * How much the handlers of this process have to do in all processes together, counted every 5 s; none while that is not known. See
   * `handler-load.ts`.
   */
  load(): QueueLoad;
  /** Of each shard's relay that this process runs; empty without a broker. */
  relays(): RelayStats[];
  /** What waits in the broker for the handlers of this process; empty without one. Raises as {@link Broker.backlog}. */
  backlog(): Promise<BrokerBacklog[]>;
  /** Drains: see {@link startJobRunner}. */
  stop(): Promise<void>;
}

/** See {@link RunningQueue.load}. */
export interface QueueLoad {
  readonly handlers: readonly HandlerLoad[];
  /** How many processes with these handlers there should be; undefined while that is not known. */
  readonly wantedProcesses: number | undefined;
}

/** Inbox rows are kept at least this long, far longer than a frozen worker takes to come back and commit. */
const inboxKeptMs = 24 * 60 * 60 * 1_000;
/** Each database notes times by its own clock. */
const clockSkewMsMax = 60 * 60 * 1_000;
const sweepEveryMs = 10 * 60 * 1_000;

/** Makes the queue. Raises `CONFIG_INVALID` when two handlers share a name. */
export function postgresQueue<C>(options: PostgresQueueOptions<C>): PostgresQueue<C> {
  const { handlers, schedules = [], broker, partitions = partitionsDefault, database, clock, random } = options;
  const isElsewhere = (handler: string) => options.elsewhere?.has(handler) ?? false;
  const ofDatabase = handlers.filter(({ name }) => !isElsewhere(name));
  const isWithoutHandlers = ofDatabase.length === 0 && handlers.length > 0;
  const byEvent = indexByEvent(handlers);
  let committed: (shardName: string) => void = () => {};
  const handlersOf = (event: string) => byEvent.get(event) ?? [];
  const subscriptions = handlers.map(subscriptionOf);
  const newId = () => uuidV7(clock, random);
  const writer =
    broker === undefined
      ? { values: (publications: readonly Publication[]) => jobValues(publications, handlersOf, newId), insertSql }
      : outboxWriter({ handlersOf, newId, isElsewhere });
  return {
    messages: { ...writer, committed: (shardName) => committed(shardName) },

    async start({ shards, home, log, only, relay, ...rest }) {
      const own = only === undefined ? ofDatabase : ofDatabase.filter(({ name }) => only.includes(name));
      if (only !== undefined && own.length === 0 && !isWithoutHandlers) {
        return publishingOnly(broker === undefined ? [] : watchOutboxes({ shards, clock, log, ...relay }));
      }
      const tables = await openStores({ shards, home, handlers, log, clock });
      const paused = await pausedHandlers(home);
      const woken: { runner?: JobRunner } = {};
      const wake = (storeName: string) => woken.runner?.wake(storeName);
      const brokered: Brokered | undefined =
        broker === undefined
          ? undefined
          : startBrokered({
              ...{ broker, shards, subscriptions, own, paused, wake, log, clock, random },
              ...(database === undefined ? {} : { database }),
              ...(relay === undefined ? {} : { relay }),
            });
      const stopUnloading =
        brokered === undefined
          ? unloadOutboxes({ shards, subscriptions, stored: wake, clock, random, log })
          : async () => {};
      const stores = brokered === undefined ? tables : [...tables, brokered.store];
      const runner = startJobRunner({ ...rest, stores, handlers: own, paused, log, clock, random });
      woken.runner = runner;
      committed = (shardName) => {
        runner.wake(shardName);
        brokered?.committed(shardName);
      };
      const stopSchedules = await startSchedules({
        home,
        schedules,
        log,
        insertSql: writer.insertSql,
        valuesOf: ({ schedule }) => writer.values([publication(schedule.event, schedule.payload, schedule.options)]),
        published: () => committed(home.name),
      });
      const pauses = watchPauses({
        ...{ home, from: paused, log },
        changed: (handlers) => {
          runner.pauseOnly(handlers);
          brokered?.pauseOnly(handlers);
        },
      });
      const counted = ofDatabase.map(subscriptionOf);
      const meter = meterLoad({
        home,
        shards,
        subscriptions: counted,
        broker,
        stats: () => runner.stats(),
        clock,
        log,
      });
      const stopSweep = sweepSteps(stores, clock, log);
      return {
        stats: () => runner.stats(),
        paused: () => pauses.paused(),
        load: () =>
          loadOf(meter.load(), {
            handlers: own,
            paused: pauses.paused(),
            ...(broker === undefined ? {} : { partitions }),
          }),
        relays: () => brokered?.relays.map((each) => each.stats()) ?? [],
        backlog: async () => (await broker?.backlog(own.map(subscriptionOf))) ?? [],
        async stop() {
          stopSweep();
          pauses.stop();
          await stopSchedules();
          await runner.stop();
          await Promise.all([stopUnloading(), brokered?.stop(), meter.stop()]);
          committed = () => {};
        },
      };
    },
  };
}

/** Lanes are apart, so the handler that needs most decides; a paused one needs none. */
function loadOf<C>(
  loads: readonly HandlerLoad[],
  own: {
    readonly handlers: readonly NamedHandler<C>[];
    readonly paused: readonly string[];
    readonly partitions?: number;
  },
): QueueLoad {
  const { handlers, paused, partitions } = own;
  const found = handlers.flatMap(({ name, options: { concurrency } }) => {
    const load = loads.find(({ handler }) => handler === name);
    const bounds = { concurrency, ...(partitions === undefined ? {} : { partitions }) };
    return load === undefined ? [] : [{ load, processes: paused.includes(name) ? 1 : processesFor(load, bounds) }];
  });
  return {
    handlers: found.map(({ load }) => load),
    wantedProcesses: found.length === 0 ? undefined : Math.max(...found.map(({ processes }) => processes)),
  };
}

/** A process without handlers publishes, and sees to it that the outboxes keep their bound though nobody else may be there. */
function publishingOnly(watches: readonly OutboxWatch[]): RunningQueue {
  return {
    stats: () => [],
    paused: () => [],
    load: () => ({ handlers: [], wantedProcesses: undefined }),
    relays: () => [],
    backlog: async () => [],
    stop: async () => void (await Promise.all(watches.map((watch) => watch.stop()))),
  };
}

function watchOutboxes(options: {
  readonly shards: readonly SqlDatabase[];
  readonly bytesMax?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}): OutboxWatch[] {
  const { shards, bytesMax, clock, log } = options;
  const bound = bytesMax === undefined ? {} : { bytesMax };
  return shards.map((shard) => watchOutbox({ outbox: postgresOutbox(shard), clock, log, ...bound }));
}

/** The job table of each shard; of one that is down, once it is back. */
function openStores<C>(options: {
  readonly shards: readonly SqlDatabase[];
  readonly home: SqlDatabase;
  readonly handlers: readonly NamedHandler<C>[];
  readonly log: Logger;
  readonly clock: Clock;
}): Promise<JobStore[]> {
  const { shards, home, handlers, log, clock } = options;
  return Promise.all(
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
}

function sweepSteps(stores: readonly JobStore[], clock: Clock, log: Logger): () => void {
  const sweep = setInterval(() => {
    forgetOldSteps(stores, new Date(clock.now() - inboxKeptMs)).catch((error: unknown) =>
      log.warn({ error }, "old inbox rows were not deleted"),
    );
  }, sweepEveryMs).unref();
  return () => clearInterval(sweep);
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

/** Puts on record who handles each event, and what tools must not show of it, as far as this process's version knows. */
async function declareEvents<C>(shard: SqlDatabase, handlers: readonly NamedHandler<C>[]): Promise<void> {
  const events = [...Map.groupBy(handlers, ({ event }) => event.name).values()].flatMap((group) =>
    group.slice(0, 1).map(({ event }) => ({ ...event, handlers: group.map(({ name }) => name) })),
  );
  if (events.length === 0) return;
  await shard.query(
    undefined,
    `insert into rungs_events (name, sensitive, handlers, sensitive_of)
     select m.name, m.sensitive, array(select jsonb_array_elements_text(m.handlers)), jsonb_build_object(m.version, m.sensitive)
       from unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::int[]) m(name, sensitive, handlers, version) order by m.name
     on conflict (name) do update set sensitive = excluded.sensitive, handlers = excluded.handlers,
         sensitive_of = rungs_events.sensitive_of || excluded.sensitive_of
       where (rungs_events.sensitive, rungs_events.handlers) is distinct from (excluded.sensitive, excluded.handlers)
         or rungs_events.sensitive_of || excluded.sensitive_of is distinct from rungs_events.sensitive_of`,
    [
      events.map(({ name }) => name),
      events.map(({ sensitive }) => JSON.stringify(sensitive)),
      events.map(({ handlers }) => JSON.stringify(handlers)),
      events.map(({ version }) => version),
    ],
  );
}
