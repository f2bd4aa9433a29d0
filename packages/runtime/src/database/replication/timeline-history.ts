/** Where each timeline of a cluster ended: lines of a history file, "1<TAB>0/3000148<TAB>reason". */
import { type Position, parseLsn } from "./position.ts";

/** The end of each timeline that led to the present one. */
export type TimelineHistory = ReadonlyMap<number, bigint>;

/** Reads a history file; what is no entry is skipped, as PostgreSQL does with comments. */
export function parseHistory(text: string): TimelineHistory {
  const ends = new Map<number, bigint>();
  for (const line of text.split("\n")) {
    const [, timeline, end] = /^\s*(\d+)\s+([0-9A-F]+\/[0-9A-F]+)/i.exec(line) ?? [];
    const lsn = end === undefined ? undefined : parseLsn(end);
    if (timeline !== undefined && lsn !== undefined) ends.set(Number(timeline), lsn);
  }
  return ends;
}

const historyFile = (timeline: string) =>
  `pg_read_file('pg_wal/' || upper(lpad(to_hex(${timeline}), 8, '0')) || '.history', 0, 1000000, true)`;

/** SQL for the history file of the timeline in `$1`, for users who may read the server's files. Null when there is none. */
export const historySql = `select ${historyFile("$1::int")} as history`;

/** The same for others, where a superuser made {@link createHistoryFunction}. */
export const historyByFunctionSql = "select rungs_timeline_history($1::int) as history";

/** Lets a user read histories and no other file; for the app's database, as a superuser. */
export const createHistoryFunction = `
  create or replace function rungs_timeline_history(timeline int) returns text
    language sql security definer set search_path = pg_catalog
    as $body$ select ${historyFile("timeline")} $body$;
  revoke all on function rungs_timeline_history(int) from public`;

/** Whether what was at the position is not part of the timeline with that history. */
export function isBeyond(position: Position, history: TimelineHistory): boolean {
  const end = history.get(position.timeline);
  return end === undefined || position.lsn > end;
}
