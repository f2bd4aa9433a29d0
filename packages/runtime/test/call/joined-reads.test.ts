/** The session guarantees over calls between processes; the servers read from are positions that tests set. */
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { joinedMarks, joinedReads } from "../../src/app/reads/joined-reads.ts";
import { CallStats, createCalls, createServedMethods, defineMethod, serve } from "../../src/call/index.ts";
import { encodePosition, inReadContext, ReadContext, readContext } from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import type { WriteMarks } from "../../src/session/index.ts";

/** A server that says how far it has got. */
class Server {
  lsn: bigint;
  constructor(lsn: bigint) {
    this.lsn = lsn;
  }
  positionNow = async () => ({ timeline: 1, lsn: this.lsn });
}

/** A bus of invalidations, as far as numbers go. */
class Bus implements WriteMarks {
  own = 0;
  heard = 0;
  readonly caughtUp: number[] = [];
  count = () => this.own;
  newest = () => this.heard;
  settled = async () => this.heard;
  catchUp = async (number: number) => {
    this.caughtUp.push(number);
    this.heard = Math.max(this.heard, number);
  };
}

const at = (lsn: bigint) => encodePosition({ timeline: 1, lsn });
/** What a read of the shard has to see in the context under way. */
const demand = (shard: number) => {
  const context = readContext();
  if (context === undefined) return "outside";
  if (context.needsLeader(shard)) return "leader";
  const required = context.requiredOf(shard);
  return required === undefined ? "any" : encodePosition(required);
};

describe("reads over calls", () => {
  const start = () => {
    const [callerBus, calleeBus] = [new Bus(), new Bus()];
    const callerMarks = joinedMarks(callerBus);
    const caller = joinedReads({ hasFollowers: true, marks: callerMarks, limitMs: 1_000 });
    const callee = joinedReads({ hasFollowers: true, marks: joinedMarks(calleeBus), limitMs: 1_000 });
    /** A call from this context, as its two processes would make it. */
    const call = async <R>(isSafe: boolean, work: () => R): Promise<R> => {
      const note = await caller.carry();
      const { result, note: back } = await inReadContext(undefined as never, () =>
        callee.serve({ note, isSafe }, async () => work()),
      );
      if (back !== undefined) await caller.merge(back);
      return result;
    };
    return { call, callerBus, calleeBus, callerMarks };
  };

  it("see what the caller has written, and what it has read", async () => {
    const { call } = start();
    const context = new ReadContext();
    await inReadContext(context, async () => {
      expect(await call(true, () => demand(0))).toBe("any");
      context.noteWrite(0, new Server(500n));
      context.noteRead(1, new Server(70n));
      expect(await call(true, () => [demand(0), demand(1), demand(2)])).toEqual([at(500n), at(70n), "any"]);
    });
  });

  it("of the caller see what the callee has written and read, afterwards", async () => {
    const { call } = start();
    const context = new ReadContext();
    await inReadContext(context, async () => {
      await call(false, () => readContext()?.noteWrite(3, new Server(900n)));
      await call(true, () => readContext()?.noteRead(4, new Server(40n)));
      expect([demand(3), demand(4)]).toEqual([at(900n), at(40n)]);
      // And with them the session: they are part of what the request settles.
      expect([...(await context.settle())].map(([shard, { lsn }]) => [shard, lsn])).toEqual([
        [3, 900n],
        [4, 40n],
      ]);
    });
  });

  it("are the newest in methods that change things, and where nobody knows what the caller has seen", async () => {
    const { call } = start();
    const context = new ReadContext();
    await inReadContext(context, async () => {
      expect(await call(false, () => demand(0))).toBe("leader");
      context.hold();
      expect(await call(true, () => demand(0))).toBe("leader");
    });
    expect(await call(true, () => demand(0))).toBe("leader");
  });

  it("are the newest when there are too many shards to tell of", async () => {
    const { call } = start();
    const context = new ReadContext();
    for (let shard = 0; shard < 200; shard++) context.noteRead(shard, new Server(1n));
    expect(await inReadContext(context, () => call(true, () => demand(0)))).toBe("leader");
  });

  it("come from caches that have heard what the caller had, and the other way round", async () => {
    const { call, callerBus, calleeBus, callerMarks } = start();
    callerBus.heard = 12;
    const context = new ReadContext();
    await inReadContext(context, async () => {
      await call(true, () => {
        calleeBus.heard = 14;
      });
      expect(calleeBus.caughtUp).toEqual([12]);
      expect(callerBus.caughtUp).toEqual([14]);
      // Nothing was changed, so no session has to be told.
      expect(callerMarks?.count()).toBe(0);
      await call(false, () => {
        calleeBus.own++;
        calleeBus.heard = 15;
      });
      expect(callerMarks?.count()).toBe(1);
      expect(await callerMarks?.settled()).toBe(15);
    });
  });

  it("are held to the newest within a process too, while a method that changes things runs", async () => {
    const reads = joinedReads({ hasFollowers: true, marks: undefined, limitMs: 1_000 });
    const context = new ReadContext();
    await inReadContext(context, async () => {
      expect(await reads.serveHere({ isSafe: false }, async () => demand(0))).toBe("leader");
      expect(await reads.serveHere({ isSafe: true }, async () => demand(0))).toBe("any");
      context.hold();
      await reads.serveHere({ isSafe: false }, async () => {});
      expect(demand(0)).toBe("leader");
    });
  });

  it("are held so by the methods of a process for calls from within it", async () => {
    const reads = joinedReads({ hasFollowers: true, marks: undefined, limitMs: 1_000 });
    const shape = { input: z.undefined(), output: z.string() };
    const [change, look] = [defineMethod("shop.change", shape), defineMethod("shop.look", { ...shape, isSafe: true })];
    const served = createServedMethods({
      methods: [serve(change, async () => demand(0)), serve(look, async () => demand(0))],
      ...{ reads, clock: systemClock, log: silentLogger, stats: new CallStats() },
    });
    const call = createCalls({ served, context: () => undefined, caller: "shop", stats: new CallStats(), reads });
    await inReadContext(new ReadContext(), async () => {
      expect([await call(change, undefined), await call(look, undefined)]).toEqual(["leader", "any"]);
    });
  });

  it("carry nothing where there are neither followers nor other caches", async () => {
    const reads = joinedReads({ hasFollowers: false, marks: undefined, limitMs: 1_000 });
    expect(await reads.carry()).toBeUndefined();
    expect(await reads.serve({ note: undefined, isSafe: false }, async () => demand(0))).toEqual({
      result: "outside",
      note: undefined,
    });
  });

  it("take a note that cannot be read for one that asks for the newest", async () => {
    const reads = joinedReads({ hasFollowers: true, marks: undefined, limitMs: 1_000 });
    for (const note of [undefined, "", "nonsense", "or1", "xr1;"]) {
      expect((await reads.serve({ note, isSafe: true }, async () => demand(0))).result).toBe("leader");
    }
  });
});
