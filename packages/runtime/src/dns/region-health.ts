/**
 * Whether a region is up, from one check after the other, so that one that comes and goes does not pull its users along.
 *
 * - *up*: each failure counts, also with successes between; `clearAfter` successes in a row forget them. At `failures` it is down.
 * - *down*: `successes` in a row, and none before `downMsMin` has passed since it went down, make it up again; one failure starts the
 *   count anew. So one that fails every other check stays down, and a change is never followed by its opposite before
 *   `successes` checks and `downMsMin`.
 * - *overloaded*: told by a check that was answered (the region serves). It holds until `clearAfter` checks in a row are fine.
 *
 * Method: the thresholds of gdnsd (gdnsd.config(5), "up_thresh", "ok_thresh", "down_thresh"), so that the server's own checks and these
 * agree; overload is ours.
 */
import type { RegionState } from "./route.ts";
import type { HealthCheck } from "./zone-model.ts";

/** What one check found. */
export type Observation = "ok" | "overloaded" | "failed";

/** What has to be remembered of a region. */
export interface RegionHealth {
  readonly state: RegionState;
  /** Failures that count, while not down. */
  readonly failures: number;
  /** Checks in a row that were fine; while down, those that were answered. */
  readonly fine: number;
  /** When it went down, by the caller's clock; 0 while it is not. */
  readonly downSinceMs: number;
}

/** The thresholds; see `HealthCheck`. */
export type HealthThresholds = Pick<HealthCheck, "failures" | "clearAfter" | "successes" | "downMsMin">;

/** A region of which nothing is known yet counts as up. */
export const initialHealth: RegionHealth = { state: "up", failures: 0, fine: 0, downSinceMs: 0 };

/** The health after one more check, made at `atMs` (monotonic). */
export function observe(
  health: RegionHealth,
  { found, atMs }: { readonly found: Observation; readonly atMs: number },
  thresholds: HealthThresholds,
): RegionHealth {
  return health.state === "down"
    ? whileDown(health, found, atMs, thresholds)
    : whileServing(health, found, atMs, thresholds);
}

function whileServing(
  health: RegionHealth,
  found: Observation,
  atMs: number,
  { failures: max, clearAfter }: HealthThresholds,
): RegionHealth {
  if (found === "failed") {
    const failures = health.failures + 1;
    return failures >= max
      ? { state: "down", failures: 0, fine: 0, downSinceMs: atMs }
      : { ...health, failures, fine: 0 };
  }
  const fine = found === "ok" ? health.fine + 1 : 0;
  const isClear = fine >= clearAfter;
  return {
    state: found === "overloaded" ? "overloaded" : isClear ? "up" : health.state,
    failures: isClear ? 0 : health.failures,
    fine: Math.min(fine, clearAfter),
    downSinceMs: 0,
  };
}

function whileDown(
  health: RegionHealth,
  found: Observation,
  atMs: number,
  { successes, downMsMin }: HealthThresholds,
): RegionHealth {
  const fine = found === "failed" ? 0 : Math.min(health.fine + 1, successes);
  if (fine < successes || atMs - health.downSinceMs < downMsMin) return { ...health, fine };
  return { state: found === "overloaded" ? "overloaded" : "up", failures: 0, fine: 0, downSinceMs: 0 };
}
