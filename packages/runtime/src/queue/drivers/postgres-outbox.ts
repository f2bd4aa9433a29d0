/** The outbox of a shard, on the tables of `outbox-tables.ts`: each call is one statement. */
import type { Beat, Outbox, OutboxRow } from "../outbox.ts";
import { priorities } from "./job-writer.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";

interface MessageRow {
  readonly sequence: number;
  readonly message_id: string;
  readonly event: string;
  readonly version: number;
  readonly key: string | null;
  readonly payload: unknown;
  readonly published_ms: number;
  readonly priority: number;
  readonly due_ms: number | null;
}

interface BeatRow {
  readonly is_active: boolean;
  readonly last_sequence: number | null;
  readonly writers: string[] | null;
}

interface MeasureRow {
  readonly waiting: number;
  readonly bytes: number;
  readonly table_bytes: number;
  readonly oldest_ms: number;
  readonly is_full: boolean;
}

const takeSql = "select * from rungs_relay_next($1::bigint[], $2::bigint[], $3::text[], $4, $5, $6)";
const notHeld: Beat = { isActive: false, lastSequence: 0, writers: [] };

/** Opens the outbox of a database that has the tables of `queueMigrations`. */
export function postgresOutbox(database: SqlDatabase): Outbox {
  return {
    name: database.name,

    async beat(relayId, leaseMs, floor) {
      const sql = "select is_active, last_sequence, writers from rungs_relay_beat($1, $2, $3)";
      const [row] = await database.query<BeatRow>("rungs_relay_beat", sql, [relayId, leaseMs, floor]);
      if (row?.is_active !== true) return notHeld;
      return { isActive: true, lastSequence: row.last_sequence ?? 0, writers: row.writers ?? [] };
    },

    async leave(relayId) {
      await database.query(undefined, "select rungs_relay_leave($1)", [relayId]);
    },

    async take({ published, underWay, withoutEvents, from, rowsMax, bytesMax }) {
      const values = [published, underWay, withoutEvents, from, rowsMax, bytesMax];
      return (await database.query<MessageRow>("rungs_relay_next", takeSql, values)).map(rowOf);
    },

    async measure(bytesMax) {
      const sql = "select waiting, bytes, table_bytes, oldest_ms, is_full from rungs_outbox_measure($1)";
      const [row] = await database.query<MeasureRow>("rungs_outbox_measure", sql, [Math.round(bytesMax)]);
      const { waiting = 0, bytes = 0, table_bytes = 0, oldest_ms = 0, is_full = false } = row ?? {};
      return {
        messages: waiting,
        bytes,
        tableBytes: table_bytes,
        oldestAgeMs: Math.max(0, Math.round(oldest_ms)),
        isFull: is_full,
      };
    },

    async shrink() {
      const [row] = await database.query<{ done: boolean }>(undefined, "select rungs_outbox_shrink() as done", []);
      return row?.done ?? false;
    },
  };
}

function rowOf(row: MessageRow): OutboxRow {
  const priority = priorities[row.priority] ?? "normal";
  return {
    sequence: row.sequence,
    message: {
      id: row.message_id,
      event: row.event,
      version: row.version,
      key: row.key,
      payload: row.payload,
      publishedAt: new Date(Math.round(row.published_ms)),
      ...(row.due_ms === null ? {} : { dueAt: new Date(Math.round(row.due_ms)) }),
      ...(priority === "normal" ? {} : { priority }),
    },
  };
}
