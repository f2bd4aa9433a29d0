/**
 * Limits on how many requests a client, a user or a route gets.
 *
 * Method: the generic cell rate algorithm (ITU-T I.371, annex A; as in Brandur Leach's throttled): one number a key, the
 * *theoretical arrival time* at which an evenly sending client would send next. A request may come up to `burst` intervals
 * before it. Unlike counts in windows it lets no double burst through at a window's edge, and a refused request costs nothing.
 */

/** How much one key gets. */
export interface RateLimit {
  /** Name in metrics and headers, of letters, digits and -. */
  readonly name: string;
  readonly perMinute: number;
  /** Requests that may come at once. */
  readonly burst: number;
}

/** What came of a request against one limit. */
export interface RateVerdict {
  readonly isAllowed: boolean;
  /** Requests that may follow at once. */
  readonly remaining: number;
  /** When one is allowed again; 0 when allowed. */
  readonly retryAfterMs: number;
  /** When the whole burst is free again. */
  readonly resetMs: number;
}

/** One limit and whose share of it is asked for. */
export interface RateRequest {
  readonly limit: RateLimit;
  /** The client's or user's part of the key; case and characters as they are. */
  readonly key: string;
}

/** Keeps the state of limits. Raises `UnavailableError` when it cannot answer. */
export interface RateLimitStore {
  /** Takes one from each limit if all allow it, and else from none of the limits that share a step; one verdict each. */
  take(requests: readonly RateRequest[]): Promise<readonly RateVerdict[]>;
}

/** A limit of so many a minute. `burst`: default a tenth, 10 at least. */
export function rateLimit(options: {
  readonly name: string;
  readonly perMinute: number;
  readonly burst?: number;
}): RateLimit {
  const { name, perMinute, burst = Math.max(10, Math.ceil(perMinute / 10)) } = options;
  return { name, perMinute, burst };
}

/** Sums of large and small numbers are off by less than this. */
const toleranceMs = 0.001;

/** Judges a request at `now` by the arrival time kept for its key, undefined for a new one; gives the one to keep. */
export function judgeRate(
  arrivalMs: number | undefined,
  { limit, now }: { readonly limit: RateLimit; readonly now: number },
): { readonly verdict: RateVerdict; readonly arrivalMs: number } {
  const intervalMs = 60_000 / limit.perMinute;
  const spanMs = intervalMs * limit.burst;
  const due = Math.max(arrivalMs ?? now, now);
  const next = due + intervalMs;
  const isAllowed = next - spanMs <= now + toleranceMs;
  const kept = isAllowed ? next : due;
  const room = Math.max(0, spanMs - (kept - now));
  return {
    arrivalMs: kept,
    verdict: {
      isAllowed,
      remaining: Math.floor((room + toleranceMs) / intervalMs),
      retryAfterMs: isAllowed ? 0 : next - spanMs - now,
      resetMs: Math.max(0, kept - now),
    },
  };
}

/** The limit that decides: the one that makes wait longest, else the one with the least left. */
export function tightest<T extends { readonly verdict: RateVerdict }>(judged: readonly T[]): T | undefined {
  const [first, ...others] = judged;
  if (first === undefined) return undefined;
  return others.reduce((worst, each) => {
    const [a, b] = [each.verdict, worst.verdict];
    if (a.retryAfterMs !== b.retryAfterMs) return a.retryAfterMs > b.retryAfterMs ? each : worst;
    return a.remaining < b.remaining ? each : worst;
  }, first);
}
