/** Which server of a shard answers a read. */
import type { Clock } from "../../kernel/clock.ts";
import type { Random } from "../../kernel/random.ts";
import type { Follower } from "./follower.ts";
import type { Position } from "./position.ts";
import { isAfter } from "./position.ts";
import type { PositionSource, ReadContext } from "./read-context.ts";
import type { LeaderReason, ReplicationCounters } from "./replication-stats.ts";

/** A follower that may answer, or why the leader does. */
export type Choice = { readonly follower: Follower } | { readonly reason: LeaderReason };

/** A follower known to be this far behind does not get there within the bounds of a wait. Looks at the leader are 250 ms apart. */
const hopelessMs = 1_000;
/** Between two looks for one reader: a log record takes about as long to arrive. */
const lookPauseMs = 2;

/** Chooses servers; holds the floor below which no read of this process may see. */
export class ReadRouter {
  floor: Position | undefined;
  /** While above 0 the leader answers all reads: somebody does not know yet how high the floor has to be. */
  holds = 0;
  private waiting = 0;
  private readonly shard: number;
  private readonly leader: PositionSource;
  private readonly followers: readonly Follower[];
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly counters: ReplicationCounters;
  private readonly limits: { readonly waitMsMax: number; readonly waitersMax: number };

  constructor(options: {
    readonly shard: number;
    readonly leader: PositionSource;
    readonly followers: readonly Follower[];
    readonly clock: Clock;
    readonly random: Random;
    readonly counters: ReplicationCounters;
    readonly limits: { readonly waitMsMax: number; readonly waitersMax: number };
  }) {
    this.shard = options.shard;
    this.leader = options.leader;
    this.followers = options.followers;
    this.clock = options.clock;
    this.random = options.random;
    this.counters = options.counters;
    this.limits = options.limits;
  }

  /** The choice, if it can be made without asking anyone. */
  choose(context: ReadContext): Choice | undefined {
    if (this.holds > 0) return { reason: "in-doubt" };
    if (context.needsLeader(this.shard)) return { reason: context.hasWritten(this.shard) ? "own-write" : "held" };
    const candidates = this.candidates(context);
    if (candidates === undefined) return { reason: "same-server" };
    const now = this.clock.monotonic();
    const demand = this.demandOf(context);
    const follower = this.pick(candidates, demand, now);
    if (follower !== undefined) return { follower };
    if (candidates.some((each) => this.isHopeful(each, demand, now))) return undefined;
    return { reason: reasonOf(candidates, demand) };
  }

  /** Looks at followers until one can answer, at most for `waitMsMax`. */
  async wait(context: ReadContext): Promise<Choice> {
    if (this.waiting >= this.limits.waitersMax) return { reason: "crowded" };
    this.waiting++;
    this.counters.waits++;
    const since = this.clock.monotonic();
    const until = Math.min(since + this.limits.waitMsMax, context.deadlineAt);
    try {
      for (;;) {
        const now = this.clock.monotonic();
        const choice = this.choose(context);
        if (choice !== undefined) return choice;
        if (now >= until) return { reason: "behind" };
        const demand = this.demandOf(context);
        const hopeful = this.candidates(context)?.filter((each) => this.isHopeful(each, demand, now)) ?? [];
        await withinMs(until - now, Promise.race(hopeful.map((each) => each.look())));
        if (this.choose(context) === undefined) await withinMs(Math.min(lookPauseMs, until - now), undefined);
      }
    } finally {
      this.waiting--;
      this.counters.waitedMs += this.clock.monotonic() - since;
    }
  }

  /** Another follower for a read under way; undefined: the leader. */
  another(context: ReadContext, not: Follower): Follower | undefined {
    if (this.holds > 0 || context.needsLeader(this.shard) || (context.readersOf(this.shard)?.length ?? 0) > 1)
      return undefined;
    const others = this.followers.filter((each) => each !== not);
    return this.pick(others, this.demandOf(context), this.clock.monotonic());
  }

  /** What a read has to see: what the unit of work needs and what this process has heard of. */
  private demandOf(context: ReadContext): Position | undefined {
    const required = context.requiredOf(this.shard);
    if (required === undefined) return this.floor;
    return this.floor !== undefined && isAfter(this.floor, required) ? this.floor : required;
  }

  /** All; the one that the unit read from before; or undefined when only the leader is sure to see no less than it saw. */
  private candidates(context: ReadContext): readonly Follower[] | undefined {
    const readers = context.readersOf(this.shard);
    if (readers === undefined) return this.followers;
    const [only] = readers;
    return readers.length > 1 || only?.server === this.leader ? undefined : [only?.server as Follower];
  }

  /** The better of two taken at random (Mitzenmacher, 2001): fewer reads under way and less lag. */
  private pick(candidates: readonly Follower[], demand: Position | undefined, now: number): Follower | undefined {
    const { length } = candidates;
    if (length === 1) return candidates[0]?.canAnswer(demand, now) ? candidates[0] : undefined;
    const first = Math.floor(this.random.next() * length);
    const other = Math.floor(this.random.next() * (length - 1));
    const a = candidates[first];
    const b = candidates[other >= first ? other + 1 : other];
    if (a?.canAnswer(demand, now)) return b?.canAnswer(demand, now) && costOf(b) < costOf(a) ? b : a;
    return b?.canAnswer(demand, now) ? b : candidates.find((each) => each.canAnswer(demand, now));
  }

  private isHopeful(follower: Follower, demand: Position | undefined, now: number): boolean {
    return follower.mayGetThere(demand, now) && (follower.isUnknown(now) || (follower.lagMs ?? 0) < hopelessMs);
  }
}

function costOf({ inFlight, lagMs = 0 }: Follower): number {
  return (inFlight + 1) * (1 + lagMs / 1_000);
}

function reasonOf(candidates: readonly Follower[], demand: Position | undefined): LeaderReason {
  const up = candidates.filter((each) => each.state === "up");
  if (up.length === 0) return candidates.some((each) => each.state === "lagging") ? "lagging" : "none-up";
  return up.every((each) => each.position?.timeline !== demand?.timeline) ? "timeline" : "behind";
}

/** Waits for the work, but no longer than that. */
async function withinMs(ms: number, work: Promise<unknown> | undefined): Promise<void> {
  if (ms <= 0) return;
  let timer: NodeJS.Timeout | undefined;
  const time = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await (work === undefined ? time : Promise.race([work, time]));
  clearTimeout(timer);
}
