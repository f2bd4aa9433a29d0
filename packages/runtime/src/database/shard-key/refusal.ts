/** What the shard-key guard says: what is wrong with a query and how to write it. */
import { ConfigError } from "../../kernel/errors.ts";

/** A table that no service declares. */
export function undeclared(table: string): ConfigError {
  return new ConfigError(
    "TABLE_UNDECLARED",
    `Query names table "${table}", which no service declares. ` +
      `Add it to defineService(..., { tables: { ${table}: { shardBy: "..." } } }), or { home: true } for a small global table.`,
  );
}

/** A table of a service that has a database of its own. */
export function isElsewhere(table: string, service: string): ConfigError {
  return new ConfigError(
    "TABLE_ELSEWHERE",
    `Query names table "${table}" of the service "${service}", whose tables are in another database. ` +
      `Ask it by call(...), or keep here what its events carry.`,
  );
}

/** A home table asked for on a shard. */
export function isAtHome(table: string): ConfigError {
  return refusal(`Table "${table}" is a home table: use db.home instead of db.for(...) or db.everywhere(...).`);
}

/** A write to a shard's copy of a reference table. */
export function isReferenceCopy(table: string): ConfigError {
  return refusal(`Table "${table}" is a reference table: shards have copies of it. Write to it through db.home.`);
}

/** A sharded table asked for in the home database. */
export function isSharded(table: string, key: string): ConfigError {
  return refusal(`Table "${table}" is sharded by "${key}": use db.for(${key}).`);
}

/** A query for one key that does not name it. */
export function missingKey(table: string, alias: string, key: string): ConfigError {
  return refusal(
    `Query names the sharded table "${table}" without its shard key "${key}", so it could not run on one shard. ` +
      `Add .where("${alias}.${key}", "=", id), or join "${alias}.${key}" to a column that is tied so; ` +
      `to ask all shards use db.everywhere(...).`,
  );
}

/** A query for all shards that joins rows which may be on different ones. */
export function missingLink(source: string, key: string | undefined): ConfigError {
  const column = key === undefined ? "its shard key" : `"${source}.${key}"`;
  return refusal(
    `Query for every shard joins "${source}" to other sharded rows without its shard key, so rows on different shards would not meet. ` +
      `Set ${column} equal to the shard key of the others, or ask in two steps: db.everywhere(...), then db.byKey(...).`,
  );
}

/** An insert without the key, or with one that may be another shard's. */
export function missingInInsert(table: string, key: string): ConfigError {
  return refusal(
    `Insert into the sharded table "${table}" does not give its shard key "${key}" as a value or as a column that is tied to one. ` +
      `Add "${key}" to the values.`,
  );
}

/** An insert of the same rows into every shard. */
export function insertedEverywhere(table: string): ConfigError {
  return refusal(
    `Insert into the sharded table "${table}" through db.everywhere(...) would write the rows to every shard. Use db.for(...) or db.byKey(...).`,
  );
}

/** An update of the shard key. */
export function movedRow(table: string, key: string): ConfigError {
  return refusal(
    `Update sets "${key}", the shard key of table "${table}": the row would belong to another shard but stay where it is. ` +
      "Insert it under the new key and delete it under the old one.",
  );
}

/** A merge that reaches rows no source row was matched with. */
export function mergedBySource(table: string): ConfigError {
  return refusal(
    `Merge into the sharded table "${table}" by source would reach the rows of every key. Use db.for(...).deleteFrom.`,
  );
}

function refusal(message: string): ConfigError {
  return new ConfigError("SHARD_KEY_MISSING", message);
}
