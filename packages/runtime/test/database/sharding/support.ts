/** Guarded shards for the tests of sharding. */

import { openPostgres, type PostgresPoolOptions } from "../../../src/database/drivers/postgres.ts";
import {
  bringGuard,
  type Database,
  initialPlacement,
  migrate,
  openPlacement,
  type Placement,
  PlacementLeases,
  PlacementWatch,
  placementMigrations,
  readRecord,
  type ShardConnection,
  shardedDatabase,
  type TableRegistry,
  tableRegistry,
} from "../../../src/database/index.ts";
import { systemClock } from "../../../src/kernel/clock.ts";
import { silentLogger } from "../../../src/kernel/log.ts";
import type { Random } from "../../../src/kernel/random.ts";
import type { TestPostgres } from "../support.ts";

export interface Tables {
  items: { owner_id: string; item_id: number; label: string };
  notes: { name: string; body: string };
  counts: { number: string; value: number };
  tags: { tag: string; title: string };
}

export const tables: TableRegistry = tableRegistry([
  {
    name: "test",
    tables: {
      items: { shardBy: "owner_id" },
      notes: { shardBy: "name" },
      counts: { shardBy: "number" },
      tags: { reference: true },
    },
  },
]);

export const schema = `
  create table items (owner_id uuid, item_id int, label text not null default '', primary key (owner_id, item_id));
  create table notes (name text primary key, body text not null default '');
  create table counts (number bigint primary key, value int not null default 0);
  create table tags (tag text primary key, title text not null unique);`;

export interface Wanted {
  readonly strategy: "hash" | "range";
  readonly splits?: readonly string[];
}

/** Migrates databases and gives them an empty placement, without the guard. */
export async function placeShards(
  urls: readonly string[],
  wanted: Wanted,
  options: { readonly schema?: string; readonly pool?: PostgresPoolOptions } = {},
): Promise<{ shards: [ShardConnection, ...ShardConnection[]]; placement: Placement }> {
  const shards = urls.map(
    (url, index): ShardConnection =>
      openPostgres({ name: `shard ${index}`, address: { url }, pool: options.pool ?? {} }),
  ) as [ShardConnection, ...ShardConnection[]];
  for (const [index, { kysely: db, name }] of shards.entries()) {
    for (const target of index === 0 ? (["shards", "home"] as const) : (["shards"] as const)) {
      await migrate({ db, name, service: "rungs", target, migrations: placementMigrations });
    }
    await (shards[index] as ShardConnection).query(undefined, options.schema ?? schema, []);
  }
  return { shards, placement: await openPlacement(shards[0].kysely, shards, wanted) };
}

/** Guarded shards on databases of one server. */
export async function openGuarded(server: TestPostgres, count: number, wanted: Wanted = { strategy: "hash" }) {
  const urls: string[] = [];
  for (let index = 0; index < count; index++) urls.push(await server.createDatabase());
  const placed = await placeShards(urls, wanted);
  await guardAll(placed.shards);
  return { ...placed, urls };
}

/** Gives how many tables had to be changed on each shard. */
export function guardAll(shards: readonly ShardConnection[], registry = tables): Promise<number[]> {
  return Promise.all(shards.map((shard, index) => bringGuard(shard, { tables: registry, isHome: index === 0 })));
}

/** A database that asks the shards who owns what, as a process of an app does. */
export function routedDatabase(
  shards: readonly [ShardConnection, ...ShardConnection[]],
  placement: Placement,
  options: { readonly leaseMs?: number; readonly everyMs?: number; readonly deadlineMs?: number } = {},
): { db: Database<Tables>; watch: PlacementWatch; leases: PlacementLeases } {
  const { leaseMs = 10_000, everyMs = 1_000, deadlineMs = 10_000 } = options;
  const leases = new PlacementLeases({ placement, clock: systemClock, leaseMs });
  const watch = new PlacementWatch({
    ...{ leases, clock: systemClock, log: silentLogger, everyMs },
    async read(shard) {
      const record = await readRecord(shards[shard] as ShardConnection);
      return record?.ownership === undefined ? undefined : { epoch: record.epoch, ownership: record.ownership };
    },
  });
  const db = shardedDatabase<Tables>({ shards, placement, source: watch, tables, guard: false, deadlineMs });
  return { db, watch, leases };
}

/** All keys to one shard. */
export function allOn(placement: Placement, shard: number): Placement {
  return placement.strategy === "hash"
    ? { ...placement, shardOfBucket: placement.shardOfBucket.map(() => shard) }
    : { ...placement, shardOfRange: [...placement.splits, ""].map(() => shard) };
}

export function uuidFrom(random: Random): string {
  const hex = Buffer.from(random.bytes(16)).toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** A random placement of the strategy over the shards, with an epoch of its own. */
export function randomPlacement(random: Random, options: Wanted & { readonly shards: number; readonly epoch: number }) {
  const { strategy, splits = [], shards, epoch } = options;
  const any = () => Math.floor(random.next() * shards);
  const initial = initialPlacement({ strategy: "hash", shards });
  if (initial.strategy === "hash" && strategy === "hash") {
    // Runs of buckets, so that some ownerships have few and some many.
    const runs = 1 + Math.floor(random.next() * 40);
    const owners = Array.from({ length: runs }, any);
    return {
      ...initial,
      epoch,
      shardOfBucket: initial.shardOfBucket.map((_, at) => owners[Math.floor((at * runs) / 1024)] ?? 0),
    };
  }
  return { strategy: "range" as const, epoch, shards, splits, shardOfRange: [...splits, ""].map(any) };
}
