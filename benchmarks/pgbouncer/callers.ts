/** One web process's worth of database callers, told what to do by its parent: for benchmarks/pgbouncer.ts. */
import type { ShardConnection } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";

/** What the parent sends: to open a pool and all its connections, to send requests by as many callers, to close it. */
export type Order =
  | { readonly url: string; readonly isPreparing: boolean; readonly connections: number }
  | {
      readonly callers: number;
      readonly forMs: number;
      /** Pause of a caller between two requests, on average. */
      readonly pauseMs: number;
    }
  | "close";

/** What comes back: how long each request took. */
export interface Outcome {
  readonly durationsMs: readonly number[];
  readonly failures: number;
}

// Nobody is left to tell anything to.
process.on("disconnect", () => process.exit());

const people = 1_000;
const idAt = (index: number) => `0190c7a0-0000-7000-8000-${(index % people).toString(16).padStart(12, "0")}`;
const read = "select user_id, username, bio, visits from users where user_id = $1";
const write = "update users set visits = visits + 1 where user_id = $1";

let pool: ShardConnection | undefined;

process.on("message", async (order: Order) => {
  if (order === "close") {
    await pool?.close();
    pool = undefined;
    process.send?.("closed");
    return;
  }
  if ("url" in order) {
    const { url, isPreparing, connections } = order;
    const opened = openPostgres({
      name: "shard 0",
      address: { url },
      pool: { connectionsMax: connections, preparedStatements: isPreparing, acquireTimeoutMs: 20_000 },
    });
    pool = opened;
    await Promise.all(Array.from({ length: connections }, () => opened.query(undefined, "select 1", [])));
    process.send?.("open");
    return;
  }
  const { callers, forMs, pauseMs } = order;
  const server = pool as ShardConnection;
  const durationsMs: number[] = [];
  let failures = 0;
  const until = performance.now() + forMs;
  await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      for (let index = caller; performance.now() < until; index += callers) {
        const since = performance.now();
        try {
          for (let time = 0; time < 3; time++) await server.query("bench_user", read, [idAt(index * 7 + time)]);
          if (index % 10 === 0) await server.query("bench_visit", write, [idAt(index * 7)]);
          durationsMs.push(performance.now() - since);
        } catch {
          failures++;
        }
        if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, 2 * pauseMs * Math.random()));
      }
    }),
  );
  process.send?.({ durationsMs, failures } satisfies Outcome);
});
