/** Statements that a database has carried out, without those that an idle app sends anyway. */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { EmbeddedConnection } from "rungs/database/embedded";

/** Settings of the server that counts. */
export const countingSettings = { shared_preload_libraries: "pg_stat_statements" };

const idleMs = 4_000;

export interface QueryCount {
  /** Measures what the app asks while nobody visits it. */
  settle(): Promise<void>;
  /** Runs `work` and gives its result and the statements meanwhile, without those of an idle app. */
  during<T>(work: () => Promise<T>): Promise<{ readonly result: T; readonly queries: number }>;
  close(): Promise<void>;
}

/** Opens the counter. */
export async function countQueries(connection: EmbeddedConnection): Promise<QueryCount> {
  const client = new pg.Client(connection);
  await client.connect();
  await client.query("create extension if not exists pg_stat_statements");
  const now = async () => {
    const { rows } = await client.query(
      "select coalesce(sum(calls), 0)::float8 as calls from pg_stat_statements where query not like '%pg_stat_statements%'",
    );
    return (rows[0] as { calls: number }).calls;
  };
  let idlePerMs = 0;
  return {
    async settle() {
      const before = await now();
      await sleep(idleMs);
      idlePerMs = ((await now()) - before) / idleMs;
    },
    async during(work) {
      const [before, since] = [await now(), performance.now()];
      const result = await work();
      const idle = idlePerMs * (performance.now() - since);
      return { result, queries: Math.max(0, (await now()) - before - idle) };
    },
    close: () => client.end(),
  };
}
