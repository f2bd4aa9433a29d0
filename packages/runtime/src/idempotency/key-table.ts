/** The table of idempotency keys, on each shard, and its sweep. */

/** A migration as the database tier takes it, and as text for everybody else. */
export interface IdempotencyMigration {
  readonly name: string;
  readonly shards: { readonly up: string; readonly down: string };
}

/** Types an owner's id may have. It should be that of the app's shard key, so that rows move with their owner. */
export type OwnerIdType = "uuid" | "text" | "bigint";

/** The table for owners with ids of that type. Run it as service "rungs_idempotency", or its SQL with any other tool. */
export function idempotencyMigrationsFor(ownerId: OwnerIdType): readonly IdempotencyMigration[] {
  return [
    {
      name: "0001_idempotency",
      shards: {
        up: `
          create table rungs_idempotency_keys (
            owner_id ${ownerId} not null,
            key text collate "C" not null check (length(key) between 1 and 255),
            phase text collate "C" not null default '',
            fingerprint text collate "C" not null,
            answer text,
            created_at timestamptz not null default now(),
            primary key (owner_id, key, phase)
          );
          create index rungs_idempotency_keys_by_age on rungs_idempotency_keys (created_at);`,
        down: "drop table rungs_idempotency_keys;",
      },
    },
  ];
}

/** The table for owners with UUIDs. */
export const idempotencyMigrations = idempotencyMigrationsFor("uuid");

/** What the sweep needs of a database: SQL with `$n` parameters. */
export interface SweptDatabase {
  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]>;
}

/** How long a key is kept at least: longer than any client repeats a request. Stripe's bound; see its API reference. */
export const keptMsDefault = 24 * 60 * 60 * 1_000;
const rowsPerStatement = 5_000;
const statementsMax = 200;

/**
 * Deletes keys older than `keptMs` (default 24 hours), in short transactions and at most a million in one call; gives how
 * many went. A repetition that comes later is a new request.
 */
export async function sweepIdempotencyKeys(database: SweptDatabase, keptMs: number = keptMsDefault): Promise<number> {
  let count = 0;
  for (let statement = 0; statement < statementsMax; statement++) {
    const gone = await database.query(undefined, sweepSql, [keptMs, rowsPerStatement]);
    count += gone.length;
    if (gone.length < rowsPerStatement) break;
  }
  return count;
}

/** Several sweeps at once skip each other's rows. */
const sweepSql = `
  delete from rungs_idempotency_keys where ctid in (
    select ctid from rungs_idempotency_keys where created_at < now() - $1::float8 * interval '1 ms'
    order by created_at limit $2::int for update skip locked)
  returning 1`;
