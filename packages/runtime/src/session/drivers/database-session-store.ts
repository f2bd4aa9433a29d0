/**
 * Session driver on the home database: table `rungs_sessions`, on any PostgreSQL from version 15 on.
 *
 * One short statement each, prepared by name where the connection can: reading a session is the hottest query there is.
 * Times come from the app's clock, never from the server's `now()`, so that one clock decides.
 */
import { CompiledQuery, type QueryResult } from "kysely";
import { RungsError, UnavailableError, UnsupportedError } from "../../kernel/errors.ts";
import type { Seen } from "../seen.ts";
import { type SessionData, type SessionRecord, type SessionStore, sessionDataBytesMax } from "../session-store.ts";

/**
 * The table's migrations, in order, for the home database.
 *
 * `last_seen_at` has no index and pages keep some room, so that noting a use rewrites no index entry (a heap-only
 * update); idle sessions are found by the index on their end.
 */
export const sessionMigrations = [
  {
    name: "0001_sessions",
    home: {
      up: `
        create table rungs_sessions (
          token_hash bytea primary key,
          user_id uuid,
          created_at timestamptz not null,
          last_seen_at timestamptz not null,
          expires_at timestamptz not null,
          data jsonb not null default '{}',
          constraint rungs_sessions_data_small check (octet_length(data::text) <= ${sessionDataBytesMax})
        ) with (fillfactor = 90);
        create index rungs_sessions_by_user on rungs_sessions (user_id);
        create index rungs_sessions_by_end on rungs_sessions (expires_at);`,
      down: "drop table rungs_sessions",
    },
  },
  {
    name: "0002_session_wrote",
    home: {
      up: "alter table rungs_sessions add column wrote bigint not null default 0",
      down: "alter table rungs_sessions drop column wrote",
    },
  },
  {
    name: "0003_session_seen",
    home: {
      up: "alter table rungs_sessions add column seen jsonb not null default '{}'",
      down: "alter table rungs_sessions drop column seen",
    },
  },
  {
    name: "0004_session_revision",
    home: {
      up: "alter table rungs_sessions add column revision bigint not null default 0",
      down: "alter table rungs_sessions drop column revision",
    },
  },
] as const;

/** What the store needs of a database: SQL with `$n` parameters, prepared under a name when one is given. */
export interface SqlDatabase {
  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]>;
}

/** The part of a Kysely instance that the store uses. */
export interface QueryExecutor {
  executeQuery<R>(query: CompiledQuery<R>): Promise<QueryResult<R>>;
}

interface SessionRow {
  readonly user_id: string | null;
  /** Seconds since the Unix epoch. */
  readonly created: number;
  readonly seen: number;
  readonly expires: number;
  readonly data: SessionData;
  readonly wrote: number;
  readonly positions: Seen;
  readonly revision: number;
}

/**
 * Opens the store on a database that has the table: on one of Rungs' own connections, which prepare the statements, or on
 * the Kysely instance of an app that exists already.
 */
export function databaseSessionStore(
  options: { readonly database: SqlDatabase } | { readonly kysely: QueryExecutor },
): SessionStore {
  const query = queryOf("database" in options ? options.database : sqlOver(options.kysely));
  return {
    capabilities: { expiresByItself: false },

    async create({ tokenHash, userId, createdAt, lastSeenAt, expiresAt, data, wrote, seen, revision }) {
      const json = [JSON.stringify(data), wrote, JSON.stringify(seen)];
      const values = [tokenHash, userId, createdAt, lastSeenAt, expiresAt, ...json, revision];
      await query("create", values, { isRepeatable: false });
    },

    async read(tokenHash): Promise<SessionRecord | undefined> {
      const [row] = await query<SessionRow>("read", [tokenHash]);
      if (row === undefined) return undefined;
      return {
        tokenHash,
        userId: row.user_id,
        createdAt: dateOf(row.created),
        lastSeenAt: dateOf(row.seen),
        expiresAt: dateOf(row.expires),
        data: row.data,
        wrote: row.wrote,
        seen: row.positions,
        revision: row.revision,
      };
    },

    async touch(tokenHash, seenAt, unlessSeenSince) {
      await query("touch", [tokenHash, seenAt, unlessSeenSince]);
    },

    async update(tokenHash, patch) {
      const fields = Object.entries(patch);
      const set = Object.fromEntries(fields.filter(([, value]) => value !== null));
      const removed = fields.filter(([, value]) => value === null).map(([field]) => field);
      const values = [tokenHash, JSON.stringify(set), removed];
      const [row] = await query<Pick<SessionRow, "data" | "revision">>("update", values);
      return row;
    },

    async noteWrite(tokenHash, wrote) {
      const [row] = await query<Pick<SessionRow, "revision">>("note_write", [tokenHash, wrote]);
      return row?.revision;
    },

    async noteSeen(tokenHash, seen) {
      const [row] = await query<Pick<SessionRow, "revision">>("note_seen", [tokenHash, JSON.stringify(seen)]);
      return row?.revision;
    },

    async rotate(oldHash, record, { keepsData }) {
      const { tokenHash, userId, createdAt, lastSeenAt, expiresAt, data, wrote, seen, revision } = record;
      const times = [createdAt, lastSeenAt, expiresAt];
      const json = [JSON.stringify(data), wrote, JSON.stringify(seen)];
      const values = [oldHash, keepsData, tokenHash, userId, ...times, ...json, revision];
      const [row] = await query<Pick<SessionRow, "data">>("rotate", values, { isRepeatable: false });
      return row?.data ?? data;
    },

    revoke: async (tokenHash) => (await query("revoke", [tokenHash])).length > 0,
    revokeAllOf: async (userId, except) => countOf(await query("revoke_all", [userId, except ?? null])),

    async sweep({ expiredAt, idleSince, idleExpiresBy, sessionsMax }) {
      const expired = countOf(await query("sweep_expired", [expiredAt, sessionsMax]));
      if (expired >= sessionsMax) return expired;
      return expired + countOf(await query("sweep_idle", [idleSince, idleExpiresBy, sessionsMax - expired]));
    },
  };
}

/** Rows that another process is sweeping are skipped, so that sweeps neither wait for each other nor deadlock. */
const sweepOf = (condition: string, limit: string) => `
  with gone as (
    delete from rungs_sessions where token_hash in (
      select token_hash from rungs_sessions where ${condition} order by expires_at limit ${limit} for update skip locked
    ) returning 1
  ) select count(*)::int as count from gone`;

const statements = {
  create: `insert into rungs_sessions (token_hash, user_id, created_at, last_seen_at, expires_at, data, wrote, seen, revision)
           values ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8::text::jsonb, $9)`,
  // Numbers and not timestamps: measured 4 us less of the app's CPU a read, of 29, than three texts made into dates.
  read: `select user_id, extract(epoch from created_at)::float8 as created, extract(epoch from last_seen_at)::float8 as seen,
                extract(epoch from expires_at)::float8 as expires, data, wrote::float8 as wrote, seen as positions,
                revision::float8 as revision
         from rungs_sessions where token_hash = $1`,
  touch: `update rungs_sessions set last_seen_at = $2, revision = revision + 1
          where token_hash = $1 and last_seen_at < $2 and last_seen_at <= $3`,
  // `data` is read under the row's lock, so that of two patches at once neither undoes the other.
  update: `update rungs_sessions set data = (data || $2::text::jsonb) - $3::text[], revision = revision + 1
           where token_hash = $1 returning data, revision::float8 as revision`,
  // Also when there is nothing to raise: a revision read beside this may be one from before what was noted meanwhile.
  note_write: `update rungs_sessions set wrote = greatest(wrote, $2), revision = revision + 1
               where token_hash = $1 returning revision::float8 as revision`,
  // As with `data`, the later of two is decided under the row's lock.
  note_seen: `update rungs_sessions set seen = seen || (
                select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each_text($2::text::jsonb)
                where value collate "C" > coalesce(seen ->> key, '')
              ), revision = revision + 1
              where token_hash = $1 and $2::text <> '{}' returning revision::float8 as revision`,
  rotate: `with old as (delete from rungs_sessions where token_hash = $1 returning data, seen),
           later as (
             select key, max(value collate "C") as value from (
               select key, value from jsonb_each_text($10::text::jsonb)
               union all select each.key, each.value from old, jsonb_each_text(old.seen) as each
             ) as both_sessions group by key
           )
           insert into rungs_sessions (token_hash, user_id, created_at, last_seen_at, expires_at, data, wrote, seen, revision)
           values ($3, $4, $5, $6, $7, coalesce((select data from old where $2::boolean), '{}') || $8::text::jsonb, $9,
                   coalesce((select jsonb_object_agg(key, value) from later), '{}'), $11)
           returning data`,
  revoke: "delete from rungs_sessions where token_hash = $1 returning 1",
  revoke_all: `with gone as (
                 delete from rungs_sessions where user_id = $1 and ($2::bytea is null or token_hash <> $2) returning 1
               ) select count(*)::int as count from gone`,
  sweep_expired: sweepOf("expires_at <= $1", "$2"),
  sweep_idle: sweepOf("expires_at <= $2 and last_seen_at <= $1", "$3"),
} as const;

function queryOf(database: SqlDatabase) {
  return async <R = unknown>(
    statement: keyof typeof statements,
    values: unknown[],
    { isRepeatable = true }: { readonly isRepeatable?: boolean } = {},
  ): Promise<R[]> => {
    try {
      return await database.query<R>(`rungs_session_${statement}`, statements[statement], values);
    } catch (error) {
      throw translate(error, isRepeatable);
    }
  };
}

function sqlOver(kysely: QueryExecutor): SqlDatabase {
  return {
    query: async <R>(_name: string | undefined, sql: string, values: unknown[]) =>
      (await kysely.executeQuery(CompiledQuery.raw(sql, values) as CompiledQuery<R>)).rows,
  };
}

/** Times are written to the millisecond, which a double holds exactly enough to round back to. */
function dateOf(seconds: number): Date {
  return new Date(Math.round(seconds * 1_000));
}

function countOf(rows: unknown[]): number {
  return (rows[0] as { readonly count: number } | undefined)?.count ?? 0;
}

/**
 * SQLSTATE classes that speak of the caller's or the schema's mistake (22 data, 23 integrity, 42 names and syntax): a bug
 * and not an outage, so they pass as they are.
 */
const mistakeClasses = /^(22|23|42)/;

function translate(error: unknown, isRepeatable: boolean): unknown {
  if (error instanceof RungsError || !(error instanceof Error)) return error;
  const { code, constraint } = error as { readonly code?: unknown; readonly constraint?: unknown };
  if (constraint === "rungs_sessions_data_small") {
    return new UnsupportedError(
      "SESSION_DATA_TOO_LARGE",
      `A session's data may take ${sessionDataBytesMax} bytes as JSON. Keep the rest in a table and its id in the session.`,
      { cause: error },
    );
  }
  if (typeof code === "string" && mistakeClasses.test(code)) return error;
  return new UnavailableError(
    "DATABASE_UNREACHABLE",
    `The session store's database did not answer: ${error.message}. Nobody was signed out; try again.`,
    { canRetry: isRepeatable, cause: error },
  );
}
