/** Merging what the shards gave into the list that one shard would have given. */
import { ConfigError } from "../kernel/errors.ts";
import type { MergeOptions, ShardWindow } from "./database.ts";

/**
 * Merges ordered parts into one ordered list and cuts its window.
 *
 * Rows of one part keep their order, and of equal rows the earlier shard's come first: so a page is a piece of the same
 * whole as the page before it. Values compare as PostgreSQL's: nulls above all else, text as collation "C".
 */
export function mergeRows<R extends object>(parts: readonly (readonly R[])[], merge: MergeOptions<R>): R[] {
  const { orderBy, offset = 0, limit = Number.POSITIVE_INFINITY } = merge;
  const end = offset + limit;
  if (orderBy === undefined || parts.length === 1) return parts.flat().slice(offset, end);
  const merged: R[] = [];
  const at = parts.map(() => 0);
  while (merged.length < end) {
    let next: { readonly row: R; readonly part: number } | undefined;
    for (const [part, rows] of parts.entries()) {
      const row = rows[at[part] as number];
      if (row !== undefined && (next === undefined || compareRows(row, next.row, orderBy) < 0)) next = { row, part };
    }
    if (next === undefined) break;
    merged.push(next.row);
    at[next.part] = (at[next.part] as number) + 1;
  }
  return merged.slice(offset);
}

/** Raises a RangeError unless limit and offset are whole numbers from 0 on. */
export function checkWindow({ limit = 0, offset = 0 }: { readonly limit?: number; readonly offset?: number }): void {
  for (const [name, value] of Object.entries({ limit, offset })) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`db.everywhere: ${name} must be a whole number from 0 on, found ${value}.`);
    }
  }
}

/** A window that remembers whether the query asked for it: one that does not would give other pages on one shard. */
export function watchedWindow({ limit, offset }: ShardWindow): { readonly window: ShardWindow; isRead(): boolean } {
  const read = { limit: false, offset: false };
  const window = {
    get limit() {
      read.limit = true;
      return limit;
    },
    get offset() {
      read.offset = true;
      return offset;
    },
  };
  return { window, isRead: () => read.limit && read.offset };
}

/**
 * Raises `MERGE_INVALID` when the parts cannot be merged: not ordered as `orderBy` says, or more rows than the window.
 * Also asked of a single shard, in development, so that the mistake shows before there are several.
 */
export function checkParts<R extends object>(
  parts: readonly (readonly R[])[],
  merge: MergeOptions<R>,
  windowLimit: number,
): void {
  const { orderBy = [], limit } = merge;
  for (const [shard, rows] of parts.entries()) {
    if (limit !== undefined && rows.length > windowLimit) {
      throw invalid(`shard ${shard} gave ${rows.length} rows, its window has ${windowLimit}. Use .limit(window.limit)`);
    }
    for (const [column] of orderBy) {
      const row = rows.find((each) => !isComparable(each[column]));
      if (row !== undefined) {
        throw invalid(
          `rows have no "${column}" that can be compared. Select it, as number, text, Date or null: numeric cast to float8`,
        );
      }
    }
    for (let index = 1; index < rows.length; index++) {
      if (isDescending(rows[index - 1] as R, rows[index] as R, orderBy)) {
        const columns = orderBy.map(([column, direction]) => `${column} ${direction}`).join(", ");
        throw invalid(
          `shard ${shard} gave rows in another order than "${columns}". Order the query so; text with collate "C", nulls as PostgreSQL puts them`,
        );
      }
    }
  }
}

/** Raises `MERGE_INVALID` when the query never looked at its window although it was given one. */
export function checkWindowRead(isRead: boolean, merge: { readonly limit?: number; readonly offset?: number }): void {
  if (isRead || (merge.limit === undefined && (merge.offset ?? 0) === 0)) return;
  throw invalid("the query does not use its window. Write .limit(window.limit).offset(window.offset)");
}

type OrderBy<R> = NonNullable<MergeOptions<R>["orderBy"]>;

function compareRows<R>(left: R, right: R, orderBy: OrderBy<R>): number {
  for (const [column, direction] of orderBy) {
    const order = compareValues(left[column], right[column]);
    if (order !== 0) return direction === "asc" ? order : -order;
  }
  return 0;
}

/** As {@link compareRows}, but a `Date` has lost its microseconds: what follows equal ones says nothing. */
function isDescending<R>(left: R, right: R, orderBy: OrderBy<R>): boolean {
  for (const [column, direction] of orderBy) {
    const order = compareValues(left[column], right[column]);
    if (order !== 0) return (direction === "asc" ? order : -order) > 0;
    if (left[column] instanceof Date) return false;
  }
  return false;
}

function compareValues(left: unknown, right: unknown): number {
  const [isLeftNull, isRightNull] = [left === null || left === undefined, right === null || right === undefined];
  if (isLeftNull || isRightNull) return Number(isLeftNull) - Number(isRightNull);
  if (typeof left === "string" && typeof right === "string") return compareText(left, right);
  const [a, b] = [Number(left), Number(right)];
  return a < b ? -1 : a > b ? 1 : 0;
}

/** By code points, which is the order of UTF-8 bytes; JavaScript's own order differs where surrogates are. */
function compareText(left: string, right: string): number {
  if (left === right) return 0;
  const length = Math.min(left.length, right.length);
  for (let index = 0; index < length; index++) {
    const [a, b] = [left.charCodeAt(index), right.charCodeAt(index)];
    if (a !== b) return aboveSurrogates(a) - aboveSurrogates(b);
  }
  return left.length - right.length;
}

/** Code units from U+E000 on sort below surrogates, which stand for higher code points. */
function aboveSurrogates(unit: number): number {
  return unit < 0xd800 ? unit : unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

function isComparable(value: unknown): boolean {
  return value === null || value instanceof Date || ["string", "number", "boolean", "bigint"].includes(typeof value);
}

function invalid(what: string): ConfigError {
  return new ConfigError("MERGE_INVALID", `db.everywhere cannot merge: ${what}.`);
}
