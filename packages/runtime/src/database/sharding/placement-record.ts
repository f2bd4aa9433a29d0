/**
 * The placement on record: the home database holds which shards there are and what they own; each shard holds its own
 * number and what it owns itself. A start whose topology disagrees is refused, because rows would be looked for where they are
 * not.
 */
import { type Kysely, sql } from "kysely";
import { ConfigError, type UnavailableError } from "../../kernel/errors.ts";
import type { ShardConnection } from "../database.ts";
import type { NamedMigration } from "../migrate.ts";
import { ownershipOf } from "./ownership.ts";
import { initialPlacement, type Placement } from "./placement.ts";
import { giveOwnership } from "./shard-record.ts";

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
  {
    name: "0002_ownership",
    home: {
      up: `
        alter table rungs_placement add column next jsonb;
        create table rungs_reference_versions (table_name text primary key, version bigint not null);`,
      down: "drop table rungs_reference_versions; alter table rungs_placement drop column next;",
    },
    shards: {
      up: `
        alter table rungs_shard add column epoch bigint not null default 0, add column term bigint not null default 0,
          add column owned jsonb;
        create table rungs_reference_copies (table_name text primary key, version bigint not null);`,
      down: `
        drop table rungs_reference_copies;
        alter table rungs_shard drop column epoch, drop column term, drop column owned;`,
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
 *
 * Shards that are `down` are left out once the system has been started before, and {@link joinShard} has to be called when they
 * are back. At the first start their error is raised.
 */
export async function openPlacement(
  home: Kysely<unknown>,
  shards: readonly ShardConnection[],
  wanted: WantedPlacement,
  options: { readonly down?: ReadonlyMap<number, UnavailableError> } = {},
): Promise<Placement> {
  const { down = new Map<number, UnavailableError>() } = options;
  const initial = initialPlacement({ ...wanted, shards: shards.length });
  const written = await sql`
    insert into rungs_placement (epoch, placement) values (${initial.epoch}, ${JSON.stringify(initial)}::jsonb)
    on conflict do nothing returning epoch`.execute(home);
  const record = await sql<{ cluster: string; placement: Placement }>`
    select cluster::text, placement from rungs_placement`.execute(home);
  const row = record.rows[0];
  if (row === undefined)
    throw new ConfigError("CONFIG_INVALID", "The home database lost its placement record, table rungs_placement.");
  refuseOtherShape(row.placement, shards.length, wanted);
  const isFirstStart = written.rows.length > 0;
  const [failure] = down.values();
  if (isFirstStart && failure !== undefined) throw failure;
  await Promise.all(
    shards.map(async (shard, index) => {
      if (!down.has(index)) await joinShard(shard, index, { cluster: row.cluster, placement: row.placement });
    }),
  );
  return row.placement;
}

/**
 * Tells a shard its number and, the first time, what it owns. Raises `CONFIG_INVALID` when it has another number or belongs to
 * another system.
 */
export async function joinShard(
  shard: ShardConnection,
  index: number,
  { cluster, placement }: { readonly cluster: string; readonly placement: Placement },
): Promise<void> {
  await sql`insert into rungs_shard (cluster, shard) values (${cluster}::uuid, ${index}) on conflict do nothing`.execute(
    shard.kysely,
  );
  await refuseOtherShard(shard, index, cluster);
  await giveOwnership(shard, ownershipOf(placement, index), placement.epoch);
}

/** The placement on record with the id of its system; undefined where no app has been started. */
export async function readPlacement(
  home: Kysely<unknown>,
): Promise<{ readonly cluster: string; readonly placement: Placement } | undefined> {
  const { rows } = await sql<{ cluster: string; placement: Placement }>`
    select cluster::text, placement from rungs_placement`.execute(home);
  return rows[0];
}

/**
 * As {@link openPlacement}, for tools that only look: writes nothing. `up`: the shards that are there to be asked. Raises `CONFIG_INVALID` when the topology and the data
 * disagree, or when no app has been started on it yet.
 */
export async function verifyPlacement(
  home: Kysely<unknown>,
  shards: readonly ShardConnection[],
  wanted: WantedPlacement,
  up: readonly ShardConnection[] = shards,
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
  await Promise.all(up.map((shard) => refuseOtherShard(shard, shards.indexOf(shard), row.cluster)));
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
  if (placement.strategy !== "range") return;
  const first = placement.firstSplits ?? placement.splits;
  if (JSON.stringify(first) === JSON.stringify(splits)) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `This data is cut at ${JSON.stringify(first)}, but database.splits asks for ${JSON.stringify(splits)}. ` +
      "Rows would be looked for where they are not. Set database.splits back, or use another data directory (RUNGS_DIR).",
  );
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
