/**
 * Counts what each handler has to do, once for all processes: each adds what it did to `rungs_handler_load` on the home database,
 * and whoever finds that the last count is old enough counts what waits and writes down what that says. All read it.
 *
 * It costs a process two short statements each time, and the one whose turn it is a few more, none of which reads more than some
 * thousand rows a handler and shard.
 */
import type { Clock } from "../../kernel/clock.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Broker, Subscription } from "../broker.ts";
import type { HandlerStats } from "../handler-lane.ts";
import { type HandlerCount, type HandlerLoad, nextLoad } from "../handler-load.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";

export interface LoadMeterOptions {
  readonly home: SqlDatabase;
  readonly shards: readonly SqlDatabase[];
  /** All handlers of the app. */
  readonly subscriptions: readonly Subscription[];
  /** Carries messages, if there is one. */
  readonly broker: Pick<Broker, "backlog"> | undefined;
  /** Counters of the handlers of this process. */
  readonly stats: () => readonly HandlerStats[];
  readonly clock: Clock;
  readonly log: Logger;
  /** How often to count; default 5,000 ms. */
  readonly everyMs?: number;
}

export interface LoadMeter {
  /** Of all handlers, as last counted by any process; none while the last count is older than six times `everyMs`. */
  load(): readonly HandlerLoad[];
  stop(): Promise<void>;
}

interface Counters {
  readonly delivered: number;
  readonly done: number;
  readonly busyMs: number;
}

interface LoadRow extends Counters {
  readonly handler: string;
  readonly load: HandlerLoad | null;
  readonly nowMs: number;
}

interface Waiting {
  readonly handler: string;
  readonly waiting: number;
  readonly oldestMs: number | null;
}

const addSql = `
  insert into rungs_handler_load (handler, delivered, done, busy_ms)
  select * from unnest($1::text[], $2::float8[], $3::float8[], $4::float8[]) a(handler, delivered, done, busy_ms) order by handler
  on conflict (handler) do update set delivered = rungs_handler_load.delivered + excluded.delivered,
    done = rungs_handler_load.done + excluded.done, busy_ms = rungs_handler_load.busy_ms + excluded.busy_ms`;
const turnSql = `
  update rungs_load_turns set measured_at = clock_timestamp()
  where measured_at < clock_timestamp() - $1 * interval '1 ms' returning true`;
const readSql = `
  select handler, delivered, done, busy_ms as "busyMs", load,
    extract(epoch from clock_timestamp())::float8 * 1000 as "nowMs"
  from rungs_handler_load where handler = any($1::text[]) order by handler`;
const writeSql = `
  update rungs_handler_load l set load = w.load
  from unnest($1::text[], $2::jsonb[]) w(handler, load) where l.handler = w.handler`;
const tablesSql = `select handler_name as handler, waiting::float8, oldest_ms as "oldestMs" from rungs_waiting($1)`;
const outboxSql = `select event_name as event, waiting::float8, oldest_ms as "oldestMs" from rungs_outbox_waiting()`;

/** Starts at once and raises nothing: what cannot be counted now is counted later. */
export function meterLoad(options: LoadMeterOptions): LoadMeter {
  const { home, subscriptions, stats, clock, log, everyMs = 5_000 } = options;
  const handlers = subscriptions.map(({ handler }) => handler);
  const added = new Map<string, Counters>();
  let known: { readonly loads: readonly HandlerLoad[]; readonly readAt: number } | undefined;

  const add = async () => {
    const fresh = stats().filter((each) => isNew(each, added.get(each.handler)));
    if (fresh.length === 0) return;
    const growth = fresh.map((each) => ({ handler: each.handler, ...growthOf(each, added.get(each.handler)) }));
    const columns = (["handler", "delivered", "done", "busyMs"] as const).map((name) =>
      growth.map((each) => each[name]),
    );
    await home.query("rungs_load_add", addSql, columns);
    for (const { handler, delivered, done, busyMs } of fresh) added.set(handler, { delivered, done, busyMs });
  };
  const read = () => home.query<LoadRow>("rungs_load_read", readSql, [handlers]);
  const turn = async () => {
    await add();
    // A little less than the interval: whoever's turn it was comes first again, rather than a bit too early for ever.
    const isMine = (await home.query("rungs_load_turn", turnSql, [everyMs * 0.9])).length > 0;
    if (isMine) await count(options, await read());
    const rows = await read();
    const loads = rows.flatMap(({ load, nowMs }) => (load === null || nowMs - load.atMs > everyMs * 6 ? [] : [load]));
    known = { loads, readAt: clock.monotonic() };
  };

  let turning: Promise<void> | undefined;
  let isTroubled = false;
  const turnSoon = () => {
    turning ??= turn()
      .then(
        () => {
          isTroubled = false;
        },
        (error: unknown) => {
          if (!isTroubled) log.warn({ error }, "what handlers have to do could not be counted; trying again");
          isTroubled = true;
        },
      )
      .finally(() => {
        turning = undefined;
      });
  };
  const timer = setInterval(turnSoon, everyMs).unref();
  turnSoon();
  return {
    load: () => (known === undefined || clock.monotonic() - known.readAt > everyMs * 6 ? [] : known.loads),
    async stop() {
      clearInterval(timer);
      await turning;
      // What was done since the last turn would be missing in the sums for good.
      await add().catch(() => {});
    },
  };
}

/** A handler that never did anything gets its row, too. */
function isNew(stats: Counters, before: Counters | undefined): boolean {
  return before === undefined || stats.delivered > before.delivered || stats.busyMs > before.busyMs;
}

function growthOf(stats: Counters, before: Counters = { delivered: 0, done: 0, busyMs: 0 }): Counters {
  return {
    delivered: stats.delivered - before.delivered,
    done: stats.done - before.done,
    busyMs: stats.busyMs - before.busyMs,
  };
}

async function count(options: LoadMeterOptions, rows: readonly LoadRow[]): Promise<void> {
  const waiting = await waitingOf(options);
  const loads = rows.map(({ handler, delivered, done, busyMs, load, nowMs }) => {
    const parts = waiting.filter((each) => each.handler === handler);
    const ages = parts.flatMap(({ oldestMs }) => oldestMs ?? []);
    const counted: HandlerCount = {
      ...{ handler, delivered, done, busyMs, atMs: Math.round(nowMs) },
      waiting: Math.round(parts.reduce((sum, each) => sum + each.waiting, 0)),
      oldestAgeMs: ages.length === 0 ? null : Math.max(0, Math.round(Math.max(...ages))),
    };
    return nextLoad(load ?? undefined, counted);
  });
  const values = [loads.map(({ handler }) => handler), loads.map((load) => JSON.stringify(load))];
  await options.home.query("rungs_load_write", writeSql, values);
}

/** What does not answer is left out: its messages come back into the count with it. */
async function waitingOf({ shards, subscriptions, broker, log }: LoadMeterOptions): Promise<Waiting[]> {
  const orNone = async (ask: () => Promise<Waiting[]>): Promise<Waiting[]> => {
    try {
      return await ask();
    } catch (error) {
      log.debug({ error }, "a part of what waits could not be counted");
      return [];
    }
  };
  const handlers = subscriptions.map(({ handler }) => handler);
  const inTables = shards.map((shard) => orNone(() => shard.query<Waiting>("rungs_waiting", tablesSql, [handlers])));
  if (broker === undefined) return (await Promise.all(inTables)).flat();
  const inOutboxes = shards.map((shard) =>
    orNone(async () => {
      const rows = await shard.query<Waiting & { event: string }>("rungs_outbox_waiting", outboxSql, []);
      return rows.flatMap(({ event, ...row }) =>
        subscriptions.flatMap((each) => (each.event === event ? [{ ...row, handler: each.handler }] : [])),
      );
    }),
  );
  const inBroker = orNone(async () => {
    const backlog = await broker.backlog(subscriptions);
    return backlog.map(({ handler, messages }) => ({ handler, waiting: messages, oldestMs: null }));
  });
  return (await Promise.all([...inOutboxes, inBroker, ...inTables])).flat();
}
