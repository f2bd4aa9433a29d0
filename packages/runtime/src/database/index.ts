/** The database tier: sharded PostgreSQL behind one port. */
export type {
  Database,
  Effects,
  MergeOptions,
  MessageWriter,
  PoolStats,
  Queries,
  Shard,
  ShardConnection,
  ShardTransaction,
  ShardWindow,
  TransactionOptions,
} from "./database.ts";
export {
  defineMigration,
  loadMigrations,
  type Migration,
  type MigrationStep,
  migrate,
  type NamedMigration,
} from "./migrate.ts";
export { type ShardedDatabaseOptions, shardedDatabase } from "./sharded-database.ts";
export { type Directory, type DirectoryReference, directory, directoryMigrations } from "./sharding/directory.ts";
export { bucketCount, bucketOf, initialPlacement, type Placement, shardOf } from "./sharding/placement.ts";
export { openPlacement, placementMigrations, verifyPlacement } from "./sharding/placement-record.ts";
export { type Statement, type StatementParameters, statements } from "./statement.ts";
export { type TableDeclaration, type TableRegistry, tableRegistry } from "./table-registry.ts";
