/**
 * Which shard answers for a key, and until when that may be believed.
 *
 * Every shard speaks for itself: it *claims* what its record says it owns. A claim is a *lease*: it holds for `leaseMs` from the
 * moment before the shard was asked, by the monotonic clock of this process. Without one the shard is not used. A change of
 * owner has three steps, each after the one before is known to have happened (`change-placement.ts`):
 *
 * 1. the old owner's record and guard give the keys up;
 * 2. `leaseMs` pass, so that every lease given before has ended;
 * 3. the new owner's record and guard take the keys.
 *
 * Writes are safe by the guard alone. Reads, and writes that meet no row, are safe by the lease: when one begins, nobody else can
 * have acknowledged a write that the shard does not have. If the process then freezes and the answer comes years later, it is
 * still of a moment after the question began, as of any two requests that are under way at once.
 *
 * Of two claims for one key the later epoch is right: whoever takes a key does so in a later epoch than all who had it. So the
 * old claim of a shard that cannot be reached is not in the way.
 */
import type { Clock } from "../../kernel/clock.ts";
import { type KeyRange, type Ownership, ownershipOf } from "./ownership.ts";
import { bucketCount, bucketOf, canonicalKey, compareKeys, type Placement, rangeOfKey } from "./placement.ts";

/** What a shard says of itself. */
export interface ShardClaim {
  readonly epoch: number;
  readonly ownership: Ownership;
}

/** Leave to use one shard by one claim of it. */
export interface Lease {
  readonly shard: number;
  readonly epoch: number;
  /** On the monotonic clock; rises as long as the shard says the same. */
  readonly untilMs: number;
}

/** A lease ends this long after the shard was last asked; default of {@link PlacementLeases}. */
export const leaseMsDefault = 10_000;
/** Where shards have followers: these go on answering reads for as long as the leader is away. The longest lease there is. */
export const leaseMsReplicated = 30_000;

interface OwnLease {
  readonly shard: number;
  readonly epoch: number;
  readonly ownership: Ownership;
  untilMs: number;
}

/** The claims of all shards. Asks nobody: see `placement-watch.ts`. */
export class PlacementLeases {
  readonly leaseMs: number;
  private readonly clock: Clock;
  private readonly current: OwnLease[];
  private route: (key: string) => number | undefined;

  /** Until a shard has spoken, keys are routed by the placement, and its lease is one that has ended. */
  constructor(options: { readonly placement: Placement; readonly clock: Clock; readonly leaseMs?: number }) {
    const { placement, clock, leaseMs = leaseMsDefault } = options;
    this.leaseMs = leaseMs;
    this.clock = clock;
    this.current = Array.from({ length: placement.shards }, (_, shard) => ({
      ...{ shard, epoch: 0, ownership: ownershipOf(placement, shard) },
      untilMs: Number.NEGATIVE_INFINITY,
    }));
    this.route = routeOf(this.current);
  }

  get shardCount(): number {
    return this.current.length;
  }

  /** The shard that claims the key by the latest epoch; undefined while the key is between two owners. */
  ownerOf(key: string): number | undefined {
    // Without this a forgotten key would find a shard.
    if (typeof key !== "string") throw new TypeError(`A shard key must be a text, found ${typeof key}.`);
    return this.route(key);
  }

  /** The shard's lease, which may have ended. */
  leaseOf(shard: number): Lease {
    return this.current[shard] as Lease;
  }

  isHeld(lease: Lease): boolean {
    return this.clock.monotonic() < lease.untilMs;
  }

  /** The shard made this claim; it was asked at `askedAtMs` on the monotonic clock, or later. */
  confirm(shard: number, claim: ShardClaim, askedAtMs: number): void {
    const known = this.current[shard];
    if (known === undefined || claim.epoch < known.epoch) return;
    const untilMs = askedAtMs + this.leaseMs;
    if (claim.epoch === known.epoch) {
      known.untilMs = Math.max(known.untilMs, untilMs);
      return;
    }
    // A new object: whoever asked under the old claim holds the old lease, which nothing prolongs any more.
    this.current[shard] = { shard, ...claim, untilMs };
    this.route = routeOf(this.current);
  }
}

function routeOf(claims: readonly OwnLease[]): (key: string) => number | undefined {
  // Later epochs overwrite earlier ones.
  const ordered = claims.toSorted((a, b) => a.epoch - b.epoch);
  return claims.every(({ ownership }) => ownership.strategy === "hash") ? byBucket(ordered) : byRange(ordered);
}

const nobody = -1;

function byBucket(claims: readonly OwnLease[]): (key: string) => number | undefined {
  const owners = new Int16Array(bucketCount).fill(nobody);
  for (const { shard, ownership } of claims) {
    if (ownership.strategy !== "hash") continue;
    for (const { from, to } of ownership.buckets) owners.fill(shard, from, to);
  }
  return (key) => {
    const owner = owners[bucketOf(key)] as number;
    return owner === nobody ? undefined : owner;
  };
}

function byRange(claims: readonly OwnLease[]): (key: string) => number | undefined {
  const ranges = claims.flatMap(({ shard, ownership }) =>
    ownership.strategy === "range" ? ownership.ranges.map((range) => ({ shard, range })) : [],
  );
  const bounds = ranges.flatMap(({ range: { from, to } }) => [from, to]).filter((bound) => bound !== undefined);
  const splits = [...new Set(bounds)].sort(compareKeys);
  const owners = Array.from({ length: splits.length + 1 }, (_, index) => {
    const first = splits[index - 1];
    return ranges.findLast(({ range }) => holdsFrom(range, first))?.shard;
  });
  return (key) => owners[rangeOfKey(splits, canonicalKey(key))];
}

/** Whether the range holds the keys from this bound on; it has no bound inside the piece that begins there. */
function holdsFrom({ from, to }: KeyRange, first: string | undefined): boolean {
  if (first === undefined) return from === undefined;
  return (from === undefined || compareKeys(from, first) <= 0) && (to === undefined || compareKeys(first, to) < 0);
}
