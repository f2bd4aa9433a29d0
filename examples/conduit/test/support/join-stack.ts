/** One more process of a stack, in this one: for tests that look into its databases. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { createLifecycle } from "rungs";
import { openDatabases, startApp } from "rungs/app";
import { embeddedConnection } from "rungs/database/embedded";
import { env, resolveTopology } from "rungs/topology";
import conduit from "../../src/app.ts";
import type { TestConduit } from "./conduit.ts";
import type { StackTarget } from "./target.ts";

/** Ports of the stack in that folder, by their names. */
export async function portsOf(folder: string): Promise<Record<string, number>> {
  return JSON.parse(await readFile(join(folder, "stack.json"), "utf8")).ports;
}

/** Starts it on the stack's databases, its Redis and its caches. Of regions, in the first one. */
export async function joinStack(
  options: StackTarget & {
    readonly folder: string;
    readonly environment: Readonly<Record<string, string>>;
    readonly splits: readonly string[];
  },
): Promise<Pick<TestConduit, "app" | "payments"> & { close(): Promise<unknown> }> {
  const { folder, rung, shards, cache, environment, strategy = "hash", splits, isRegional = false } = options;
  const ports = await portsOf(folder);
  const prefix = isRegional ? "eu-" : "";
  const isSplit = rung === 5 && !isRegional;
  const secret = async (name: string) => (await readFile(join(folder, "secrets", name), "utf8")).trim();
  const redis = async (name: string, passwordOf = name) =>
    `redis://:${await secret(`${passwordOf}-password`)}@127.0.0.1:${ports[name]}`;
  const shard = async (index: number) =>
    rung === 4 || isRegional
      ? `postgres://app:${await secret("postgres-app-password")}@127.0.0.1:${ports[`${prefix}shard-${index}-leader`]}/app`
      : databaseUrl(folder, `shard-${index}`);
  const urls = await Promise.all(Array.from({ length: shards }, (_, index) => shard(index)));
  const isCached = rung >= 3;
  const { topology } = resolveTopology({
    file: {
      name: "of the test",
      content: {
        dataDirectory: folder,
        web: { port: 0 },
        sessions: { url: env("REDIS_URL") },
        database: {
          shards: urls.map((_, index) => ({ leader: env(`SHARD_${index}`) })),
          ...{ strategy, splits },
          // This process starts while all of the stack does.
          pool: { acquireTimeoutMs: 20_000 },
        },
        cache: { isEnabled: cache === "on", ...(isCached ? { url: env("CACHE_URL") } : {}) },
        ...(!isSplit
          ? {}
          : {
              queue: { url: env("QUEUE_URL") },
              services: {
                workers: {},
                payments: {
                  url: `http://127.0.0.1:${ports["payments-internal"]}`,
                  database: { shards: [{ leader: env("PAYMENTS_SHARD_0") }] },
                },
              },
              // It publishes, and lets the stack's own processes do the work.
              group: "web",
            }),
        ...(isCached
          ? {
              cdn: {
                provider: "varnish",
                addresses: [`http://127.0.0.1:${ports[`${prefix}purge`]}`],
                token: env("RUNGS_PURGE_SECRET"),
              },
            }
          : {}),
      },
    },
  });
  const joining = {
    topology,
    log: pino({ level: "fatal" }),
    environment: {
      ...process.env,
      ...environment,
      REDIS_URL: await redis(`${prefix}redis`, "redis"),
      ...(isCached
        ? { CACHE_URL: await redis(`${prefix}cache`), RUNGS_PURGE_SECRET: await secret("purge-secret") }
        : {}),
      ...(!isSplit
        ? {}
        : {
            QUEUE_URL: `amqp://app:${await secret("rabbitmq-password")}@127.0.0.1:${ports["rabbitmq"]}`,
            PAYMENTS_SHARD_0: await databaseUrl(folder, "payments-shard-0"),
          }),
      ...Object.fromEntries(urls.map((url, index) => [`SHARD_${index}`, url])),
    },
  };
  const app = await startApp(conduit, joining);
  if (!isSplit) return { app, payments: app.context.db, close: async () => {} };
  // To look into, as a tool does: no process of the payments runs here.
  const lifecycle = createLifecycle({ log: joining.log });
  const ofPayments = { ...joining, topology: { ...topology, group: "payments" } };
  const { db } = await openDatabases(conduit, ofPayments, lifecycle);
  return { app, payments: db, close: () => lifecycle.stop() };
}

async function databaseUrl(folder: string, name: string): Promise<string> {
  const found = await embeddedConnection(join(folder, "database", name));
  if (found === undefined) throw new Error(`The stack has no database ${name}.`);
  const { host, port, user, password, database } = found;
  return `postgres://${user}:${encodeURIComponent(password)}@/${database}?host=${encodeURIComponent(host)}&port=${port}`;
}
