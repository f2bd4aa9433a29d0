/**
 * Pages that stay stable while rows come and go: each begins after the last row of the one before, not after a number of rows.
 *
 * The order ends with a column that is unique over all shards, such as a UUIDv7. The cursor holds the last row's values of the
 * order's columns, as text that means nothing to its bearer. It grants nothing: it only narrows a query that has its own
 * conditions.
 */
import { type Expression, type SqlBool, sql } from "kysely";
import { ConfigError } from "../kernel/errors.ts";

/** Columns of a page's order with their directions; the last one is unique. Not null, and of the same order on every shard. */
export type PageOrder<C extends string = string> = readonly (readonly [column: C, direction: "asc" | "desc"])[];

/** A value that a cursor can hold. A `Date` stands for whole milliseconds: order by a column of type timestamptz(3). */
export type CursorValue = string | number | boolean | bigint | Date;

/** Longest cursor that is read. */
const cursorCharactersMax = 2_048;

/** The cursor after this row. Raises `MERGE_INVALID` when a column of the order is missing or null. */
export function pageCursor<R extends object>(row: R, order: PageOrder<keyof R & string>): string {
  const values = order.map(([column]) => encodeValue(row[column], column));
  return Buffer.from(JSON.stringify(values)).toString("base64url");
}

/** The cursor after the last row of a page; undefined when the page is not full, so that there is no next one. */
export function nextPageCursor<R extends object>(
  rows: readonly R[],
  limit: number,
  order: PageOrder<keyof R & string>,
): string | undefined {
  const last = rows.at(-1);
  return last === undefined || rows.length < limit ? undefined : pageCursor(last, order);
}

/** Reads a cursor made for the same order; undefined for anything else, e.g. a cursor that a client made up. */
export function readPageCursor(text: string, order: PageOrder): readonly CursorValue[] | undefined {
  if (text.length > cursorCharactersMax || !/^[\w-]+$/.test(text)) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (!Array.isArray(content) || content.length !== order.length) return undefined;
  const values = content.map(decodeValue);
  return values.every((value) => value !== undefined) ? values : undefined;
}

/**
 * The condition that a row comes after the cursor's, for `.where(...)`. `columns` are the order's columns as the query names
 * them, e.g. with a table; default: by their own names.
 *
 * One comparison of rows where all directions are the same, which an index over the columns answers from the right place on.
 *
 * @example
 * const order = [["created_at", "desc"], ["article_id", "desc"]] as const;
 * const after = readPageCursor(request.query.after, order);
 * const rows = await db.everywhere<Row>((shard, window) =>
 *   shard.selectFrom("articles").select(["article_id", "created_at", "title"])
 *     .$if(after !== undefined, (query) => query.where(afterCursor(order, after ?? [])))
 *     .orderBy("created_at", "desc").orderBy("article_id", "desc")
 *     .limit(window.limit).offset(window.offset).execute(),
 *   { orderBy: order, limit: 20 });
 * const next = nextPageCursor(rows, 20, order);
 */
export function afterCursor(
  order: PageOrder,
  cursor: readonly CursorValue[],
  columns: readonly string[] = order.map(([column]) => column),
): Expression<SqlBool> {
  if (cursor.length !== order.length || columns.length !== order.length || order.length === 0) {
    throw new ConfigError(
      "MERGE_INVALID",
      `A cursor of ${cursor.length} value(s) does not fit an order of ${order.length} column(s) named by ${columns.length}.`,
    );
  }
  const [[, direction]] = order as [PageOrder[number]];
  if (order.every(([, each]) => each === direction)) {
    const left = sql.join(columns.map((column) => sql.ref(column)));
    return sql<SqlBool>`(${left}) ${sql.raw(direction === "asc" ? ">" : "<")} (${sql.join([...cursor])})`;
  }
  // (a > 1) or (a = 1 and b < 2) or ...
  const alternatives = order.map(([, each], index) => {
    const equal = columns.slice(0, index).map((column, at) => sql`${sql.ref(column)} = ${cursor[at]}`);
    const beyond = sql`${sql.ref(columns[index] as string)} ${sql.raw(each === "asc" ? ">" : "<")} ${cursor[index]}`;
    return sql`(${sql.join([...equal, beyond], sql` and `)})`;
  });
  return sql<SqlBool>`(${sql.join(alternatives, sql` or `)})`;
}

function encodeValue(value: unknown, column: string): unknown {
  if (value instanceof Date) return { d: value.getTime() };
  if (typeof value === "bigint") return { n: String(value) };
  if (typeof value === "string" || typeof value === "boolean" || Number.isFinite(value)) return value;
  throw new ConfigError(
    "MERGE_INVALID",
    `A page cannot end at a row whose "${column}" is ${value === null ? "null" : typeof value}. Order by columns that are selected and not null.`,
  );
}

function decodeValue(value: unknown): CursorValue | undefined {
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  const { d, n } = (value ?? {}) as { readonly d?: unknown; readonly n?: unknown };
  if (typeof d === "number" && Number.isFinite(d) && Math.abs(d) <= 8.64e15) return new Date(d);
  return typeof n === "string" && /^-?\d{1,40}$/.test(n) ? BigInt(n) : undefined;
}
