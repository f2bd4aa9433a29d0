/** The idempotency tier: a repeated request has one effect and one answer. */
export { IdempotencyError, type IdempotencyErrorCode } from "./idempotency-error.ts";
export { fingerprintOf, idempotencyKeyLengthMax, readIdempotencyKey } from "./idempotency-key.ts";
export {
  type IdempotencyMigration,
  idempotencyMigrations,
  idempotencyMigrationsFor,
  type OwnerIdType,
  sweepIdempotencyKeys,
} from "./key-table.ts";
export { type IdempotencyTransaction, type KeyedAnswer, type KeyedRequest, once } from "./once.ts";
