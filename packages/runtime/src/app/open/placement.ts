/**
 * Who owns which keys, at a start and ever after: the placement is opened, each shard guarded, its claim renewed, reference
 * tables copied.
 *
 * A shard that is down takes only its own users down. Once a system has been started before, a start leaves out shards other than
 * the home database that cannot be reached: their users are answered 503, and as soon as such a shard is back it is migrated,
 * guarded and used. The home database has to be there: names and sessions are in it.
 */
import { openPostgres, type PostgresAddress } from "../../database/drivers/postgres.ts";
import {
  bringGuard,
  joinShard,
  leaseMsDefault,
  leaseMsReplicated,
  onLeaders,
  openPlacement,
  type Placement,
  PlacementLeases,
  PlacementWatch,
  ReferenceCopier,
  type ReplicatedShard,
  readPlacement,
  readRecord,
  type ShardConnection,
  type TableRegistry,
} from "../../database/index.ts";
import { systemClock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Topology } from "../../topology/index.ts";

export interface PlaceShardsOptions {
  readonly topology: Topology;
  /** Addresses of the leaders. */
  readonly addresses: readonly PostgresAddress[];
  readonly shards: readonly [ShardConnection, ...ShardConnection[]];
  /** Those with followers, by number. */
  readonly replicated: ReadonlyMap<number, ReplicatedShard>;
  readonly tables: TableRegistry;
  /** Brings the tables of one shard up to date. */
  readonly migrate: (shard: number) => Promise<void>;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}

/** The placement, and where there are several shards the source of what holds of it now. */
export interface PlacedShards {
  readonly placement: Placement;
  readonly source: PlacementWatch | undefined;
}

/** A server that does not answer a first question in this time is down; migrations wait longer for their locks. */
const probe = { connectionsMax: 1, acquireTimeoutMs: 3_000, statementTimeoutMs: 2_000 };

/** Migrates, places and guards the shards. `lifecycle` learns how to end what goes on. */
export async function placeShards(options: PlaceShardsOptions): Promise<PlacedShards> {
  const { topology, shards, tables, log, lifecycle } = options;
  const [home] = shards;
  const { strategy, splits } = topology.database;
  const down = await migrateAll(options);
  const placement = await openPlacement(home.kysely, shards, { strategy, splits }, { down });
  for (const [shard, error] of down) log.error({ shard, error }, "a shard is down; this process starts without it");
  if (shards.length === 1) return { placement, source: undefined };
  const up = shards.map((_, shard) => shard).filter((shard) => !down.has(shard));
  await Promise.all(up.map((shard) => bringGuard(shards[shard] as ShardConnection, { tables, isHome: shard === 0 })));
  const watch = watchShards(options, placement, [...down.keys()]);
  await watch.start();
  lifecycle.started("placement", () => watch.stop());
  const copier = new ReferenceCopier({ home, shards, tables, log });
  await copier.start();
  lifecycle.started("copies of reference tables", () => copier.stop());
  return { placement, source: watch };
}

/** Gives the shards that are down, with the error of each. Raises that of the home database. */
async function migrateAll({ addresses, shards, migrate }: PlaceShardsOptions): Promise<Map<number, UnavailableError>> {
  const down = new Map<number, UnavailableError>();
  await Promise.all(
    addresses.map(async (address, shard) => {
      try {
        if (shard > 0) await probeShard(address, shards[shard] as ShardConnection);
        await migrate(shard);
      } catch (error) {
        if (shard === 0 || !(error instanceof UnavailableError)) throw error;
        down.set(shard, error);
      }
    }),
  );
  return down;
}

async function probeShard(address: PostgresAddress, { name }: ShardConnection): Promise<void> {
  const connection = openPostgres({ name, address, pool: probe });
  try {
    await connection.query(undefined, "select 1", []);
  } finally {
    await connection.close();
  }
}

/** Each shard is asked over a connection of its own, to its leader. */
function watchShards(options: PlaceShardsOptions, placement: Placement, unprepared: readonly number[]): PlacementWatch {
  const { topology, addresses, shards, replicated, tables, log, lifecycle } = options;
  const { preparedStatements } = topology.database;
  const asking = addresses.map((address, shard) =>
    openPostgres({ name: (shards[shard] as ShardConnection).name, address, pool: { ...probe, preparedStatements } }),
  );
  lifecycle.started("questions about ownership", async () => {
    await Promise.all(asking.map((connection) => connection.close()));
  });
  const epochs = new Map<number, number>();
  return new PlacementWatch({
    leases: new PlacementLeases({
      ...{ placement, clock: systemClock },
      leaseMs: replicated.size > 0 ? leaseMsReplicated : leaseMsDefault,
    }),
    clock: systemClock,
    ...{ log, unprepared },
    async read(shard) {
      const record = await readRecord(asking[shard] as ShardConnection);
      if (record?.ownership === undefined) return undefined;
      const replicas = replicated.get(shard);
      if (replicas !== undefined && epochs.has(shard) && epochs.get(shard) !== record.epoch) {
        // A follower that has not replayed the rows that came with the keys must not answer for them.
        replicas.raiseFloor(await replicas.positionNow());
      }
      epochs.set(shard, record.epoch);
      return { epoch: record.epoch, ownership: record.ownership };
    },
    // Perhaps asked for by a request that may read from followers.
    prepare: (shard) =>
      onLeaders(async () => {
        const connection = shards[shard] as ShardConnection;
        await probeShard(addresses[shard] as PostgresAddress, connection);
        await options.migrate(shard);
        const found = await readPlacement(shards[0].kysely);
        if (found !== undefined) await joinShard(connection, shard, found);
        await bringGuard(connection, { tables, isHome: false });
        log.info({ shard }, "a shard that was down at the start is back");
      }),
  });
}
