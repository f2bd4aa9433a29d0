/**
 * The placement on record: the home database holds which shards there are and what they own; each shard holds its own
 * number. A start whose topology disagrees is refused, because rows would be looked for where they are not.
 */
import { type Kysely, sql } from "kysely";
import { ConfigError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import type { NamedMigration } from "../migrate.ts";
import { initialPlacement, type Placement } from "./placement.ts";

/** Tables of the record; run them as service "rungs" before {@link openPlacement}. */
export const placementMigrations: readonly NamedMigration[] = [
  {
    name: "0001_placement",
    home: {
      up: `
        create table rungs_placement (
          only_row boolean primary key default true check (only_row),
          cluster uuid not null default gen_random_uuid(),
          epoch bigint not null,
          placement jsonb not null
        )`,
      down: "drop table rungs_placement",
    },
    shards: {
      up: `
        create table rungs_shard (
          only_row boolean primary key default true check (only_row),
          cluster uuid not null,
          shard integer not null
        )`,
      down: "drop table rungs_shard",
    },
  },
];

/** What the topology asks for. */
export interface WantedPlacement {
  readonly strategy: "hash" | "range";
  readonly splits?: readonly string[];
}

/**
 * Reads the placement, writing the initial one into an empty system, and checks that every shard is who it should be.
 * Raises `CONFIG_INVALID` when the topology and the data disagree.
 */
export async function openPlacement(
  home: Kysely<unknown>,
  shards: readonly ShardConnection[],
  wanted: WantedPlacement,
): Promise<Placement> {
  const initial = initialPlacement({ ...wanted, shards: shards.length });
  await sql`
    insert into rungs_placement (epoch, placement) values (${initial.epoch}, ${JSON.stringify(initial)}::jsonb)
    on conflict do nothing`.execute(home);
  const record = await sql<{ cluster: string; placement: Placement }>`
    select cluster::text, placement from rungs_placement`.execute(home);
  const row = record.rows[0];
  if (row === undefined)
    throw new ConfigError("CONFIG_INVALID", "The home database lost its placement record, table rungs_placement.");
  refuseOtherShape(row.placement, shards.length, wanted);
  await Promise.all(shards.map((shard, index) => claimShard(shard, index, row.cluster)));
  return row.placement;
}

/**
 * As {@link openPlacement}, for tools that only look: writes nothing. Raises `CONFIG_INVALID` when the topology and the data
 * disagree, or when no app has been started on it yet.
 */
export async function verifyPlacement(
  home: Kysely<unknown>,
  shards: readonly ShardConnection[],
  wanted: WantedPlacement,
): Promise<void> {
  const table = await sql<{ isThere: boolean }>`
    select to_regclass('rungs_placement') is not null as "isThere"`.execute(home);
  const record =
    table.rows[0]?.isThere === true
      ? await sql<{ cluster: string; placement: Placement }>`
          select cluster::text, placement from rungs_placement`.execute(home)
      : { rows: [] };
  const row = record.rows[0];
  if (row === undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      "No app of Rungs has been started on this database yet: it has no placement record. Check its address, or start the app first.",
    );
  }
  refuseOtherShape(row.placement, shards.length, wanted);
  await Promise.all(shards.map((shard, index) => refuseOtherShard(shard, index, row.cluster)));
}

function refuseOtherShape(placement: Placement, shards: number, wanted: WantedPlacement): void {
  if (placement.shards === shards && placement.strategy === wanted.strategy) {
    refuseOtherSplits(placement, wanted.splits ?? []);
    return;
  }
  throw new ConfigError(
    "CONFIG_INVALID",
    `This data is placed on ${placement.shards} shard(s) by ${placement.strategy}, but the topology asks for ${shards} by ${wanted.strategy}. ` +
      `Rows would be looked for where they are not. Set database.shards back to ${placement.shards} (RUNGS_SHARDS=${placement.shards}), ` +
      "or use another data directory (RUNGS_DIR).",
  );
}

function refuseOtherSplits(placement: Placement, splits: readonly string[]): void {
  if (placement.strategy !== "range" || JSON.stringify(placement.splits) === JSON.stringify(splits)) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `This data is cut at ${JSON.stringify(placement.splits)}, but database.splits asks for ${JSON.stringify(splits)}. ` +
      "Rows would be looked for where they are not. Set database.splits back, or use another data directory (RUNGS_DIR).",
  );
}

async function claimShard(shard: ShardConnection, index: number, cluster: string): Promise<void> {
  await sql`insert into rungs_shard (cluster, shard) values (${cluster}::uuid, ${index}) on conflict do nothing`.execute(
    shard.kysely,
  );
  await refuseOtherShard(shard, index, cluster);
}

async function refuseOtherShard(shard: ShardConnection, index: number, cluster: string): Promise<void> {
  const found = await sql<{ cluster: string; shard: number }>`select cluster::text, shard from rungs_shard`.execute(
    shard.kysely,
  );
  const identity = found.rows[0];
  if (identity?.cluster === cluster && identity.shard === index) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    identity?.cluster === cluster
      ? `database.shards: place ${index} leads to shard ${identity.shard}. Put the addresses back in their order.`
      : `database.shards: place ${index} leads to a shard of another system. Check its address.`,
  );
}
