/** What every part of the database contract uses: tables, statements on them, and a database over the servers under test. */
import { type Generated, sql } from "kysely";
import { systemClock } from "rungs";
import {
  type Database,
  initialPlacement,
  ownershipOf,
  type Placement,
  PlacementLeases,
  PlacementWatch,
  type ShardConnection,
  shardedDatabase,
  statements,
  tableRegistry,
} from "rungs/database";
import { afterAll, beforeAll, beforeEach, expect } from "vitest";

/** Items of owners, and names that are unique over all. */
export interface Tables {
  items: { owner_id: string; item_id: number; label: string; rank: Generated<number | null>; at: Date };
  names: { name: string; owner_id: string };
}

const define = statements<Tables>();
export const itemsOf = define<{ ownerId: string }>()("contract_items_of", (q, p) =>
  q.selectFrom("items").select(["item_id", "label"]).where("owner_id", "=", p.ownerId).orderBy("item_id"),
);
export const addItem = define<{ ownerId: string; itemId: number; label: string }>()("contract_add_item", (q, p) =>
  q
    .insertInto("items")
    .values({ owner_id: p.ownerId, item_id: p.itemId, label: p.label, at: new Date(0) })
    .returning("item_id"),
);
export const newest = define<{ limit: number; offset: number }>()("contract_newest", (q, p) =>
  q
    .selectFrom("items")
    .select(["owner_id", "item_id", "at"])
    .orderBy("at", "desc")
    .orderBy("item_id", "desc")
    .limit(p.limit)
    .offset(p.offset),
);

export const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
export const owners = Array.from({ length: 24 }, (_, index) => ownerAt(index));

/** What is tested. */
export interface DatabaseContractOptions {
  readonly name: string;
  readonly shards: number;
  /** Find each key's shard by what the shards claim, as an app does; default by a placement that never changes. */
  readonly isRouted?: boolean;
  /** Connections to empty databases, one a shard; they are closed by the suite. */
  open(): Promise<ShardConnection[]>;
}

/** The database under test, empty before each test. */
export interface DatabaseHarness {
  readonly db: Database<Tables>;
  readonly shards: readonly ShardConnection[];
  readonly placement: Placement;
  /** Tags, by invalidation, since the test began. */
  readonly invalidated: string[][];
  /** Waited for by each invalidation; default nothing. */
  whenInvalidating: () => Promise<void>;
  add(ownerId: string, itemId: number, at?: Date): Promise<unknown>;
}

/** Opens it before the tests of the suite that calls this, and closes it after them. */
export function databaseHarness(options: DatabaseContractOptions): DatabaseHarness {
  const invalidated: string[][] = [];
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  let whenInvalidating: () => Promise<void>;
  const placement = initialPlacement({ strategy: "hash", shards: options.shards });
  let shards: ShardConnection[];
  let db: Database<Tables>;

  beforeAll(async () => {
    process.on("unhandledRejection", note);
    shards = await options.open();
    for (const shard of shards) {
      await sql`create table items (owner_id uuid, item_id int, label text not null, rank int, at timestamptz not null, primary key (owner_id, item_id))`.execute(
        shard.kysely,
      );
    }
    await sql`create table names (name text primary key, owner_id uuid not null)`.execute(
      (shards[0] as ShardConnection).kysely,
    );
    const source = new PlacementWatch({
      leases: new PlacementLeases({ placement, clock: systemClock }),
      ...{ clock: systemClock, log: { debug() {}, info() {}, warn() {}, error() {} } },
      read: async (shard) => ({ epoch: 1, ownership: ownershipOf(placement, shard) }),
    });
    await source.refresh();
    db = shardedDatabase<Tables>({
      shards: shards as [ShardConnection, ...ShardConnection[]],
      placement,
      ...(options.isRouted === true ? { source } : {}),
      tables: tableRegistry([{ name: "contract", tables: { items: { shardBy: "owner_id" }, names: { home: true } } }]),
      checkKeys: true,
      onInvalidate: async (tags) => {
        await whenInvalidating();
        invalidated.push([...tags]);
      },
    });
  });
  afterAll(async () => {
    const busy = db.poolStats().filter(({ total, idle, waiting }) => total !== idle || waiting !== 0);
    await db.close();
    process.off("unhandledRejection", note);
    expect({ busy, unhandled }).toEqual({ busy: [], unhandled: [] });
  });
  beforeEach(async () => {
    invalidated.length = 0;
    whenInvalidating = async () => {};
    for (const shard of shards) await sql`truncate items`.execute(shard.kysely);
    await db.home.deleteFrom("names").execute();
  });

  const add = (ownerId: string, itemId: number, at = new Date(0)) =>
    db.for(ownerId).insertInto("items").values({ owner_id: ownerId, item_id: itemId, label: "l", at }).execute();

  return {
    get db() {
      return db;
    },
    get shards() {
      return shards;
    },
    placement,
    invalidated,
    get whenInvalidating() {
      return whenInvalidating;
    },
    set whenInvalidating(work) {
      whenInvalidating = work;
    },
    add,
  };
}
