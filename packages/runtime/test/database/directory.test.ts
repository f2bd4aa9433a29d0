/**
 * Names unique over shards, on a real server: whoever dies where, an acknowledged name leads to its owner's row and to no
 * other, a name that nobody bears can be had again, and one that somebody bears cannot be taken.
 */
import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Database,
  type Directory,
  type DirectoryReference,
  directory,
  directoryMigrations,
  initialPlacement,
  migrate,
  type ShardConnection,
  shardedDatabase,
  tableRegistry,
} from "../../src/database/index.ts";
import { openShards, startTestPostgres, type TestPostgres, testSeed } from "./support.ts";

interface Tables {
  bearers: { owner_id: string; name: string };
}

const reservationMs = 60;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const referenceAt = (index: number): DirectoryReference => {
  const id = `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
  return { key: id, id };
};

describe("the directory", () => {
  let server: TestPostgres;
  let shards: ShardConnection[];
  let db: Database<Tables>;
  let space = 0;
  let next = 1;

  beforeAll(async () => {
    server = await startTestPostgres();
    shards = await openShards(server, 2);
    const [home] = shards as [ShardConnection];
    await migrate({
      db: home.kysely,
      name: "home",
      service: "rungs_directory",
      target: "home",
      migrations: directoryMigrations,
    });
    for (const shard of shards)
      await sql`create table bearers (owner_id uuid primary key, name text not null)`.execute(shard.kysely);
    db = shardedDatabase<Tables>({
      shards: shards as [ShardConnection, ...ShardConnection[]],
      placement: initialPlacement({ strategy: "hash", shards: 2 }),
      tables: tableRegistry([
        { name: "t", tables: { bearers: { shardBy: "owner_id" }, rungs_directory: { home: true } } },
      ]),
    });
  });
  afterAll(async () => {
    await db.close();
    await server.stop();
  });

  const open = (name = `space ${space}`) => directory({ home: db.home as never, space: name, reservationMs });
  const bears = (name: string) => async (holder: DirectoryReference) => (await bearerOf(holder)) === name;
  const bearerOf = async ({ key }: DirectoryReference) =>
    (await db.for(key).selectFrom("bearers").select("name").where("owner_id", "=", key).executeTakeFirst())?.name;
  const writeRow = ({ key }: DirectoryReference, name: string) =>
    db.for(key).insertInto("bearers").values({ owner_id: key, name }).execute();

  /** One caller's whole way to a name; dies after `diesAfter` steps. Gives whether it was acknowledged. */
  async function take(names: Directory, name: string, reference: DirectoryReference, diesAfter = 3): Promise<boolean> {
    try {
      await names.reserve(name, reference, bears(name));
      if (diesAfter === 1) return false;
      await writeRow(reference, name);
      if (diesAfter === 2) return false;
      await names.confirm(name, reference);
      return true;
    } catch (error) {
      if ((error as { code?: string }).code !== "NAME_TAKEN") throw error;
      await db.for(reference.key).deleteFrom("bearers").where("owner_id", "=", reference.key).execute();
      return false;
    }
  }

  it("gives a name to one of many who want it at once, and leads there from any process", async () => {
    space++;
    const callers = Array.from({ length: 10 }, () => referenceAt(next++));
    const taken = await Promise.all(callers.map((reference) => take(open(), "ann", reference)));
    expect(taken.filter(Boolean)).toHaveLength(1);
    const owner = callers[taken.indexOf(true)] as DirectoryReference;
    expect(await open().follow("ann", async (reference) => reference)).toEqual(owner);
    expect(await open().follow("nobody", async (reference) => reference)).toBeUndefined();
    expect(await open().follow("a\u0000b", async (reference) => reference)).toBeUndefined();
  });

  it("frees the name of a caller who died before its row, but only after the reservation", async () => {
    space++;
    const [dead, heir] = [referenceAt(next++), referenceAt(next++)];
    await take(open(), "ann", dead, 1);
    expect(await take(open(), "ann", heir)).toBe(false);
    await wait(reservationMs + 20);
    expect(await take(open(), "ann", heir)).toBe(true);
  });

  it("keeps the name of a caller who died after its row", async () => {
    space++;
    const [dead, thief] = [referenceAt(next++), referenceAt(next++)];
    await take(open(), "ann", dead, 2);
    await wait(reservationMs + 20);
    expect(await take(open(), "ann", thief)).toBe(false);
    expect(
      await open().follow("ann", async (reference) => ((await bearerOf(reference)) === "ann" ? reference : undefined)),
    ).toEqual(dead);
  });

  it("tells a caller who slept through its reservation that the name is gone", async () => {
    space++;
    const [sleeper, heir] = [referenceAt(next++), referenceAt(next++)];
    const names = open();
    await names.reserve("ann", sleeper, bears("ann"));
    await wait(reservationMs + 20);
    expect(await take(open(), "ann", heir)).toBe(true);
    await expect(names.confirm("ann", sleeper)).rejects.toMatchObject({ code: "NAME_TAKEN" });
  });

  it("follows a hint only as far as the row agrees, and asks again when it does not", async () => {
    space++;
    const [first, second] = [referenceAt(next++), referenceAt(next++)];
    const [here, elsewhere] = [open(), open()];
    await take(here, "ann", first);
    const find = (names: Directory) =>
      names.follow("ann", async (reference) => ((await bearerOf(reference)) === "ann" ? reference.id : undefined));
    expect(await find(here)).toBe(first.id);
    await db.for(first.key).deleteFrom("bearers").where("owner_id", "=", first.key).execute();
    await elsewhere.releaseAll(first);
    await take(elsewhere, "ann", second);
    expect(await find(here)).toBe(second.id);
  });

  it("does not rob a holder who confirms between a look and the taking", async () => {
    space++;
    const [holder, thief] = [referenceAt(next++), referenceAt(next++)];
    const names = open();
    await names.reserve("ann", holder, bears("ann"));
    await wait(reservationMs + 20);
    const robbery = open().reserve("ann", thief, async (other) => {
      const isAlive = await bears("ann")(other);
      await writeRow(holder, "ann");
      await names.confirm("ann", holder);
      return isAlive;
    });
    await expect(robbery).rejects.toMatchObject({ code: "NAME_TAKEN" });
    expect(await open().follow("ann", async (reference) => reference)).toEqual(holder);
  });

  it("trusts a hint for half the reservation at most, and one to a name not confirmed never", async () => {
    space++;
    const [first, second] = [referenceAt(next++), referenceAt(next++)];
    let nowMs = 0;
    const clock = { now: () => nowMs, monotonic: () => nowMs };
    const names = directory({ home: db.home as never, space: `space ${space}`, reservationMs: 1_000, clock });
    const moveTo = (reference: DirectoryReference, isConfirmed: boolean) =>
      sql`update rungs_directory set key = ${reference.key}, id = ${reference.id}, is_confirmed = ${isConfirmed}
        where space = ${`space ${space}`}`.execute(db.home);
    const find = () => names.follow("ann", async (reference) => reference);
    await names.reserve("ann", first, async () => false);
    expect(await find()).toEqual(first);
    await moveTo(second, true);
    expect(await find()).toEqual(second);
    await moveTo(first, true);
    nowMs = 499;
    expect(await find()).toEqual(second);
    nowMs = 500;
    expect(await find()).toEqual(first);
  });

  const history = fc.array(
    fc.record({
      name: fc.constantFrom("ann", "bob"),
      diesAfter: fc.constantFrom(1, 2, 3),
      pauseMs: fc.constantFrom(0, 0, reservationMs + 20),
    }),
    { minLength: 2, maxLength: 6 },
  );

  /** Runs a history of callers, some at once, some of whom die; then checks that no name is acknowledged twice. */
  async function play(
    steps: readonly { name: string; diesAfter: number; pauseMs: number }[],
    openOne: () => Directory,
  ): Promise<void> {
    space++;
    const acknowledged = new Map<string, DirectoryReference[]>();
    const running: Promise<void>[] = [];
    for (const { name, diesAfter, pauseMs } of steps) {
      if (pauseMs > 0) await wait(pauseMs);
      const reference = referenceAt(next++);
      running.push(
        take(openOne(), name, reference, diesAfter).then((isMine) => {
          if (isMine) acknowledged.set(name, [...(acknowledged.get(name) ?? []), reference]);
        }),
      );
    }
    await Promise.all(running);
    for (const [name, owners] of acknowledged) {
      expect(owners).toHaveLength(1);
      expect(await open().follow(name, async (reference) => reference)).toEqual(owners[0]);
    }
  }

  it("never acknowledges a name twice, in any history of crashes (property)", { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(history, (steps) => play(steps, open)),
      { numRuns: 40 },
    );
  });

  it("would be found wrong if reserving did not look (planted fault)", { timeout: 60_000 }, async () => {
    const careless = (): Directory => ({ ...open(), reserve: async () => {}, confirm: async () => {} });
    const { failed } = await fc.check(
      fc.asyncProperty(history, (steps) => play(steps, careless)),
      { numRuns: 40, endOnFailure: true },
    );
    expect(failed).toBe(true);
  });

  /** How one caller of a simulated run behaves. */
  interface Plan {
    readonly name: string;
    /** Dies after this many of its steps; none: lives. */
    readonly diesAfter: number;
    /** Whether it takes every reservation for run out: the clock at its most hostile, without waiting. */
    readonly isImpatient: boolean;
    /** Gives the name up again once it has it. */
    readonly releases: boolean;
  }

  const plan = fc.record<Plan>({
    // Mostly one name: two callers who want different ones have nothing to fight over.
    name: fc.constantFrom("ann", "ann", "ann", "bob"),
    diesAfter: fc.constantFrom(99, 99, 1, 2, 3, 4, 5),
    isImpatient: fc.boolean(),
    releases: fc.boolean(),
  });
  const run = fc.record({
    plans: fc.array(plan, { minLength: 2, maxLength: 3 }),
    schedule: fc.array(fc.nat(3), { minLength: 24, maxLength: 24 }),
  });

  /** Found by this simulation, twice: a hint to the pending holder was kept after a thief took and confirmed the name. */
  const hintToLoser = {
    plans: [
      { name: "bob", diesAfter: 99, isImpatient: true, releases: false },
      { name: "bob", diesAfter: 3, isImpatient: false, releases: false },
    ],
    schedule: [1, 0, 0, 1, ...new Array<number>(20).fill(0)],
  };

  /** Found by this simulation: a thief looked before the holder's row was there, and took the name after its confirmation. */
  const robbedAtConfirmation = {
    plans: [
      { name: "bob", diesAfter: 99, isImpatient: true, releases: false },
      { name: "bob", diesAfter: 99, isImpatient: false, releases: false },
    ],
    schedule: [1, 0, 0, 1, ...new Array<number>(20).fill(0)],
  };

  class Died extends Error {}

  /** Runs the callers one step at a time in the order of `schedule`, checking the invariants after each step. */
  async function simulate(
    { plans, schedule }: typeof run extends fc.Arbitrary<infer R> ? R : never,
    flaw: (names: Directory) => Directory = (names) => names,
  ) {
    space++;
    const name = `space ${space}`;
    const acknowledged = new Map<DirectoryReference, string>();
    const readers = [
      directory({ home: db.home as never, space: name }),
      directory({ home: db.home as never, space: name }),
    ];
    const callers = plans.map((each) => {
      const reference = referenceAt(next++);
      let go: (() => void) | undefined;
      let steps = 0;
      let arrived = () => {};
      const gate = async () => {
        if (steps++ === each.diesAfter) throw new Died();
        const opened = new Promise<void>((resolve) => {
          go = resolve;
        });
        arrived();
        await opened;
      };
      const names = flaw(
        directory({ home: db.home as never, space: name, reservationMs: each.isImpatient ? 0 : 3_600_000 }),
      );
      const live = async () => {
        await gate();
        try {
          await names.reserve(each.name, reference, async (holder) => {
            await gate();
            const isAlive = await bears(each.name)(holder);
            await gate();
            return isAlive;
          });
          await gate();
          await writeRow(reference, each.name);
          await gate();
          await names.confirm(each.name, reference);
        } catch (error) {
          if ((error as { code?: string }).code !== "NAME_TAKEN") throw error;
          await gate();
          await db.for(reference.key).deleteFrom("bearers").where("owner_id", "=", reference.key).execute();
          return;
        }
        acknowledged.set(reference, each.name);
        if (!each.releases) return;
        await gate();
        acknowledged.delete(reference);
        await db.for(reference.key).deleteFrom("bearers").where("owner_id", "=", reference.key).execute();
        await gate();
        await names.release(each.name, reference);
      };
      let isDone = false;
      const atGate = () =>
        new Promise<void>((resolve) => {
          arrived = resolve;
        });
      let reached = atGate();
      const life = live()
        .catch((error: unknown) => {
          if (!(error instanceof Died)) throw error;
        })
        .finally(() => {
          isDone = true;
        });
      return {
        isDone: () => isDone,
        async start() {
          await Promise.race([reached, life]);
        },
        async step() {
          reached = atGate();
          go?.();
          await Promise.race([reached, life]);
        },
      };
    });
    for (const caller of callers) await caller.start();
    for (let turn = 0; ; turn++) {
      const waiting = callers.filter((caller) => !caller.isDone());
      if (waiting.length === 0) break;
      expect(turn).toBeLessThan(100);
      await waiting[(schedule[turn % schedule.length] ?? 0) % waiting.length]?.step();
      await checkNames(acknowledged, readers);
    }
  }

  /** One owner a name, and every reader, whatever it remembers, is led to that owner's row and to no row of another name. */
  async function checkNames(acknowledged: ReadonlyMap<DirectoryReference, string>, readers: readonly Directory[]) {
    for (const name of ["ann", "bob"]) {
      const owners = [...acknowledged].filter(([, owned]) => owned === name).map(([reference]) => reference);
      expect(owners.length).toBeLessThanOrEqual(1);
      const [reader = readers[0], other] = readers;
      for (const each of [reader, other]) {
        const found = await each?.follow(name, async (reference) =>
          (await bearerOf(reference)) === name ? reference : undefined,
        );
        if (owners[0] !== undefined) expect(found).toEqual(owners[0]);
        if (found !== undefined) expect(await bearerOf(found)).toBe(name);
      }
    }
  }

  it("keeps its invariants in any order of steps and deaths (simulation)", { timeout: 90_000 }, async () => {
    const seed = testSeed("directory simulation");
    await fc.assert(
      fc.asyncProperty(run, (each) => simulate(each)),
      { numRuns: 300, seed, examples: [[robbedAtConfirmation], [hintToLoser]] },
    );
  });

  it.each([
    ["confirming did not look", (names: Directory): Directory => ({ ...names, confirm: async () => {} })],
    [
      "the holder's row were not looked for",
      (names: Directory): Directory => ({
        ...names,
        reserve: (name, reference) => names.reserve(name, reference, async () => false),
      }),
    ],
  ])("would be found wrong by the simulation if %s (planted fault)", { timeout: 90_000 }, async (_what, flaw) => {
    const { failed, counterexample } = await fc.check(
      fc.asyncProperty(run, (each) => simulate(each, flaw)),
      { numRuns: 300, endOnFailure: true, seed: 7 },
    );
    expect({ failed, hasExample: counterexample !== null }).toEqual({ failed: true, hasExample: true });
  });
});
