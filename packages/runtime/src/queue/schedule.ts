/** Recurring messages: one is published each time a rule falls due, however many processes run. */
import { Cron } from "croner";
import { ConfigError } from "../kernel/errors.ts";
import type { EventType, PublishOptions } from "../kernel/event.ts";

/** When a message is published again and again. */
export type Schedule<P = unknown> = {
  readonly event: EventType<P>;
  readonly payload: P;
  readonly options?: Pick<PublishOptions, "key" | "priority">;
} & (
  | {
      /** Five or six fields (with seconds), e.g. "0 3 * * *": at three each night. */
      readonly cron: string;
      /** IANA name; default "UTC". */
      readonly timezone?: string;
    }
  /** At least 1,000. */
  | { readonly everyMs: number }
);

/** A schedule with the name it has in the database: the service's and its own. */
export interface NamedSchedule {
  readonly name: string;
  readonly schedule: Schedule;
}

/** Declares a recurring message, its payload checked against the event's type. Raises `CONFIG_INVALID` on a bad rule. */
export function every<P>(schedule: Schedule<P>): Schedule {
  ruleOf(schedule as Schedule);
  nextDueMs(schedule as Schedule, 0);
  return schedule as Schedule;
}

/** The rule as text; a changed text makes the schedule start over. */
export function ruleOf(schedule: Schedule): string {
  if ("cron" in schedule) return `cron ${schedule.cron} ${schedule.timezone ?? "UTC"}`;
  const { everyMs } = schedule;
  if (!Number.isFinite(everyMs) || everyMs < 1_000) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `A schedule of "${schedule.event.name}" repeats every ${everyMs} ms; at least 1,000.`,
    );
  }
  return `every ${everyMs}`;
}

/** First due time after `afterMs`, in ms since the Unix epoch. What fell due while nothing ran is done once, not often. */
export function nextDueMs(schedule: Schedule, afterMs: number): number {
  if ("everyMs" in schedule) return afterMs + schedule.everyMs;
  try {
    const next = new Cron(schedule.cron, { timezone: schedule.timezone ?? "UTC", paused: true }).nextRun(
      new Date(afterMs),
    );
    if (next !== null) return next.getTime();
  } catch (error) {
    throw badRule(schedule.cron, error);
  }
  throw badRule(schedule.cron, undefined);
}

function badRule(cron: string, cause: unknown): ConfigError {
  const reason = cause instanceof Error ? cause.message : "it never falls due";
  return new ConfigError("CONFIG_INVALID", `"${cron}" is no schedule: ${reason}.`, { cause });
}
