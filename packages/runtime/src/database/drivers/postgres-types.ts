/**
 * How PostgreSQL's values become JavaScript's: set here once, for Rungs' own pools, and never in pg's global table.
 *
 * - `int8` (and so `count(*)`) is a number; past 2^53 - 1 it raises instead of losing digits.
 * - `date` is its text, `YYYY-MM-DD`: as a `Date` it would shift by the process's time zone.
 * - Arrays of these two likewise.
 * - `timestamptz` is a `Date`; `numeric` stays text; other arrays, `json` and `jsonb` are parsed by pg as usual.
 */
import pg from "pg";

const int8 = 20;
const int8Array = 1016;
const date = 1082;
const dateArray = 1182;

function parseInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`bigint ${text} does not fit a JavaScript number exactly; select it as text instead.`);
  }
  return value;
}

/** Arrays may be nested and hold nulls. */
type Nested<T> = T | null | Nested<T>[];

function parseTextArray(text: string): Nested<string> {
  const textArray = 1009 as Parameters<typeof pg.types.getTypeParser>[0];
  return pg.types.getTypeParser(textArray)(text) as Nested<string>;
}

function parseInt8Array(text: string): Nested<number> {
  const parse = (item: Nested<string>): Nested<number> =>
    Array.isArray(item) ? item.map(parse) : item === null ? null : parseInt8(item);
  return parse(parseTextArray(text));
}

const parsers: Readonly<Record<number, (text: string) => unknown>> = {
  [int8]: parseInt8,
  [int8Array]: parseInt8Array,
  [date]: (text) => text,
  [dateArray]: parseTextArray,
};

/** Type parsers for a pool's `types` setting. */
export const postgresTypes = {
  getTypeParser(id: number, format?: "text" | "binary") {
    const own = format === "binary" ? undefined : parsers[id];
    if (own !== undefined) return own;
    return pg.types.getTypeParser(id, format as "text");
  },
} as unknown as pg.CustomTypesConfig;
