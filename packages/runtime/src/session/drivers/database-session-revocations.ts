/** Revoked sessions in the home database: table `rungs_session_revocations`, by the database's own clock. */
import { RungsError, UnavailableError } from "../../kernel/errors.ts";
import type { SessionRevocations } from "../session-revocations.ts";
import type { SqlDatabase } from "./database-session-store.ts";

/** The table's migrations, in order, for the home database. */
export const sessionRevocationMigrations = [
  {
    name: "0001_session_revocations",
    home: {
      up: `
        create table rungs_session_revocations (
          token_hash bytea primary key,
          revoked_at timestamptz not null default now()
        );
        create index rungs_session_revocations_by_time on rungs_session_revocations (revoked_at);`,
      down: "drop table rungs_session_revocations",
    },
  },
] as const;

/** Settings of {@link databaseSessionRevocations}. */
export interface DatabaseSessionRevocationsOptions {
  readonly database: SqlDatabase;
  /** A store may lag this far behind when it takes over; default 24 hours. */
  readonly keepMs?: number;
}

const sweepMax = 1_000;

const statements = {
  note: `insert into rungs_session_revocations (token_hash)
         select unnest($1::bytea[]) on conflict (token_hash) do nothing`,
  noted: `select token_hash from rungs_session_revocations
          where revoked_at > now() - $1::float8 * interval '1 millisecond' and token_hash > $2
          order by token_hash limit $3`,
  sweep: `with gone as (
            delete from rungs_session_revocations where token_hash in (
              select token_hash from rungs_session_revocations
              where revoked_at <= now() - $1::float8 * interval '1 millisecond'
              order by revoked_at limit $2 for update skip locked
            ) returning 1
          ) select count(*)::int as count from gone`,
} as const;

/** Opens the record on a database that has the table. */
export function databaseSessionRevocations({
  database,
  keepMs = 24 * 60 * 60 * 1_000,
}: DatabaseSessionRevocationsOptions): SessionRevocations {
  async function query<R>(statement: keyof typeof statements, values: unknown[]): Promise<R[]> {
    try {
      return await database.query<R>(`rungs_session_revocations_${statement}`, statements[statement], values);
    } catch (error) {
      if (error instanceof RungsError || !(error instanceof Error)) throw error;
      const message = `The record of revoked sessions could not be reached: ${error.message}. Try again.`;
      throw new UnavailableError("DATABASE_UNREACHABLE", message, { canRetry: true, cause: error });
    }
  }
  return {
    async note(tokenHashes) {
      if (tokenHashes.length > 0) await query("note", [tokenHashes]);
    },
    async *noted(batchMax) {
      let last = Buffer.alloc(0);
      for (;;) {
        const rows = await query<{ readonly token_hash: Buffer }>("noted", [keepMs, last, batchMax]);
        const hashes = rows.map((row) => row.token_hash);
        if (hashes.length > 0) yield hashes;
        if (hashes.length < batchMax) return;
        last = hashes.at(-1) as Buffer<ArrayBuffer>;
      }
    },
    async sweep() {
      let total = 0;
      for (let batch = 0; batch < 1_000; batch++) {
        const [row] = await query<{ readonly count: number }>("sweep", [keepMs, sweepMax]);
        total += row?.count ?? 0;
        if ((row?.count ?? 0) < sweepMax) break;
      }
      return total;
    },
  };
}
