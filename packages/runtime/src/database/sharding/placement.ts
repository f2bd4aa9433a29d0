/**
 * Where a key lives. Pure: a placement is data, kept in the home database with an epoch (see `placement-record.ts`).
 *
 * Hash placement maps a key to one of 1,024 buckets by PostgreSQL's own hash, and buckets to shards.
 * Range placement cuts the key space at split points, compared byte by byte as the "C" collation does. A UUID is one key in
 * either case of its letters.
 */
import { ConfigError } from "../../kernel/errors.ts";
import { hashText, hashUuid, isUuid } from "./postgres-hash.ts";

/** Number of hash buckets; a power of two, so that a mask selects the bucket. */
export const bucketCount = 1024;

/** Hash buckets to shards: `shardOfBucket[b]` is the index of the shard that owns bucket `b`. */
export interface HashPlacement {
  readonly strategy: "hash";
  readonly epoch: number;
  readonly shards: number;
  readonly shardOfBucket: readonly number[];
}

/** Ranges to shards: range `i` holds the keys from `splits[i - 1]` (included) to `splits[i]` (not included). */
export interface RangePlacement {
  readonly strategy: "range";
  readonly epoch: number;
  readonly shards: number;
  readonly splits: readonly string[];
  /** Which shard owns each range, one more than there are splits; default: shard `i` owns range `i`. */
  readonly shardOfRange?: readonly number[];
  /** The split points the system was made with, once others came by moves. */
  readonly firstSplits?: readonly string[];
}

/** A versioned map of keys to shards. */
export type Placement = HashPlacement | RangePlacement;

/** The placement of an empty system: buckets spread evenly in contiguous runs, or the given split points. */
export function initialPlacement(options: {
  readonly strategy: "hash" | "range";
  readonly shards: number;
  readonly splits?: readonly string[];
}): Placement {
  const { strategy, shards, splits = [] } = options;
  if (strategy === "hash") {
    const shardOfBucket = Array.from({ length: bucketCount }, (_, bucket) =>
      Math.floor((bucket * shards) / bucketCount),
    );
    return { strategy, epoch: 1, shards, shardOfBucket };
  }
  if (splits.length !== shards - 1) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `database.splits: ${shards} shards by range need ${shards - 1} split points, found ${splits.length}.`,
    );
  }
  for (const [index, split] of splits.entries()) {
    const before = splits[index - 1];
    if (before !== undefined && compareKeys(before, split) >= 0) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `database.splits: split points must ascend byte by byte, but "${before}" comes before "${split}".`,
      );
    }
  }
  return { strategy, epoch: 1, shards, splits };
}

/** The bucket of a key, 0 to 1,023: of a UUID by its bytes, of anything else by its text. */
export function bucketOf(key: string): number {
  return (hashUuid(key) ?? hashText(key)).low & (bucketCount - 1);
}

/** Index of the shard that owns `key` under `placement`. Raises a TypeError when the key is no text. */
export function shardOf(placement: Placement, key: string): number {
  // Without this a forgotten key would find a shard, and with one shard nobody would notice.
  if (typeof key !== "string") throw new TypeError(`A shard key must be a text, found ${typeof key}.`);
  if (placement.shards === 1) return 0;
  if (placement.strategy === "hash") return placement.shardOfBucket[bucketOf(key)] ?? 0;
  const range = rangeOfKey(placement.splits, key);
  return placement.shardOfRange?.[range] ?? range;
}

/** Index of the range that holds the key, by split points that ascend. */
export function rangeOfKey(splits: readonly string[], key: string): number {
  const canonical = canonicalKey(key);
  let range = 0;
  while (range < splits.length && compareKeys(canonical, splits[range] as string) >= 0) range++;
  return range;
}

/** The key as ranges compare it: a UUID as PostgreSQL prints it, in small letters. */
export function canonicalKey(key: string): string {
  return isUuid(key) ? key.toLowerCase() : key;
}

/** Byte by byte, as the "C" collation does. */
export function compareKeys(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}
