/**
 * What publishing costs a request: a POST that inserts a row, beside the same POST that also queues work for a handler.
 *
 * `npm run bench:publish -- --rate 200 --seconds 10 --rounds 5`. Open loop, the two routes taking turns in each round, in one
 * app on an embedded database with default durability, the handler at work beside the routes. Reported: medians of rounds.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pino } from "pino";
import { defineApp, defineService, uuidV7 } from "rungs";
import { startApp } from "rungs/app";
import { statements } from "rungs/database";
import { defineEvent, handle, publication } from "rungs/queue";
import { resolveTopology } from "rungs/topology";
import { z } from "zod";
import { type LoadResult, openLoop, requestBytes } from "./load-client.ts";

interface Tables {
  orders: { owner_id: string; order_id: string; text: string };
}

type Route = "plain" | "published";
const routes: readonly Route[] = ["plain", "published"];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "10" },
    rounds: { type: "string", default: "5" },
  },
});

const addOrder = statements<Tables>()<{ ownerId: string; orderId: string; text: string }>()("bench_add_order", (q, p) =>
  q.insertInto("orders").values({ owner_id: p.ownerId, order_id: p.orderId, text: p.text }).returning("order_id"),
);
const orderPlaced = defineEvent("order.placed", z.object({ ownerId: z.uuid(), orderId: z.uuid() }));

const orders = defineService<Tables>("orders", {
  tables: { orders: { shardBy: "owner_id" } },
  migrations: [
    {
      name: "0001_orders",
      shards: {
        up: "create table orders (owner_id uuid, order_id uuid, text text not null, primary key (owner_id, order_id))",
        down: "drop table orders",
      },
    },
  ],
  on: { pack: handle(orderPlaced, async () => {}) },
  routes: (fastify, { db, clock, random }) => {
    const place = (isPublished: boolean) => async (_: unknown, reply: { code(status: number): unknown }) => {
      const ownerId = uuidV7(clock, random);
      const order = { ownerId, orderId: uuidV7(clock, random), text: "a dozen eggs" };
      const publish = isPublished
        ? { publish: [publication(orderPlaced, { ownerId, orderId: order.orderId }, { key: ownerId })] }
        : {};
      await db.for(ownerId).run(addOrder, order, publish);
      reply.code(202);
      return { id: order.orderId };
    };
    fastify.post("/plain", place(false));
    fastify.post("/published", place(true));
  },
});

/** The app, as a process of its own: `publish.ts serve FOLDER`. */
async function serve(directory: string): Promise<void> {
  const { topology } = resolveTopology({ flags: { port: "0", dir: directory } });
  const definition = defineApp<Tables>({ name: "bench", services: [orders] });
  const app = await startApp(definition, { topology, log: pino({ level: "silent" }) });
  process.once("disconnect", () => void app.stop());
  process.send?.(app.address);
}

/** Rounds of both routes, after a warm-up. */
async function compare(port: number): Promise<void> {
  const results: Record<Route, LoadResult[]> = { plain: [], published: [] };
  const run = (route: Route, ms: number) => {
    const bytes = requestBytes({ method: "POST", path: `/${route}`, port });
    return openLoop({ port, next: () => bytes, connections: 32, durationMs: ms, ratePerSecond: Number(values.rate) });
  };
  for (const route of routes) await run(route, 2_000);
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const route of round % 2 === 0 ? routes : routes.toReversed()) {
      results[route].push(await run(route, Number(values.seconds) * 1_000));
    }
  }
  for (const route of routes) {
    const of = (figure: "p50Ms" | "p99Ms") => median(results[route].map((result) => result[figure])).toFixed(2);
    const failures = results[route].reduce((sum, result) => sum + result.failures, 0);
    print(`${route.padEnd(10)} p50 ${of("p50Ms")} ms   p99 ${of("p99Ms")} ms   failures ${failures}`);
  }
  const ratio = (figure: "p50Ms" | "p99Ms") =>
    median(results.published.map((result, round) => result[figure] / (results.plain[round]?.[figure] ?? Number.NaN)));
  print(`published to plain: p50 ${ratio("p50Ms").toFixed(2)}, p99 ${ratio("p99Ms").toFixed(2)}`);
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

if (positionals[0] === "serve") await serve(positionals[1] ?? "");
else {
  const folder = await mkdtemp(join(tmpdir(), "rungs-bench-publish-"));
  await chmod(folder, 0o755);
  const child = fork(fileURLToPath(import.meta.url), ["serve", folder]);
  try {
    print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}; ${values.rate} requests/s`);
    const [address] = (await once(child, "message")) as [string];
    await compare(Number(new URL(address).port));
  } finally {
    child.disconnect();
    await once(child, "exit");
    await rm(folder, { recursive: true, force: true });
  }
}
