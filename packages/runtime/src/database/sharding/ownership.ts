/**
 * Which keys one shard owns, as data and as SQL that the server can check.
 *
 * A set of half-open intervals: of buckets by hash, of keys by range. The shard holds it on its own record and in its guard;
 * see `shard-record.ts` and `shard-guard.ts`.
 */
import { bucketCount, bucketOf, canonicalKey, compareKeys, type Placement } from "./placement.ts";

/** From `from` (included) to `to` (not included); no bound where it is absent. */
export interface KeyRange {
  readonly from?: string;
  readonly to?: string;
}

/** A run of buckets, from `from` (included) to `to` (not included). */
export interface BucketRun {
  readonly from: number;
  readonly to: number;
}

/** What one shard owns: intervals that ascend and do not touch. */
export type Ownership =
  | { readonly strategy: "hash"; readonly buckets: readonly BucketRun[] }
  | { readonly strategy: "range"; readonly ranges: readonly KeyRange[] };

/** What the placement gives to the shard of that number. */
export function ownershipOf(placement: Placement, shard: number): Ownership {
  if (placement.strategy === "hash") {
    const owned = Array.from({ length: bucketCount }, (_, bucket) => placement.shardOfBucket[bucket] === shard);
    return { strategy: "hash", buckets: runsOf(owned) };
  }
  const { splits } = placement;
  const ranges = Array.from({ length: splits.length + 1 }, (_, index) => index)
    .filter((index) => (placement.shardOfRange?.[index] ?? index) === shard)
    .map((index) => rangeOf(splits[index - 1], splits[index]));
  return { strategy: "range", ranges: joined(ranges) };
}

/** Whether the key is among what is owned. */
export function owns(ownership: Ownership, key: string): boolean {
  if (ownership.strategy === "hash") {
    const bucket = bucketOf(key);
    return ownership.buckets.some(({ from, to }) => bucket >= from && bucket < to);
  }
  const canonical = canonicalKey(key);
  return ownership.ranges.some(
    ({ from, to }) =>
      (from === undefined || compareKeys(canonical, from) >= 0) && (to === undefined || compareKeys(canonical, to) < 0),
  );
}

/** What both own. Raises a TypeError when they are of different strategies. */
export function commonOwnership(left: Ownership, right: Ownership): Ownership {
  if (left.strategy === "hash" && right.strategy === "hash") {
    const [a, b] = [flagsOf(left.buckets), flagsOf(right.buckets)];
    return { strategy: "hash", buckets: runsOf(a.map((isOwned, bucket) => isOwned && b[bucket] === true)) };
  }
  if (left.strategy !== "range" || right.strategy !== "range") {
    throw new TypeError("Ownership by hash and ownership by range have nothing in common.");
  }
  const ranges = left.ranges.flatMap((a) => right.ranges.flatMap((b) => overlapOf(a, b)));
  return { strategy: "range", ranges: joined(ranges) };
}

/** All keys that are not owned. */
export function restOf(ownership: Ownership): Ownership {
  if (ownership.strategy === "hash") {
    return { strategy: "hash", buckets: runsOf(flagsOf(ownership.buckets).map((isOwned) => !isOwned)) };
  }
  const { ranges } = ownership;
  const gaps = [...ranges, undefined].flatMap((range, index): KeyRange[] => {
    const before = ranges[index - 1];
    // What lies below the first range, between two, and above the last.
    if ((index > 0 && before?.to === undefined) || (range !== undefined && range.from === undefined)) return [];
    return [rangeOf(before?.to, range?.from)];
  });
  return { strategy: "range", ranges: gaps };
}

/** Whether both own the same keys. */
export function isSameOwnership(left: Ownership, right: Ownership): boolean {
  return JSON.stringify(ordered(left)) === JSON.stringify(ordered(right));
}

/** Reads what {@link Ownership} is as JSON; undefined for anything else. */
export function readOwnership(value: unknown): Ownership | undefined {
  const { strategy, buckets, ranges } = (value ?? {}) as Record<string, unknown>;
  const isText = (each: unknown) => each === undefined || typeof each === "string";
  if (strategy === "hash" && Array.isArray(buckets)) {
    const isRun = (run: BucketRun) => Number.isInteger(run?.from) && Number.isInteger(run?.to);
    return buckets.every(isRun) ? { strategy, buckets: buckets as BucketRun[] } : undefined;
  }
  if (strategy !== "range" || !Array.isArray(ranges)) return undefined;
  return ranges.every((range: KeyRange) => isText(range?.from) && isText(range?.to))
    ? { strategy, ranges: ranges as KeyRange[] }
    : undefined;
}

function ordered(ownership: Ownership): unknown {
  return ownership.strategy === "hash"
    ? ownership.buckets.map(({ from, to }) => [from, to])
    : ownership.ranges.map(({ from, to }) => [from ?? null, to ?? null]);
}

function flagsOf(runs: readonly BucketRun[]): boolean[] {
  const flags = new Array<boolean>(bucketCount).fill(false);
  for (const { from, to } of runs) flags.fill(true, from, to);
  return flags;
}

function runsOf(owned: readonly boolean[]): BucketRun[] {
  const runs: BucketRun[] = [];
  for (let from = 0; from < owned.length; from++) {
    if (owned[from] !== true) continue;
    let to = from;
    while (owned[to] === true) to++;
    runs.push({ from, to });
    from = to;
  }
  return runs;
}

function rangeOf(from: string | undefined, to: string | undefined): KeyRange {
  return { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
}

function overlapOf(a: KeyRange, b: KeyRange): KeyRange[] {
  const from = a.from === undefined || (b.from !== undefined && compareKeys(b.from, a.from) > 0) ? b.from : a.from;
  const to = a.to === undefined || (b.to !== undefined && compareKeys(b.to, a.to) < 0) ? b.to : a.to;
  return from !== undefined && to !== undefined && compareKeys(from, to) >= 0 ? [] : [rangeOf(from, to)];
}

/** Ascending ranges, those that touch made one. */
function joined(ranges: readonly KeyRange[]): KeyRange[] {
  const sorted = ranges.toSorted((a, b) =>
    a.from === undefined ? -1 : b.from === undefined ? 1 : compareKeys(a.from, b.from),
  );
  const result: KeyRange[] = [];
  for (const range of sorted) {
    const last = result.at(-1);
    if (last !== undefined && last.to !== undefined && last.to === range.from) {
      result[result.length - 1] = rangeOf(last.from, range.to);
    } else result.push(range);
  }
  return result;
}
