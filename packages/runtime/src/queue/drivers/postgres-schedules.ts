/** Keeps schedules in the home database and publishes what falls due, in one statement with the next due time. */
import type { Logger } from "../../kernel/log.ts";
import { type NamedSchedule, nextDueMs, ruleOf } from "../schedule.ts";
import * as jobWriter from "./job-writer.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";

export interface ScheduleOptions {
  readonly home: SqlDatabase;
  readonly schedules: readonly NamedSchedule[];
  /** The values of `insertSql` for a schedule's message; undefined when nobody handles it. */
  valuesOf(schedule: NamedSchedule): readonly unknown[] | undefined;
  /** The statement that stores a message where a condition holds; default: as jobs. */
  readonly insertSql?: (condition: string) => string;
  /** A message was published on the home database. */
  published(): void;
  readonly log: Logger;
  /** How often to look; default 1,000 ms. */
  readonly pollMs?: number;
}

const registerSql = `
  insert into rungs_schedules (name, rule, due_at) values ($1, $2, to_timestamp($3::float8))
  on conflict (name) do update set rule = excluded.rule, due_at = excluded.due_at
    where rungs_schedules.rule <> excluded.rule`;

/** Whoever moves the due time on publishes; others find that it is another by then. Its parameters follow those of the insert. */
function fireSql(insertSql: (condition: string) => string): string {
  const insert = insertSql("exists (select 1 from due)");
  const [next, name, due] = [1, 2, 3].map((place) => `$${(insert.match(/\$\d+/g)?.length ?? 0) + place}`);
  return `
    with due as (
      update rungs_schedules set due_at = to_timestamp(${next}::float8)
      where name = ${name} and extract(epoch from due_at)::float8 = ${due}::float8 returning name
    ), message as (${insert})
    select 1 from due`;
}

/** Starts watching; the promise is settled once the schedules are on record. Gives how to stop. */
export async function startSchedules(options: ScheduleOptions): Promise<() => Promise<void>> {
  const { home, schedules, log, pollMs = 1_000 } = options;
  if (schedules.length === 0) return async () => {};
  const nowMs = await serverNowMs(home);
  for (const { name, schedule } of schedules) {
    await home.query(undefined, registerSql, [name, ruleOf(schedule), nextDueMs(schedule, nowMs) / 1_000]);
  }
  let running: Promise<void> | undefined;
  const timer = setInterval(() => {
    running ??= fireDue(options)
      .catch((error: unknown) => log.warn({ error }, "schedules could not be looked at; trying again"))
      .finally(() => {
        running = undefined;
      });
  }, pollMs).unref();
  return async () => {
    clearInterval(timer);
    await running;
  };
}

async function fireDue(options: ScheduleOptions): Promise<void> {
  const { home, schedules, valuesOf, published, log, insertSql = jobWriter.insertSql } = options;
  const sql = `select name, extract(epoch from due_at)::float8 as due, extract(epoch from clock_timestamp())::float8 as now
    from rungs_schedules where name = any($1) and due_at <= clock_timestamp()`;
  const names = schedules.map(({ name }) => name);
  const rows = await home.query<{ name: string; due: number; now: number }>("rungs_schedules_due", sql, [names]);
  for (const { name, due, now } of rows) {
    const named = schedules.find((schedule) => schedule.name === name);
    const values = named === undefined ? undefined : valuesOf(named);
    if (named === undefined || values === undefined) continue;
    const next = nextDueMs(named.schedule, now * 1_000) / 1_000;
    const fired = await home.query("rungs_schedule_fire", fireSql(insertSql), [...values, next, name, due]);
    log.debug({ schedule: name, fired: fired.length > 0 }, "a schedule fell due");
    if (fired.length > 0) published();
  }
}

async function serverNowMs(home: SqlDatabase): Promise<number> {
  const [row] = await home.query<{ now: number }>(undefined, "select extract(epoch from now())::float8 as now", []);
  return (row?.now ?? 0) * 1_000;
}
