/**
 * Changes which shard owns which keys. Every step leaves a state from which the same call, or one with another goal, goes on:
 *
 * 1. *intend*: the goal and its epoch are written into the home database.
 * 2. *fence*: every shard's record takes the goal's epoch as its term. What an older change does later is refused.
 * 3. *give up*: the record, then the guard, of each shard is cut down to what it keeps. From then on nobody can write the moving
 *    keys, and transactions that wrote to the tables have ended.
 * 4. *wait*: until every lease given before has ended (`placement-lease.ts`).
 * 5. *move*: the caller moves the rows, or makes sure that there are none.
 * 6. *take*: the record, then the guard, of each shard is widened to what it gets.
 * 7. *conclude*: the goal becomes the placement.
 *
 * What a shard owns is read from the shard after the fence, never remembered. So there are never two owners, wherever this dies
 * and whoever comes back late. The price: all shards must be up for keys to change their owner.
 */
import { type Kysely, sql } from "kysely";
import { ConfigError, ConflictError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import type { TableRegistry } from "../table-registry.ts";
import { commonOwnership, isSameOwnership, type Ownership, ownershipOf } from "./ownership.ts";
import type { Placement } from "./placement.ts";
import { leaseMsReplicated, type ShardClaim } from "./placement-lease.ts";
import { bringGuard } from "./shard-guard.ts";
import { beginTerm, changeOwnership, readRecord } from "./shard-record.ts";

/** One shard, as a change of placement acts on it. */
export interface OwnedShard {
  /** Shuts out changes of earlier terms. Gives false when a later one has shut out this one. */
  fence(term: number): Promise<boolean>;
  /** What its record says. */
  read(): Promise<ShardClaim | undefined>;
  /** Sets record and guard, which have taken effect when it resolves. Gives false when another term is in force. */
  set(claim: ShardClaim, term: number): Promise<boolean>;
}

/** Shards, the way between them, and the time that leases take. */
export interface ConvergeOptions {
  readonly shards: readonly OwnedShard[];
  /** The goal; its epoch is at least two later than that of every goal before. */
  readonly goal: Placement;
  /** Resolves when all leases given before the call have ended. */
  readonly waitForLeases: () => Promise<void>;
  /** Moves the rows of the keys that nobody owns now. Called again when an earlier call did not come to its end. */
  readonly moveRows: () => Promise<void>;
}

/** Steps 2 to 6. Raises `PLACEMENT_OVERTAKEN` when a later change has begun. */
export async function converge({ shards, goal, waitForLeases, moveRows }: ConvergeOptions): Promise<void> {
  const { epoch: term } = goal;
  const must = (isInForce: boolean) => {
    if (!isInForce) throw overtaken(term);
  };
  for (const shard of shards) must(await shard.fence(term));
  const kept: Ownership[] = [];
  for (const [index, shard] of shards.entries()) {
    const claim = await shard.read();
    if (claim === undefined) throw recordless(index);
    const ownership = commonOwnership(claim.ownership, ownershipOf(goal, index));
    kept.push(ownership);
    const isKept = isSameOwnership(ownership, claim.ownership);
    // Set also when it is the same: a call that died may have changed the record and not all of the guard.
    must(await shard.set({ ownership, epoch: isKept ? claim.epoch : term - 1 }, term));
  }
  const growing = shards.flatMap((shard, index) => {
    const ownership = ownershipOf(goal, index);
    return isSameOwnership(ownership, kept[index] as Ownership) ? [] : [{ shard, ownership }];
  });
  if (growing.length === 0) return;
  // Also when nothing was given up just now: an earlier call may have done so a moment ago.
  await waitForLeases();
  await moveRows();
  for (const [index, shard] of shards.entries()) {
    // A fail-over to a follower that had not heard of it takes back what was given up.
    const claim = await shard.read();
    must(claim !== undefined && isSameOwnership(claim.ownership, kept[index] as Ownership));
  }
  for (const { shard, ownership } of growing) must(await shard.set({ ownership, epoch: term }, term));
}

function recordless(shard: number): ConfigError {
  return new ConfigError(
    "CONFIG_INVALID",
    `Shard ${shard} has no record of what it owns. Start the app of this version on it once.`,
  );
}

/** What {@link changePlacement} needs. */
export interface ChangePlacementOptions {
  readonly home: Kysely<unknown>;
  /** Connections to the leaders, in the order of their numbers. */
  readonly shards: readonly ShardConnection[];
  readonly tables: TableRegistry;
  /** The new placement from the present one; its epoch does not matter. */
  readonly change: (placement: Placement) => Placement;
  /** The longest lease that a process of the app may hold; default 30,000 ms, that of processes whose shards have followers. */
  readonly leaseMs?: number;
  readonly sleep: (ms: number) => Promise<void>;
  /** As in {@link ConvergeOptions}; given the goal. */
  readonly moveRows: (goal: Placement) => Promise<void>;
}

/** Clocks of two machines do not run equally fast. */
const leaseMargin = 1.01;

/**
 * Carries out a change of placement, or goes on with one that was left half done. Gives the placement then in force.
 *
 * Raises `PLACEMENT_OVERTAKEN` when another change was begun meanwhile, and what `moveRows` raises: then nobody owns the moving
 * keys until this is called again, with the same goal or with the old placement.
 */
export async function changePlacement(options: ChangePlacementOptions): Promise<Placement> {
  const { home, shards, tables, leaseMs = leaseMsReplicated, sleep, moveRows } = options;
  const goal = await intend(home, options.change);
  await converge({
    shards: shards.map((shard, index) => ownedShard(shard, { tables, isHome: index === 0 })),
    goal,
    waitForLeases: () => sleep(leaseMs * leaseMargin),
    moveRows: () => moveRows(goal),
  });
  const concluded = await sql`
    update rungs_placement set placement = next, epoch = (next ->> 'epoch')::bigint, next = null
    where next ->> 'epoch' = ${String(goal.epoch)} returning epoch`.execute(home);
  if (concluded.rows.length === 0) throw overtaken(goal.epoch);
  return goal;
}

function overtaken(epoch: number): ConflictError {
  return new ConflictError(
    "PLACEMENT_OVERTAKEN",
    `The change of placement to epoch ${epoch} was overtaken by another. Look at rungs_placement and begin anew.`,
  );
}

/** The goal in force, with an epoch later than any before it. */
async function intend(home: Kysely<unknown>, change: (placement: Placement) => Placement): Promise<Placement> {
  return home.transaction().execute(async (tx) => {
    const { rows } = await sql<{ placement: Placement; next: Placement | null }>`
      select placement, next from rungs_placement for update`.execute(tx);
    const [row] = rows;
    if (row === undefined) {
      throw new ConfigError("CONFIG_INVALID", "The home database lost its placement record, table rungs_placement.");
    }
    const wanted = change(row.placement);
    const epoch = Math.max(row.placement.epoch, row.next?.epoch ?? 0) + 2;
    const goal: Placement = { ...wanted, epoch };
    await sql`update rungs_placement set next = ${JSON.stringify(goal)}::jsonb`.execute(tx);
    return goal;
  });
}

/** A shard by its record and guard. */
export function ownedShard(
  shard: ShardConnection,
  options: { readonly tables: TableRegistry; readonly isHome: boolean },
): OwnedShard {
  return {
    fence: (term) => beginTerm(shard, term),
    async read() {
      const record = await readRecord(shard);
      return record?.ownership === undefined ? undefined : { epoch: record.epoch, ownership: record.ownership };
    },
    async set({ epoch, ownership }, term) {
      const isInForce = await changeOwnership(shard, { ownership, epoch, term });
      if (isInForce) await bringGuard(shard, options);
      return isInForce;
    },
  };
}
