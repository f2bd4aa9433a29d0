/**
 * What an operator does to the jobs of one database: retry and drop, in batches that begin where the one before ended, so that
 * no statement runs long and none wades through the rows that the others removed.
 *
 * Rows that somebody else has locked, a claim or a step that is being made, are passed over and never waited for.
 */
import type { JobSelection } from "../job-admin.ts";
import { type SqlDatabase, unblock } from "./postgres-job-store.ts";

/** The state of a row of `rungs_jobs` as `JobState`, by the time of the statement. */
export const stateSql = `case
  when worker_id is not null then 'running'
  when state = 1 then 'waiting'
  when run_at <= statement_timestamp() then 'ready'
  when attempts > 0 then 'retrying'
  else 'scheduled' end`;

/** Rows a statement. */
const batchRows = 5_000;
/** Longer than any statement of an operator's tool may take; see {@link signOn}. */
const operatorSeconds = 120;

/** `$1` to `$3` are what {@link valuesOf} gives. */
const chosenSql = "($1::uuid[] is null or job_id = any($1)) and ($2::text is null or handler = $2)";
const chosenLiveSql = `${chosenSql} and worker_id is null and ($3::text is null or ${stateSql} = $3)`;

interface DeadRow {
  readonly handler: string;
  readonly job_id: string;
}

interface LiveRow {
  readonly sequence: number;
  readonly handler: string;
  readonly key: string | null;
}

/** See `JobAdmin.retry`; at most `room` jobs. */
export async function retryJobs(shard: SqlDatabase, selection: JobSelection, room: number): Promise<number> {
  let count = 0;
  if (isAbout(selection, "dead")) {
    count += await inBatches<DeadRow>(room, ["", zeroId], (limit, [handler, id]) =>
      shard.query(
        undefined,
        `with gone as (
          delete from rungs_dead_jobs where (handler, job_id) in (${chosenDeadSql}) returning *
        ), back as (
          insert into rungs_jobs
            (job_id, handler, event, key, payload, priority, run_at, published_at, steps, error, version, via_broker)
          select job_id, handler, event, key, payload, priority, clock_timestamp(), published_at, steps, error, version, via_broker
          from gone order by published_at, job_id
          on conflict (handler, job_id) where via_broker do nothing
        ) select handler, job_id from gone order by handler, job_id`,
        [...valuesOf(selection).slice(0, 2), handler, id, limit],
      ),
    );
  }
  // What is ready already, or waits behind its key, gains nothing from an earlier time.
  if (count < room && (isAbout(selection, "retrying") || isAbout(selection, "scheduled"))) {
    count += await inBatches<LiveRow>(room - count, [0], (limit, [sequence]) =>
      shard.query(
        undefined,
        `with early as (
          update rungs_jobs set run_at = clock_timestamp() where sequence in (
            select sequence from rungs_jobs where ${chosenLiveSql} and ${stateSql} in ('retrying', 'scheduled')
              and sequence > $4 order by sequence limit $5 for update skip locked)
          returning sequence, handler, key
        ) select * from early order by sequence`,
        [...valuesOf(selection), sequence, limit],
      ),
    );
  }
  return count;
}

/** See `JobAdmin.drop`; at most `room` jobs. */
export async function dropJobs(shard: SqlDatabase, selection: JobSelection, room: number): Promise<number> {
  let count = 0;
  if (isAbout(selection, "dead")) {
    count += await inBatches<DeadRow>(room, ["", zeroId], (limit, [handler, id]) =>
      shard.query(
        undefined,
        `with gone as (
          delete from rungs_dead_jobs where (handler, job_id) in (${chosenDeadSql}) returning handler, job_id
        ) select * from gone order by handler, job_id`,
        [...valuesOf(selection).slice(0, 2), handler, id, limit],
      ),
    );
  }
  if (count < room && selection.state !== "dead") {
    const operator = await signOn(shard);
    count += await inBatches<LiveRow>(room - count, [0], async (limit, [sequence]) => {
      await operator.stay();
      const rows = await shard.query<LiveRow>(
        undefined,
        `with gone as (
          delete from rungs_jobs where sequence in (
            select sequence from rungs_jobs where ${chosenLiveSql} and sequence > $4
            order by sequence limit $5 for update skip locked)
          returning sequence, handler, key
        ) select * from gone order by sequence`,
        [...valuesOf(selection), sequence, limit],
      );
      await unblock(shard, keysOf(rows));
      return rows;
    });
    await operator.leave();
  }
  return count;
}

const zeroId = "00000000-0000-0000-0000-000000000000";
const chosenDeadSql = `select handler, job_id from rungs_dead_jobs
  where ${chosenSql} and (handler, job_id) > ($3::text collate "C", $4::uuid)
  order by handler, job_id limit $5 for update skip locked`;

function valuesOf({ ids, handler, state }: JobSelection): unknown[] {
  return [ids ?? null, handler ?? null, state ?? null];
}

function isAbout({ state }: JobSelection, wanted: string): boolean {
  return state === undefined || state === wanted;
}

/** Runs batches until one comes back short or the room is used up; each begins behind the last row of the one before. */
async function inBatches<R extends DeadRow | LiveRow>(
  room: number,
  from: readonly unknown[],
  batch: (limit: number, after: readonly unknown[]) => Promise<R[]>,
): Promise<number> {
  let count = 0;
  let after = from;
  while (count < room) {
    const limit = Math.min(batchRows, room - count);
    const rows = await batch(limit, after);
    count += rows.length;
    const last = rows.at(-1);
    if (last === undefined || rows.length < limit) break;
    after = "sequence" in last ? [last.sequence] : [last.handler, last.job_id];
  }
  return count;
}

function keysOf(rows: readonly LiveRow[]): { handler: string; key: string }[] {
  const keys = rows.flatMap(({ handler, key }) => (key === null ? [] : [{ handler, key }]));
  return [...new Map(keys.map((entry) => [JSON.stringify([entry.handler, entry.key]), entry])).values()];
}

/**
 * Whoever removes the first job of a key must let the next one go, in a statement of its own (see `job-tables.ts`). A tool that
 * dies in between would leave the key blocked. So it signs on as a worker that holds nothing, seen last at a time to come:
 * when it is gone by then, a real worker takes over from it and lets all keys go.
 */
async function signOn(shard: SqlDatabase): Promise<{ stay(): Promise<void>; leave(): Promise<void> }> {
  const sql = `insert into rungs_workers (worker_id, seen_at)
    values (coalesce($1::uuid, gen_random_uuid()), clock_timestamp() + ${operatorSeconds} * interval '1 s')
    on conflict (worker_id) do update set seen_at = excluded.seen_at returning worker_id`;
  const [row] = await shard.query<{ worker_id: string }>(undefined, sql, [null]);
  const id = row?.worker_id;
  return {
    async stay() {
      await shard.query(undefined, sql, [id]);
    },
    async leave() {
      await shard.query(undefined, "delete from rungs_workers where worker_id = $1", [id]);
    },
  };
}
