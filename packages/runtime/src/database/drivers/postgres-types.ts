/**
 * How PostgreSQL's values become JavaScript's: set here once, for Rungs' own pools, and never in pg's global table.
 *
 * - `int8` (and so `count(*)`) is a number; past 2^53 - 1 it raises instead of losing digits.
 * - `date` is its text, `YYYY-MM-DD`: as a `Date` it would shift by the process's time zone.
 * - `timestamptz` is a `Date`; `numeric` stays text; arrays, `json` and `jsonb` are parsed by pg as usual.
 */
import pg from "pg";

const int8 = 20;
const date = 1082;

function parseInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`bigint ${text} does not fit a JavaScript number exactly; select it as text instead.`);
  }
  return value;
}

/** Type parsers for a pool's `types` setting. */
export const postgresTypes = {
  getTypeParser(id: number, format?: "text" | "binary") {
    if (format !== "binary") {
      if (id === int8) return parseInt8;
      if (id === date) return (text: string) => text;
    }
    return pg.types.getTypeParser(id, format as "text");
  },
} as unknown as pg.CustomTypesConfig;
