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
import { openShards, startTestPostgres, type TestPostgres } from "./support.ts";

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
});
