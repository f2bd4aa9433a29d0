/**
 * Commit positions: how far a server's log had got, on which timeline.
 *
 * A position alone proves nothing after a fail-over: the new leader's log passes the number of a commit that was lost. So each
 * carries the timeline it was taken on, which PostgreSQL raises at every promotion.
 */

/** A place in a shard's log. */
export interface Position {
  /** From 1; one more after each promotion. */
  readonly timeline: number;
  /** Log sequence number in bytes, PostgreSQL's `pg_lsn` as one number. */
  readonly lsn: bigint;
}

/** One position a shard, by the shard's number. */
export type Positions = ReadonlyMap<number, Position>;

export const noPositions: Positions = new Map();

/** Reads PostgreSQL's notation, e.g. "16/B374D848"; undefined for anything else. */
export function parseLsn(text: string): bigint | undefined {
  const [, high, low] = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i.exec(text) ?? [];
  return high === undefined || low === undefined ? undefined : (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

/** In PostgreSQL's notation. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

/** Whether `a` is after `b`: on a later timeline, or further on the same. */
export function isAfter(a: Position, b: Position): boolean {
  return a.timeline > b.timeline || (a.timeline === b.timeline && a.lsn > b.lsn);
}

/** The later position of each shard. */
export function laterOf(a: Positions, b: Positions): Positions {
  if (b.size === 0) return a;
  const later = new Map(a);
  for (const [shard, position] of b) {
    const known = later.get(shard);
    if (known === undefined || isAfter(position, known)) later.set(shard, position);
  }
  return later;
}

/** A fixed-width text, whose order as text is the order of positions: timeline and LSN as 8 and 16 hexadecimal digits. */
export function encodePosition({ timeline, lsn }: Position): string {
  return `${timeline.toString(16).padStart(8, "0")}${lsn.toString(16).padStart(16, "0")}`;
}

/** Reads {@link encodePosition}; undefined for anything else. */
export function decodePosition(text: string): Position | undefined {
  if (!/^[0-9a-f]{24}$/.test(text)) return undefined;
  return { timeline: Number.parseInt(text.slice(0, 8), 16), lsn: BigInt(`0x${text.slice(8)}`) };
}
