/**
 * Shards, processes and movers in simulated time, around the real policies: leases, watch, routing and change of placement.
 *
 * Messages take random times and are lost, processes freeze in the middle of anything, movers die at any step and come back late,
 * and rows that moved away stay on the old shard, where only the guard and the leases are in the way of reading and writing them.
 */

import { converge, type OwnedShard } from "../../../src/database/sharding/change-placement.ts";
import { onOwner } from "../../../src/database/sharding/owner-routing.ts";
import { ownershipOf, owns } from "../../../src/database/sharding/ownership.ts";
import { type Placement, shardOf } from "../../../src/database/sharding/placement.ts";
import { PlacementLeases, type ShardClaim } from "../../../src/database/sharding/placement-lease.ts";
import { PlacementWatch } from "../../../src/database/sharding/placement-watch.ts";
import type { Clock } from "../../../src/kernel/clock.ts";
import { UnavailableError } from "../../../src/kernel/errors.ts";
import { silentLogger } from "../../../src/kernel/log.ts";
import type { Random } from "../../../src/kernel/random.ts";
import { randomPlacement, uuidFrom } from "./support.ts";

/** What a planted fault takes out. */
export type Fault = "none" | "no wait for leases" | "no guard" | "leases without end" | "no fence of movers";

/** What went wrong in one run, and how much was done. */
export interface SimulationResult {
  readonly writes: number;
  readonly reads: number;
  readonly changes: number;
  readonly rerouted: number;
  readonly violations: readonly string[];
}

const leaseMs = 1_000;
const runMs = 60_000;

class Died extends Error {}

/** Events in the order of their times; those of one time in the order they were made. */
class Timeline implements Clock {
  private nowMs = 0;
  private made = 0;
  private readonly events: { readonly at: number; readonly order: number; readonly run: () => void }[] = [];

  now = () => this.nowMs;
  monotonic = () => this.nowMs;

  at(ms: number, run: () => void): void {
    this.events.push({ at: ms, order: this.made++, run });
  }

  async runUntil(endMs: number): Promise<void> {
    for (;;) {
      // Everything that follows from the last event without waiting happens first.
      await new Promise((resolve) => setImmediate(resolve));
      let next = 0;
      for (let index = 1; index < this.events.length; index++) {
        const [a, b] = [this.events[index], this.events[next]] as const;
        if (a !== undefined && b !== undefined && (a.at < b.at || (a.at === b.at && a.order < b.order))) next = index;
      }
      const [event] = this.events.splice(next, 1);
      if (event === undefined || event.at > endMs) return;
      this.nowMs = Math.max(this.nowMs, event.at);
      event.run();
    }
  }
}

/** Anything that can be frozen: what happens to it meanwhile happens when it thaws. */
class Actor {
  frozenUntil = 0;
  private readonly time: Timeline;
  private readonly random: Random;

  constructor(time: Timeline, random: Random) {
    this.time = time;
    this.random = random;
  }

  sleep = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const wake = () => {
        if (this.time.now() < this.frozenUntil) this.time.at(this.frozenUntil, wake);
        else resolve();
      };
      this.time.at(this.time.now() + ms, wake);
    });

  /** A request to a server and its answer: what the server does happens in between, and although the asker freezes. */
  async ask<R>(work: () => R): Promise<R> {
    // Frozen between the decision to ask and the asking.
    if (this.random.next() < 0.003) this.frozenUntil = this.time.now() + 4_000 * this.random.next();
    await this.sleep(0);
    const there = this.random.next() < 0.1 ? 200 * this.random.next() : 5 * this.random.next();
    const done = new Promise<R>((resolve, reject) => {
      this.time.at(this.time.now() + there, () => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      });
    });
    const outcome = await done.then(
      (value) => () => value,
      (error: unknown) => () => {
        throw error;
      },
    );
    await this.sleep(5 * this.random.next());
    return outcome();
  }
}

interface Row {
  readonly version: number;
}

interface World {
  readonly time: Timeline;
  readonly random: Random;
  readonly fault: Fault;
  readonly shards: { term: number; record: ShardClaim; guard: ShardClaim; readonly rows: Map<string, Row> }[];
  readonly keys: readonly string[];
  readonly violations: string[];
  /** The version that everybody who begins to read now has to see. */
  readonly acknowledged: Map<string, number>;
  readonly lastOwner: Map<string, number>;
  readonly counts: { writes: number; reads: number; changes: number; rerouted: number };
  version: number;
  epoch: number;
}

/** Runs one history. */
export async function simulate(random: Random, fault: Fault): Promise<SimulationResult> {
  const time = new Timeline();
  const shardCount = 3;
  const first = randomPlacement(random, { strategy: "hash", shards: shardCount, epoch: 1 });
  const world: World = {
    ...{ time, random, fault, violations: [] },
    shards: Array.from({ length: shardCount }, (_, shard) => {
      const claim = { epoch: 1, ownership: ownershipOf(first, shard) };
      return { term: 0, record: claim, guard: claim, rows: new Map<string, Row>() };
    }),
    keys: Array.from({ length: 12 }, () => uuidFrom(random)),
    acknowledged: new Map(),
    lastOwner: new Map(),
    counts: { writes: 0, reads: 0, changes: 0, rerouted: 0 },
    ...{ version: 0, epoch: 1 },
  };
  for (const key of world.keys) world.lastOwner.set(key, shardOf(first, key));
  for (let index = 0; index < 4; index++) startProcess(world, first);
  for (let index = 0; index < 2; index++) void startMover(world);
  await time.runUntil(runMs);
  return { ...world.counts, violations: world.violations };
}

function startProcess(world: World, placement: Placement): void {
  const { time, random, shards, keys, fault } = world;
  const actor = new Actor(time, random);
  const leases = new PlacementLeases({
    ...{ placement, clock: time },
    leaseMs: fault === "leases without end" ? Number.POSITIVE_INFINITY : leaseMs,
  });
  const watch = new PlacementWatch({
    ...{ leases, clock: time, log: silentLogger, sleep: actor.sleep },
    read: (shard) =>
      actor.ask(() => {
        if (random.next() < 0.05) throw new Error("lost");
        return shards[shard]?.record;
      }),
  });
  const live = async (work: () => Promise<void>) => {
    while (time.now() < runMs) await work();
  };
  void live(async () => {
    await actor.sleep(300);
    void watch.refresh();
    if (random.next() < 0.05) actor.frozenUntil = time.now() + 3_000 * random.next();
  });
  for (let index = 0; index < 3; index++) {
    void live(async () => {
      await actor.sleep(40 * random.next());
      const key = keys[Math.floor(random.next() * keys.length)] as string;
      const work = random.next() < 0.5 ? write(world, actor, watch, key) : read(world, actor, watch, key);
      // Unavailable is an answer, though one that nobody likes.
      await work.catch((error: unknown) => {
        if (!(error instanceof UnavailableError)) world.violations.push(`unexpected: ${String(error)}`);
      });
    });
  }
}

async function write(world: World, actor: Actor, watch: PlacementWatch, key: string): Promise<void> {
  const { shards, acknowledged, counts, fault } = world;
  let version = 0;
  let tries = 0;
  await onOwner(watch, key, (index) =>
    actor.ask(() => {
      const shard = shards[index] as World["shards"][number];
      if (++tries > 1) counts.rerouted++;
      if (fault !== "no guard" && !owns(shard.guard.ownership, key)) throw refusal(shard.guard.epoch);
      version = ++world.version;
      shard.rows.set(key, { version });
    }),
  );
  counts.writes++;
  acknowledged.set(key, Math.max(acknowledged.get(key) ?? 0, version));
}

async function read(world: World, actor: Actor, watch: PlacementWatch, key: string): Promise<void> {
  const { shards, acknowledged, counts, violations, time } = world;
  const least = acknowledged.get(key) ?? 0;
  const began = time.now();
  let from = -1;
  const found = await onOwner(watch, key, (index) => {
    from = index;
    return actor.ask(() => shards[index]?.rows.get(key)?.version ?? 0);
  });
  counts.reads++;
  if (found < least)
    violations.push(`read of ${key} from ${began} on shard ${from}: ${found}, acknowledged before ${least}`);
}

function refusal(epoch: number): UnavailableError {
  return new UnavailableError("SHARD_MOVED", "refused", { canRetry: true, cause: { detail: `epoch ${epoch}` } });
}

/** Changes the placement over and over, dies now and then, and sometimes comes back to life in the middle of its work. */
async function startMover(world: World): Promise<void> {
  const { time, random, shards, counts, violations, fault } = world;
  while (time.now() < runMs) {
    const actor = new Actor(time, random);
    await actor.sleep(1_500 * random.next());
    world.epoch += 2;
    const goal = randomPlacement(random, { strategy: "hash", shards: shards.length, epoch: world.epoch });
    const step = async <R>(work: () => R): Promise<R> => {
      if (random.next() < 0.03) throw new Died();
      if (random.next() < 0.03) actor.frozenUntil = time.now() + 4_000 * random.next();
      return actor.ask(work);
    };
    const isInForce = (shard: World["shards"][number], term: number) =>
      fault === "no fence of movers" || shard.term === term;
    try {
      await converge({
        goal,
        shards: shards.map(
          (shard): OwnedShard => ({
            fence: (term) =>
              step(() => {
                if (shard.term > term) return false;
                shard.term = term;
                return true;
              }),
            read: () => step(() => shard.record),
            async set(claim, term) {
              const isSet = await step(() => {
                if (!isInForce(shard, term)) return false;
                shard.record = claim;
                return true;
              });
              // As `bringGuard` does: from the record of that moment.
              if (isSet) await step(() => setGuard(world, shard));
              return isSet;
            },
          }),
        ),
        waitForLeases: () => (fault === "no wait for leases" ? Promise.resolve() : actor.sleep(leaseMs * 1.01)),
        moveRows: () => step(() => moveRows(world, goal)),
      });
      counts.changes++;
    } catch (error) {
      const isOvertaken = (error as { code?: unknown }).code === "PLACEMENT_OVERTAKEN";
      if (!(error instanceof Died) && !isOvertaken) violations.push(`mover: ${String(error)}`);
    }
  }
}

function setGuard(world: World, shard: World["shards"][number]): void {
  shard.guard = shard.record;
  for (const key of world.keys) {
    const owners = world.shards.flatMap((each, index) => (owns(each.guard.ownership, key) ? [index] : []));
    if (owners.length > 1) world.violations.push(`${key} has two owners at ${world.time.now()}`);
    if (owners.length === 1) world.lastOwner.set(key, owners[0] as number);
  }
}

/** Copies what nobody owns to who will, if no other change has begun; the old rows stay where they were. */
function moveRows(world: World, goal: Placement): void {
  if (world.shards.some(({ term }) => term !== goal.epoch) && world.fault !== "no fence of movers") throw new Died();
  for (const key of world.keys) {
    if (world.shards.some(({ guard }) => owns(guard.ownership, key))) continue;
    const row = world.shards[world.lastOwner.get(key) as number]?.rows.get(key);
    if (row !== undefined) world.shards[shardOf(goal, key)]?.rows.set(key, row);
  }
}
