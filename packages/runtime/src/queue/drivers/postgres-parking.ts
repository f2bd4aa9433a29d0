/** The job tables as the place where a broker's messages wait. */

import type { ClaimedJob } from "../job-store.ts";
import type { ParkedJob, Parking } from "../parking.ts";
import { priorities } from "./job-writer.ts";
import { queryIn, type SqlDatabase } from "./postgres-job-store.ts";

const parkSql =
  "select rungs_park($1::uuid[], $2, $3, $4::int2[], $5, $6::json[], $7::float8[], $8::int4[], $9::float8[], $10, $11::boolean[], $12::int2[], $13::float8[])";

/** `shards`: by number, each with the tables of `queueMigrations`. */
export function postgresParking(shards: readonly SqlDatabase[]): Parking {
  const shardAt = (number: number): SqlDatabase => {
    const shard = shards[number];
    if (shard === undefined) throw new RangeError(`A message came from shard ${number}; there are ${shards.length}.`);
    return shard;
  };
  return {
    async blocked(shard, jobs) {
      const values = [jobs.map(({ handler }) => handler), jobs.map(({ key }) => key)];
      const sql = "select rungs_blocked($1, $2) as blocked";
      const [row] = await shardAt(shard).query<{ blocked: boolean[] }>("rungs_blocked", sql, values);
      return row?.blocked ?? [];
    },

    async park(shard, jobs) {
      await shardAt(shard).query("rungs_park", parkSql, columnsOf(jobs));
    },

    async noteStep(tx, job: ClaimedJob, step) {
      const sql = `with noted as (
          insert into rungs_inbox (job_id, handler, step) values ($1, $2, $3) on conflict do nothing returning 1
        ) select exists (select from noted) as "isFirst"`;
      const [row] = await queryIn<{ isFirst: boolean }>(tx, sql, [job.jobId, job.handler, step]);
      return row?.isFirst === true ? "first" : "repeated";
    },
  };
}

function columnsOf(jobs: readonly ParkedJob[]): unknown[] {
  return [
    jobs.map(({ message }) => message.id),
    jobs.map(({ handler }) => handler),
    jobs.map(({ message }) => message.event),
    jobs.map(({ message }) => message.version),
    jobs.map(({ message }) => message.key),
    jobs.map(({ message }) => JSON.stringify(message.payload)),
    jobs.map(({ message }) => message.publishedAt.getTime()),
    jobs.map(({ attempts }) => attempts),
    jobs.map(({ delayMs }) => delayMs),
    jobs.map(({ error }) => error),
    jobs.map(({ isDead }) => isDead),
    jobs.map(({ message: { priority = "normal" } }) => priorities.indexOf(priority)),
    jobs.map(({ message: { dueAt } }) => dueAt?.getTime() ?? null),
  ];
}
