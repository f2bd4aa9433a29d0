/**
 * Slows down the guessing of passwords: sign-ins that fail are counted per account and per client address.
 *
 * Method: sliding window counter, the count of the window before weighed by how much of it still lies within the last
 * `windowMs`: two numbers a key, never more than the limit in a fixed window.
 *
 * A try is counted as failed *before* the password is checked and taken back when it was right, so that a thousand
 * guesses at once are a thousand tries and not one. A refused try counts for nothing, so a lock always ends.
 *
 * The limit per account lets a stranger who knows an address lock its owner out of *signing in* for a while; sessions
 * already open are not touched. That is the price of a bound on guesses from many addresses (OWASP Authentication Cheat
 * Sheet, "Account Lockout"; NIST SP 800-63B, 3.2.2 allows no more than 100 failures in a row).
 */
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { type Clock, systemClock } from "../kernel/clock.ts";
import type { AttemptCounts, AttemptStore } from "./attempt-store.ts";

/** Whether a try is allowed, and else when to come back. */
export interface ThrottleVerdict {
  readonly isAllowed: boolean;
  /** 0 when allowed. */
  readonly retryAfterMs: number;
}

/** Who tries to sign in, from where. */
export interface LoginAttempt {
  /** The account's name as typed; case does not matter. */
  readonly account: string;
  /** The client's IP address. An IPv6 address counts with its /64: that is what one subscriber has. */
  readonly address: string;
}

/** Bounds failed sign-ins. Follow each allowed {@link LoginThrottle.attempt} by what came of it. */
export interface LoginThrottle {
  /** Counts a try as failed, or refuses it. Leave it at that when the password was wrong. */
  attempt(attempt: LoginAttempt): Promise<ThrottleVerdict>;
  /** The password was right: forgets the account's failures and takes this try off the address, whose others stay. */
  succeeded(attempt: LoginAttempt): Promise<void>;
  /** The password could not be checked (overload, outage): takes this try back. */
  abandoned(attempt: LoginAttempt): Promise<void>;
}

/** Settings of {@link createLoginThrottle}. */
export interface LoginThrottleOptions {
  readonly store: AttemptStore;
  readonly clock?: Clock;
  /** Default 15 minutes. */
  readonly windowMs?: number;
  /** Failures of one account in a window; default 10. */
  readonly failuresPerAccountMax?: number;
  /** Failures from one address in a window; default 100: many people may share one. */
  readonly failuresPerAddressMax?: number;
}

interface Bound {
  readonly key: string;
  readonly max: number;
}

/** Makes the throttle over a store of counts. */
export function createLoginThrottle(options: LoginThrottleOptions): LoginThrottle {
  const { store, clock = systemClock, windowMs = 15 * 60 * 1_000 } = options;
  const { failuresPerAccountMax = 10, failuresPerAddressMax = 100 } = options;

  const windowAt = (now: number) => ({ index: Math.floor(now / windowMs), windowMs });
  const accountOf = ({ account }: LoginAttempt): Bound => ({
    key: keyOf("account", account.normalize("NFKC").toLowerCase()),
    max: failuresPerAccountMax,
  });
  const addressOf = ({ address }: LoginAttempt): Bound => ({
    key: keyOf("address", addressGroup(address)),
    max: failuresPerAddressMax,
  });

  /** Counts one; gives how long to wait when that was one too many. */
  async function count({ key, max }: Bound, now: number): Promise<number> {
    const counts = await store.add(key, windowAt(now), 1);
    return waitMs({ current: counts.current - 1, previous: counts.previous }, { max, now, windowMs });
  }

  return {
    async attempt(attempt) {
      const now = clock.now();
      const bounds = [accountOf(attempt), addressOf(attempt)];
      const waits = await Promise.all(bounds.map((bound) => count(bound, now)));
      const retryAfterMs = Math.max(...waits);
      if (retryAfterMs > 0) await Promise.all(bounds.map(({ key }) => store.add(key, windowAt(now), -1)));
      return { isAllowed: retryAfterMs === 0, retryAfterMs };
    },
    async succeeded(attempt) {
      await Promise.all([
        store.clear(accountOf(attempt).key),
        store.add(addressOf(attempt).key, windowAt(clock.now()), -1),
      ]);
    },
    async abandoned(attempt) {
      const window = windowAt(clock.now());
      await Promise.all([accountOf(attempt), addressOf(attempt)].map(({ key }) => store.add(key, window, -1)));
    },
  };
}

/**
 * How long until one more fits, given the counts before it; 0 when it fits now.
 * One more fits at share `f` of a window when `current + previous * (1 - f) + 1 <= max`.
 */
function waitMs(
  counts: AttemptCounts,
  at: { readonly max: number; readonly now: number; readonly windowMs: number },
): number {
  const { max, now, windowMs } = at;
  const { current, previous } = counts;
  const elapsedMs = now % windowMs;
  const room = max - 1 - current;
  if (room >= 0) {
    // In this window, once enough of the one before has slid out.
    const fitsFromMs = previous <= room ? 0 : Math.ceil(windowMs * (1 - room / previous));
    return Math.max(0, fitsFromMs - elapsedMs);
  }
  // This window is full: in the next, once enough of this one has slid out.
  const fitsFromMs = Math.ceil(windowMs * Math.max(0, 1 - (max - 1) / current));
  return windowMs - elapsedMs + fitsFromMs;
}

/** Hashed, so that neither memory nor a shared store holds a list of who signs in from where. */
function keyOf(kind: string, value: string): string {
  return createHash("sha256").update(`${kind}:${value}`).digest("base64url");
}

/** What one subscriber has: an IPv4 address, or the /64 of an IPv6 address. */
function addressGroup(address: string): string {
  if (isIP(address) !== 6) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped?.[1] !== undefined) return mapped[1];
  const [head = "", tail] = (address.split("%")[0] ?? "").split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...new Array<string>(zeros).fill("0"), ...right];
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}
