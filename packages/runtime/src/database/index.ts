/** The database tier: sharded PostgreSQL behind one port. */
export type {
  Database,
  Effects,
  KeysOptions,
  MergeOptions,
  MessageWriter,
  MissingShard,
  PartialOptions,
  PartialRows,
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
export {
  afterCursor,
  type CursorValue,
  nextPageCursor,
  type PageOrder,
  pageCursor,
  readPageCursor,
} from "./page-cursor.ts";
export type { FollowerState, FollowerStats } from "./replication/follower.ts";
export {
  decodePosition,
  encodePosition,
  isAfter,
  laterOf,
  noPositions,
  type Position,
  type Positions,
} from "./replication/position.ts";
export { inReadContext, onLeaders, type PositionSource, ReadContext, readContext } from "./replication/read-context.ts";
export { type ReplicatedShard, type ReplicationSettings, replicatedShard } from "./replication/replicated-shard.ts";
export { type LeaderReason, leaderReasons, type ReplicationStats } from "./replication/replication-stats.ts";
export { createHistoryFunction } from "./replication/timeline-history.ts";
export { type ShardedDatabaseOptions, shardedDatabase } from "./sharded-database.ts";
export { type ChangePlacementOptions, changePlacement } from "./sharding/change-placement.ts";
export { type Directory, type DirectoryReference, directory, directoryMigrations } from "./sharding/directory.ts";
export { type Ownership, ownershipOf, owns } from "./sharding/ownership.ts";
export { bucketCount, bucketOf, initialPlacement, type Placement, shardOf } from "./sharding/placement.ts";
export {
  type Lease,
  leaseMsDefault,
  leaseMsReplicated,
  PlacementLeases,
  type ShardClaim,
} from "./sharding/placement-lease.ts";
export {
  joinShard,
  openPlacement,
  placementMigrations,
  readPlacement,
  verifyPlacement,
} from "./sharding/placement-record.ts";
export { type PlacementSource, PlacementWatch, type ShardStanding } from "./sharding/placement-watch.ts";
export { ReferenceCopier } from "./sharding/reference-tables.ts";
export { bringGuard } from "./sharding/shard-guard.ts";
export { readRecord, type ShardRecord } from "./sharding/shard-record.ts";
export { type Statement, type StatementParameters, statements } from "./statement.ts";
export { type TableDeclaration, type TableRegistry, tableRegistry } from "./table-registry.ts";
