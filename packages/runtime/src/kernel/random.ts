/** Source of randomness. A parameter everywhere, so that a seed replays a run. */
import { randomBytes } from "node:crypto";
import type { Clock } from "./clock.ts";

/** Random bytes and numbers. */
export interface Random {
  /** `count` random bytes. */
  bytes(count: number): Uint8Array;
  /** A number in [0, 1). */
  next(): number;
}

/** The machine's cryptographic source. Use it for every token and id. */
export const systemRandom: Random = {
  bytes: (count) => randomBytes(count),
  next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
};

/**
 * A repeatable source for tests and generated data; never for tokens. Only the low 32 bits of `seed` count.
 *
 * Method: mulberry32 (Tommy Ettinger, 2017, public domain), a 32-bit state with full period. It repeats after 2^32
 * numbers, each with 32 random bits.
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next32 = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return {
    bytes: (count) => Uint8Array.from({ length: count }, () => next32() >>> 24),
    next: () => next32() / 2 ** 32,
  };
}

const sequenceMax = 0xfff;

/** The last id's time and counter, a clock: a simulated clock's ids then depend on that clock alone, and replay. */
const counters = new WeakMap<Clock, { ms: number; sequence: number }>();

const hexOfByte = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/**
 * A UUID of version 7 (RFC 9562): milliseconds since the epoch, a 12-bit counter, 62 random bits.
 *
 * Ids of one process and clock ascend, also within a millisecond and when the clock is set back (RFC 9562, section 6.2,
 * method 1). More than 2,048 to 4,096 ids in a millisecond borrow from the next one.
 */
export function uuidV7(clock: Clock, random: Random): string {
  const bytes = random.bytes(10);
  const { ms, sequence } = nextTick(clock, bytes);
  const time = ms.toString(16).padStart(12, "0");
  const version = `7${sequence.toString(16).padStart(3, "0")}`;
  const variant = `${hexOfByte[((bytes[2] ?? 0) & 0x3f) | 0x80]}${hexOfByte[bytes[3] ?? 0]}`;
  let tail = "";
  for (let index = 4; index < 10; index++) tail += hexOfByte[bytes[index] ?? 0];
  return `${time.slice(0, 8)}-${time.slice(8)}-${version}-${variant}-${tail}`;
}

function nextTick(clock: Clock, bytes: Uint8Array): { readonly ms: number; readonly sequence: number } {
  const now = Math.floor(clock.now());
  let last = counters.get(clock);
  if (last === undefined) {
    last = { ms: -1, sequence: 0 };
    counters.set(clock, last);
  }
  if (now > last.ms) {
    last.ms = now;
    // Half of the counter's range stays free, so that it rarely runs over within one millisecond.
    last.sequence = (((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)) & 0x7ff;
  } else if (last.sequence < sequenceMax) {
    last.sequence++;
  } else {
    last.ms++;
    last.sequence = 0;
  }
  return last;
}
