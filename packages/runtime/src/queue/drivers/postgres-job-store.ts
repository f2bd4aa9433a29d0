/** Job store on the tables of `job-tables.ts`: each call is one statement, or two where the order of commits matters. */
import { CompiledQuery, type QueryResult } from "kysely";
import type { ClaimedJob, JobStore, SettledJob, Wanted } from "../job-store.ts";

/** What the store needs of a database: SQL with `$n` parameters, prepared under a name when one is given. */
export interface SqlDatabase {
  /** Name for messages, e.g. "shard 0". */
  readonly name: string;
  query<R>(name: string | undefined, sql: string, values: unknown[]): Promise<R[]>;
}

/** The part of a transaction that `once` uses: Rungs' own, or a Kysely transaction. */
interface StepTransaction {
  readonly kysely?: StepTransaction;
  withoutPlugins?(): StepTransaction;
  executeQuery?<R>(query: CompiledQuery<R>): Promise<QueryResult<R>>;
}

interface JobRow {
  readonly sequence: number;
  readonly job_id: string;
  readonly handler: string;
  readonly key: string | null;
  readonly payload: unknown;
  readonly version: number;
  readonly priority: number;
  readonly attempts: number;
  /** Seconds since the Unix epoch. */
  readonly published: number;
  readonly due: number;
  readonly waited: number;
}

const claimSql = `
  select sequence, job_id, handler, key, payload, version, priority, attempts,
    extract(epoch from published_at)::float8 as published, extract(epoch from run_at)::float8 as due,
    extract(epoch from clock_timestamp() - run_at)::float8 as waited
  from rungs_claim($1, $2::text[], $3::int[], array(select to_timestamp(s) from unnest($4::float8[]) s), $5::text[], $6::text[], $7::int[])`;

/** Old ones are handled, so newer ones come to stand first. */
const newerSql = `
  select w.handler, max(j.version)::int as version
  from unnest($1::text[], $2::int[]) w(handler, known) cross join unnest(array[0, 1, 2]) p(priority) cross join lateral (
    select j.version from rungs_jobs j
    where j.handler = w.handler and j.state = 0 and j.priority = p.priority and j.run_at <= clock_timestamp()
    order by j.run_at, j.sequence limit 20) j
  where j.version > w.known group by w.handler`;
/** Above all versions. */
const anyVersion = 32_767;

/** A transaction that writes a message takes this long at most to commit it; slower ones wait for the next full look. */
const commitSlackMs = 2_000;
/** A worker claims about twice a second at least, so more keys than this gather only under load. */
const removedMax = 1_000;
/** How often claims look at all jobs. */
const fullLookEveryMs = 1_000;

/** Opens the store on a database that has the tables. `now` is a monotonic clock in milliseconds. */
export async function postgresJobStore(database: SqlDatabase, now: () => number): Promise<JobStore> {
  const [queue] = await database.query<{ store_id: string }>(undefined, "select store_id from rungs_queue", []);
  const origin = queue?.store_id ?? "";
  const cursors = new Cursors(now);
  /** Keys whose first job is gone, with nobody seen behind: the next claim looks once more. */
  const removed: Key[] = [];

  return {
    name: database.name,

    async claim(workerId, wanted) {
      const handlers = wanted.map(({ handler }) => handler);
      const slots = wanted.map(({ slots }) => slots);
      const freed = removed.splice(0);
      const values = [workerId, handlers, slots, cursors.of(handlers), ...columnsOf(freed), knownOf(wanted)];
      const rows = await database.query<JobRow>("rungs_claim", claimSql, values).catch((error: unknown) => {
        removed.push(...freed);
        throw error;
      });
      cursors.advance(rows);
      return rows.sort((a, b) => a.priority - b.priority || a.due - b.due || a.sequence - b.sequence).map(jobOf);
    },

    async settle(workerId, settled) {
      if (settled.length === 0) return { freed: 0, busy: [] };
      const values = [
        workerId,
        settled.map(({ job }) => job.sequence),
        settled.map(({ outcome }) => (outcome.kind === "putOff" ? "handBack" : outcome.kind)),
        settled.map(({ outcome }) => ("delayMs" in outcome ? outcome.delayMs : 0)),
        settled.map(({ outcome }) => ("error" in outcome ? outcome.error.slice(0, 2_000) : null)),
      ];
      const sql = "select busy, is_followed from rungs_settle($1, $2::bigint[], $3, $4, $5)";
      const [row] = await database.query<{ busy: number[]; is_followed: boolean }>("rungs_settle", sql, values);
      const busy = new Set(row?.busy);
      const ended = busy.size === 0 ? settled : settled.filter(({ job }) => !busy.has(job.sequence));
      removed.push(...removedKeys(ended));
      return {
        freed:
          row?.is_followed === true || removed.length > removedMax ? await unblock(database, removed.splice(0)) : 0,
        busy: busy.size === 0 ? [] : settled.filter(({ job }) => busy.has(job.sequence)),
      };
    },

    newer(wanted) {
      const handlers = wanted.map(({ handler }) => handler);
      return database.query<{ handler: string; version: number }>(undefined, newerSql, [handlers, knownOf(wanted)]);
    },

    async heartbeat(workerId, timeoutMs) {
      const sql = "select rungs_heartbeat($1, $2) as freed";
      const [row] = await database.query<{ freed: number }>("rungs_heartbeat", sql, [workerId, timeoutMs]);
      return row?.freed ?? 0;
    },

    async leave(workerId) {
      await unblock(database, removed.splice(0));
      const sql = `delete from rungs_workers w where w.worker_id = $1
        and not exists (select from rungs_jobs j where j.worker_id = w.worker_id)`;
      await database.query(undefined, sql, [workerId]);
    },

    async releaseUnknown(workerId, held) {
      const sql = `update rungs_jobs set worker_id = null, attempts = attempts - 1
        where worker_id = $1 and not sequence = any($2::bigint[])`;
      await database.query(undefined, sql, [workerId, held]);
    },

    async once(tx, workerId, job, step) {
      const sql = "select rungs_once($1, $2, $3, $4, $5, $6, $7) as verdict";
      const values = [origin, workerId, job.sequence, job.attempt, job.jobId, job.handler, step];
      const [row] = await queryIn<{ verdict: "first" | "repeated" | "lost" }>(tx, sql, values);
      return row?.verdict ?? "lost";
    },

    async oldestPublished() {
      const sql = `select min(oldest) as oldest from (
        select min(published_at) as oldest from rungs_jobs union all select min(published_at) from rungs_dead_jobs
        union all (select published_at from rungs_outbox where sequence >= (select floor from rungs_relay)
          order by sequence limit 1)) o`;
      const [row] = await database.query<{ oldest: Date | null }>(undefined, sql, []);
      return row?.oldest ?? undefined;
    },

    async forgetSteps(before) {
      const sql = `with gone as (
        delete from rungs_inbox where (job_id, handler, step) in (
          select job_id, handler, step from rungs_inbox where noted_at < $1::timestamptz order by noted_at limit 10000)
        returning 1
      ) select count(*)::int as count from gone`;
      const [row] = await database.query<{ count: number }>(undefined, sql, [before]);
      return row?.count ?? 0;
    },
  };
}

function knownOf(wanted: readonly Wanted[]): number[] {
  return wanted.map(({ version = anyVersion }) => version);
}

/** Lets the next job of each key go, once the removal of the one before it has committed. Gives how many came free. */
export async function unblock(database: SqlDatabase, removed: readonly Key[]): Promise<number> {
  if (removed.length === 0) return 0;
  const values = columnsOf(removed);
  const sql = "select rungs_unblock($1, $2) as freed";
  const [row] = await database.query<{ freed: number }>("rungs_unblock", sql, values);
  return row?.freed ?? 0;
}

/** A handler's jobs of one key. */
interface Key {
  readonly handler: string;
  readonly key: string;
}

/** In one order everywhere, so that two workers that unblock the same keys do not wait for each other in a ring. */
function columnsOf(keys: readonly Key[]): [handlers: string[], keys: string[]] {
  const sorted = [...keys].sort((a, b) => (a.handler + a.key < b.handler + b.key ? -1 : 1));
  return [sorted.map(({ handler }) => handler), sorted.map(({ key }) => key)];
}

function removedKeys(settled: readonly SettledJob[]): Key[] {
  return settled.flatMap(({ job: { handler, key }, outcome: { kind } }) =>
    key !== null && (kind === "done" || kind === "dead") ? [{ handler, key }] : [],
  );
}

function jobOf(row: JobRow): ClaimedJob {
  return {
    sequence: row.sequence,
    jobId: row.job_id,
    handler: row.handler,
    key: row.key,
    payload: row.payload,
    version: row.version,
    attempt: row.attempts,
    publishedAt: new Date(Math.round(row.published * 1_000)),
    waitedMs: row.waited * 1_000,
  };
}

/** Past the shard-key guard, which knows no functions: the statement touches only the queue's own tables. */
export async function queryIn<R>(transaction: unknown, sql: string, values: unknown[]): Promise<R[]> {
  const tx = transaction as StepTransaction;
  const kysely = tx.kysely ?? tx;
  const plain = kysely.withoutPlugins?.() ?? kysely;
  if (plain.executeQuery === undefined) throw new TypeError("once() needs a shard's transaction or Kysely's.");
  return (await plain.executeQuery(CompiledQuery.raw(sql, values) as CompiledQuery<R>)).rows;
}

/** Where claims begin to look, a handler and priority, in seconds since the Unix epoch by the server's clock. */
class Cursors {
  private readonly now: () => number;
  private readonly ofHandler = new Map<string, { due: [number, number, number]; fullLookAt: number }>();

  constructor(now: () => number) {
    this.now = now;
  }

  of(handlers: readonly string[]): (number | null)[] {
    const now = this.now();
    return handlers.flatMap((handler) => {
      const cursor = this.ofHandler.get(handler);
      if (cursor !== undefined && now - cursor.fullLookAt < fullLookEveryMs) return cursor.due;
      this.ofHandler.set(handler, { due: cursor?.due ?? [0, 0, 0], fullLookAt: now });
      return [null, null, null];
    });
  }

  advance(rows: readonly JobRow[]): void {
    for (const { handler, priority, due } of rows) {
      const cursor = this.ofHandler.get(handler)?.due;
      const level = priority as 0 | 1 | 2;
      if (cursor !== undefined) cursor[level] = Math.max(cursor[level], due - commitSlackMs / 1_000);
    }
  }
}
