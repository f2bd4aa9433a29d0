/**
 * Migrations: each service brings an ordered list; each step runs once on every shard, or once in the home database.
 *
 * Kysely's Migrator does the work: one transaction a run, under an advisory lock, so concurrent starts are safe.
 * Each service has its own migration table, so services go forward and back on their own.
 */
import { readdir } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Kysely, sql } from "kysely";
import { type Migration as KyselyMigration, type MigrationResultSet, Migrator, NO_MIGRATIONS } from "kysely/migration";
import { ConfigError, RungsError } from "../kernel/errors.ts";

/** What one migration does to one database, as SQL text or as code. */
export type MigrationStep =
  | { readonly up: string; readonly down: string }
  | { readonly up: (db: Kysely<unknown>) => Promise<void>; readonly down: (db: Kysely<unknown>) => Promise<void> };

/** One migration: what it does to each shard, to the home database, or to both. */
export interface Migration {
  readonly shards?: MigrationStep;
  readonly home?: MigrationStep;
}

/** A migration with its name; names sort in the order they run, e.g. `0001_users`. */
export interface NamedMigration extends Migration {
  readonly name: string;
}

/** Typed identity for migration files. */
export function defineMigration(migration: Migration): Migration {
  return migration;
}

/** Which kind of database a migration runs on. */
export type MigrationTarget = "shards" | "home";

const migrationFile = /^(\d+[A-Za-z0-9_-]*)\.(ts|js|mjs)$/;

/**
 * Reads the migrations of a folder, given as a file URL: files like `0001_users.ts` whose default export is a
 * {@link Migration}. Raises `MIGRATION_FAILED` on a file without one.
 */
export async function loadMigrations(folder: string | URL): Promise<NamedMigration[]> {
  const path = fileURLToPath(folder);
  const files = (await readdir(path)).filter((file) => migrationFile.test(file)).sort();
  return Promise.all(
    files.map(async (file) => {
      const module = (await import(pathToFileURL(`${path}/${file}`).href)) as { readonly default?: Migration };
      if (module.default === undefined) {
        throw new ConfigError(
          "MIGRATION_FAILED",
          `Migration file ${file} has no default export; write: export default defineMigration({ ... }).`,
        );
      }
      return { ...module.default, name: migrationFile.exec(file)?.[1] ?? file };
    }),
  );
}

/** What to migrate on one database. */
export interface MigrateOptions {
  /** A connection without a statement timeout: an index build may take long. */
  readonly db: Kysely<unknown>;
  /** Name of the database for messages, e.g. "shard 0". */
  readonly name: string;
  readonly service: string;
  readonly target: MigrationTarget;
  readonly migrations: readonly NamedMigration[];
  /** Go forward or back to just after this migration; default: forward to the newest. "none" goes back to the start. */
  readonly to?: string;
}

/** Brings one service's tables on one database to the wanted version; gives the names of what ran. Raises `MIGRATION_FAILED`. */
export async function migrate(options: MigrateOptions): Promise<string[]> {
  const { db, service, target, migrations, to } = options;
  const steps: Record<string, KyselyMigration> = {};
  for (const migration of migrations) {
    const step = migration[target];
    if (step === undefined) continue;
    if (steps[migration.name] !== undefined) {
      throw new ConfigError(
        "MIGRATION_FAILED",
        `Service "${service}" has two migrations named "${migration.name}". Rename one.`,
      );
    }
    steps[migration.name] = runnable(step);
  }
  if (Object.keys(steps).length === 0) return [];
  const table = `rungs_migrations_${service}${target === "home" ? "_home" : ""}`;
  // PostgreSQL cuts longer names off: two services could then share a table.
  if (Buffer.byteLength(`${table}_lock`) > 63) {
    throw new ConfigError(
      "MIGRATION_FAILED",
      `Service name "${service}" is too long for its migration table. Use at most 36 bytes.`,
    );
  }
  const migrator = new Migrator({
    db,
    provider: { getMigrations: async () => steps },
    migrationTableName: table,
    migrationLockTableName: `${table}_lock`,
  });
  const outcome = await runMigrator(migrator, to);
  // A server that does not answer is no fault of the migration.
  if (outcome.error instanceof RungsError) throw outcome.error;
  if (outcome.error !== undefined) throw failure(options, outcome);
  return (outcome.results ?? []).map((result) => result.migrationName);
}

function runMigrator(migrator: Migrator, to: string | undefined): Promise<MigrationResultSet> {
  if (to === undefined) return migrator.migrateToLatest();
  return migrator.migrateTo(to === "none" ? NO_MIGRATIONS : to);
}

function runnable(step: MigrationStep): KyselyMigration {
  const run = (direction: "up" | "down") => async (db: Kysely<unknown>) => {
    const work = step[direction];
    if (typeof work === "string") await sql.raw(work).execute(db);
    else await work(db);
  };
  return { up: run("up"), down: run("down") };
}

function failure(options: MigrateOptions, outcome: MigrationResultSet): ConfigError {
  const failed = outcome.results?.find((result) => result.status === "Error")?.migrationName;
  const reason = outcome.error instanceof Error ? outcome.error.message : String(outcome.error);
  return new ConfigError(
    "MIGRATION_FAILED",
    `Migration ${failed === undefined ? "" : `"${failed}" `}of service "${options.service}" failed on ${options.name}: ${reason}. ` +
      "It was rolled back there; nothing was left half done. Mend it and start again.",
    { cause: outcome.error },
  );
}
