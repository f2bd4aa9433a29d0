/**
 * Ownership as an SQL condition on a key column, built of constants: what the guard's triggers evaluate for each row.
 *
 * - *by hash*: PostgreSQL's own hash of the key, the same that `postgres-hash.ts` computes. Few runs of buckets are compared,
 *   many are one bit string, so that the hash is computed once.
 * - *by range*: UUIDs are compared as UUIDs with the first one at or above each split point; text under collation "C".
 *
 * On `uuid` columns both forms use immutable built-ins only, as the row filter of a publication has to.
 */
import { ConfigError } from "../../kernel/errors.ts";
import type { BucketRun, KeyRange, Ownership } from "./ownership.ts";
import { bucketCount } from "./placement.ts";

/** Types of key columns, as `pg_type.typname` has them. */
export type KeyType = "uuid" | "text" | "varchar" | "int2" | "int4" | "int8";

const keyTypes: readonly string[] = ["uuid", "text", "varchar", "int2", "int4", "int8"];

/** Raises `CONFIG_INVALID` for a column that cannot hold a shard key. */
export function keyTypeOf(type: string, table: string, column: string): KeyType {
  if (keyTypes.includes(type)) return type as KeyType;
  throw new ConfigError(
    "CONFIG_INVALID",
    `Table "${table}" is sharded by "${column}" of type ${type}. Shard keys are ${keyTypes.join(", ")}: change the column's type.`,
  );
}

/** More runs than this are tested by one look into a bit string. */
const comparedRunsMax = 4;

/** The condition that a row belongs to the owner. `column` is SQL, e.g. `new."user_id"`. */
export function ownershipSql(ownership: Ownership, column: string, type: KeyType): string {
  return ownership.strategy === "hash"
    ? bucketsSql(ownership.buckets, `(${hashSql(column, type)} & ${big(bucketCount - 1)})`)
    : rangesSql(ownership.ranges, column, type);
}

const uuidPattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

/** Whether a text is a UUID. The length comes first: it is all that most other keys cost. */
const looksLikeUuid = (column: string) => `octet_length(${column}) = 36 and ${column} ~ '${uuidPattern}'`;

/** The 64-bit hash of the key: of a UUID by its bytes though the column be text, of anything else by its text. */
export function hashSql(column: string, type: KeyType): string {
  const seed = big(0);
  if (type === "uuid") return `uuid_hash_extended(${column}, ${seed})`;
  if (type.startsWith("int")) return `hashtextextended(${column}::text collate "C", ${seed})`;
  return (
    `case when ${looksLikeUuid(column)} then uuid_hash_extended(${column}::text::uuid, ${seed}) ` +
    `else hashtextextended(${column}::text collate "C", ${seed}) end`
  );
}

/** A constant of the hash's own type. A plain number would be one with a cast around it, to be read and folded at each use. */
const big = (value: number) => `'${value}'::bigint`;

function bucketsSql(runs: readonly BucketRun[], bucket: string): string {
  if (runs.length === 0) return "false";
  if (runs.length <= comparedRunsMax) {
    const conditions = runs.map(({ from, to }) => {
      if (from === 0) return to === bucketCount ? "true" : `${bucket} < ${big(to)}`;
      return to === bucketCount ? `${bucket} >= ${big(from)}` : `${bucket} between ${big(from)} and ${big(to - 1)}`;
    });
    return `(${conditions.join(" or ")})`;
  }
  const bits = Buffer.alloc(bucketCount / 8);
  for (const { from, to } of runs) {
    // Bit n of a bytea is bit n % 8 of byte n / 8, from the lowest on (PostgreSQL manual, 9.5).
    for (let bit = from; bit < to; bit++) bits[bit >> 3] = (bits[bit >> 3] as number) | (1 << (bit & 7));
  }
  return `get_bit('\\x${bits.toString("hex")}'::bytea, ${bucket}) = 1`;
}

function rangesSql(ranges: readonly KeyRange[], column: string, type: KeyType): string {
  const conditions = ranges.map((range) =>
    type === "uuid" ? uuidRange(range, column) : textRange(range, column, type),
  );
  return conditions.length === 0 ? "false" : `(${conditions.join(" or ")})`;
}

function textRange({ from, to }: KeyRange, column: string, type: KeyType): string {
  const text = `${column}::text collate "C"`;
  const key = type.startsWith("int")
    ? text
    : `(case when ${looksLikeUuid(column)} then lower(${text}) else ${text} end)`;
  return bounded([
    ...(from === undefined ? [] : [`${key} >= ${literal(from)}`]),
    ...(to === undefined ? [] : [`${key} < ${literal(to)}`]),
  ]);
}

function uuidRange({ from, to }: KeyRange, column: string): string {
  const [first, end] = [from, to].map((bound) => (bound === undefined ? undefined : firstUuidFrom(bound)));
  // Above every UUID: nothing is at or over it, all are below.
  if (from !== undefined && first === undefined) return "false";
  return bounded([
    ...(first === undefined ? [] : [`${column} >= '${first}'::uuid`]),
    ...(end === undefined ? [] : [`${column} < '${end}'::uuid`]),
  ]);
}

const bounded = (conditions: readonly string[]) => (conditions.length === 0 ? "true" : `(${conditions.join(" and ")})`);

/** A string constant, whatever `standard_conforming_strings` says. */
function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''").replaceAll("\\", "\\\\")}'`;
  return text.includes("\\") ? `E${quoted}` : quoted;
}

const hexDigits = "0123456789abcdef";
const shape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

/** The first UUID whose text is at or above the bound, byte by byte; undefined when there is none. */
export function firstUuidFrom(bound: string): string | undefined {
  const wanted = Buffer.from(bound);
  let same = "";
  for (; same.length < shape.length; same += String.fromCharCode(wanted[same.length] as number)) {
    const at = same.length;
    const byte = wanted[at];
    if (byte === undefined) return filled(same);
    const letters = shape[at] === "-" ? "-" : hexDigits;
    const next = [...letters].find((letter) => letter.charCodeAt(0) >= byte);
    if (next === undefined) return successor(same);
    if (next.charCodeAt(0) > byte) return filled(same + next);
  }
  return wanted.length === shape.length ? same : successor(same);
}

/** The first UUID after all that begin with the text. */
function successor(text: string): string | undefined {
  for (let at = text.length - 1; at >= 0; at--) {
    if (text[at] === "-" || text[at] === "f") continue;
    return filled(text.slice(0, at) + hexDigits[hexDigits.indexOf(text[at] as string) + 1]);
  }
  return undefined;
}

function filled(text: string): string {
  return text + shape.slice(text.length).replaceAll("x", "0");
}
