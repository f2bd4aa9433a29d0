/**
 * The job table, alone and with RabbitMQ and Kafka to carry its messages, beside graphile-worker, pg-boss and BullMQ, in one run on one machine: jobs a second, time from adding a job
 * to its handler's first line; the same with a million jobs of another handler waiting; and once more while a transaction
 * stays open, so that PostgreSQL can remove no dead row.
 *
 * `npm run bench:queue -- --jobs 20000 --backlog 1000000`. All PostgreSQL systems share one embedded server with default
 * durability (fsync); BullMQ has Redis with its log synced each second, which is less durable. Adding and handling happen in
 * one process, ours.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startTestKafka, whyNoKafka } from "@rungs/contract/test-kafka";
import { startTestRabbitmq } from "@rungs/contract/test-rabbitmq";
import pg from "pg";
import { startEmbeddedPostgres } from "rungs/database/embedded";
import type { Broker } from "rungs/queue";
import { kafkaBroker } from "rungs/queue/kafka";
import { rabbitmqBroker } from "rungs/queue/rabbitmq";
import {
  bullJobs,
  concurrency,
  graphileJobs,
  type JobSystem,
  type Payload,
  pgBossJobs,
  rungsJobs,
} from "./queue/systems.ts";

const { values } = parseArgs({
  options: {
    jobs: { type: "string", default: "20000" },
    backlog: { type: "string", default: "1000000" },
    seconds: { type: "string", default: "10" },
    rate: { type: "string", default: "100" },
    only: { type: "string" },
  },
});
const jobs = Number(values.jobs);
const backlog = Number(values.backlog);
const seconds = Number(values.seconds);
const rate = Number(values.rate);
const batch = 1_000;
const waitMaxMs = 120_000;

const folder = await mkdtemp(join(tmpdir(), "rungs-bench-queue-"));
await chmod(folder, 0o755);
const database = await startEmbeddedPostgres({ directory: join(folder, "database") });
const redis = await startRedis();
try {
  await main();
} finally {
  redis?.child.kill("SIGKILL");
  await database.stop();
  await rm(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}; ${concurrency} jobs at a time`);
  print(
    "system           besides          add/s  jobs/s   add to start, ms: p50     p99     max   one add, ms: p50     p99",
  );
  const systems: [string, (url: string) => Promise<JobSystem>][] = [
    ["rungs", rungsJobs],
    ["graphile", graphileJobs],
    ["pgboss", pgBossJobs],
  ];
  for (const [name, open] of systems) {
    if (isWanted(name)) await measure(await open(await createDatabase(name)));
  }
  if (isWanted("rabbitmq"))
    await measureBroker("rabbitmq", await startTestRabbitmq(), (url) => rabbitmqBroker({ url }));
  const kafkaMissing = whyNoKafka();
  if (kafkaMissing !== undefined) print(`rungs, Kafka     not run: ${kafkaMissing}`);
  else if (isWanted("kafka")) await measureBroker("kafka", await startTestKafka(), (url) => kafkaBroker({ url }));
  if (redis === undefined)
    print("bullmq            not run: no redis-server on this machine (apt-get install redis-server)");
  else if (isWanted("bullmq")) await measure(await bullJobs(redis.port));
}

function isWanted(name: string): boolean {
  return values.only === undefined || values.only === name;
}

async function measureBroker(
  name: string,
  server: { readonly url: string; stop(): Promise<void> },
  open: (url: string) => Broker,
): Promise<void> {
  try {
    await measure(await rungsJobs(await createDatabase(name), open(server.url)));
  } finally {
    await server.stop();
  }
}

async function measure(system: JobSystem): Promise<void> {
  await report(system, "nothing");
  for (let done = 0; done < backlog; done += batch) {
    await system.addMany(payloads(Math.min(batch, backlog - done)), "wait");
  }
  if (backlog > 0) await report(system, `${backlog} wait`);
  if (system.database !== undefined) {
    const client = new pg.Client({ connectionString: system.database });
    await client.connect();
    await client.query("begin isolation level repeatable read");
    await client.query("select count(*) from pg_class");
    await report(system, "and a snapshot");
    await client.end();
  }
  await system.close();
}

async function report(system: JobSystem, besides: string): Promise<void> {
  const { addPerSecond, jobsPerSecond, handled } = await throughput(system);
  if (handled < jobs) {
    print(
      `${system.name.padEnd(16)} ${besides.padEnd(14)} ${handled} of ${jobs} jobs in ${waitMaxMs / 1_000} s; not measured further`,
    );
    return;
  }
  const { starts, adds } = await latency(system);
  const ms = (values: readonly number[], share: number) => quantile(values, share).toFixed(1).padStart(8);
  print(
    `${system.name.padEnd(16)} ${besides.padEnd(14)} ${addPerSecond.toFixed(0).padStart(7)} ${jobsPerSecond
      .toFixed(0)
      .padStart(
        7,
      )}            ${ms(starts, 0.5)}${ms(starts, 0.99)}${ms(starts, 1)}            ${ms(adds, 0.5)}${ms(adds, 0.99)}`,
  );
}

/** Adds in bulk with no worker, then handles what waits. */
async function throughput(
  system: JobSystem,
): Promise<{ addPerSecond: number; jobsPerSecond: number; handled: number }> {
  const addSince = performance.now();
  for (let done = 0; done < jobs; done += batch) await system.addMany(payloads(batch), "run");
  const addMs = performance.now() - addSince;
  let handled = 0;
  const since = performance.now();
  await system.startWorker(async () => {
    handled++;
  });
  await within(() => handled >= jobs);
  const runMs = performance.now() - since;
  await system.stopWorker();
  return { addPerSecond: (jobs / addMs) * 1_000, jobsPerSecond: (handled / runMs) * 1_000, handled };
}

/** Open loop: a job is added at each tick whether or not those before it have started. */
async function latency(system: JobSystem): Promise<{ starts: number[]; adds: number[] }> {
  const starts: number[] = [];
  const adds: number[] = [];
  await system.startWorker(async ({ addedAtMs }) => {
    starts.push(performance.now() - addedAtMs);
  });
  await sleep(1_000);
  const count = rate * seconds;
  const since = performance.now();
  const adding: Promise<void>[] = [];
  for (let index = 0; index < count; index++) {
    await sleep(Math.max(0, since + (index * 1_000) / rate - performance.now()));
    const addedAtMs = performance.now();
    adding.push(system.add({ number: index, addedAtMs }).then(() => void adds.push(performance.now() - addedAtMs)));
  }
  await Promise.all(adding);
  await within(() => starts.length >= count);
  await system.stopWorker();
  return { starts, adds };
}

function payloads(count: number): Payload[] {
  return Array.from({ length: count }, (_, number) => ({ number, addedAtMs: 0 }));
}

async function within(isDone: () => boolean): Promise<void> {
  const deadline = performance.now() + waitMaxMs;
  while (!isDone() && performance.now() < deadline) await sleep(5);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

async function createDatabase(name: string): Promise<string> {
  const { host, user, password } = database.connection;
  const url = (databaseName: string) =>
    `postgres://${user}:${password}@/${databaseName}?host=${encodeURIComponent(host)}&port=${database.connection.port}`;
  const client = new pg.Client({ connectionString: url("postgres") });
  await client.connect();
  await client.query(`create database bench_${name}`);
  await client.end();
  return url(`bench_${name}`);
}

async function startRedis() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  const settings = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes"];
  const child = spawn("redis-server", [...settings, "--save", ""], { stdio: ["ignore", "pipe", "inherit"] });
  const isThere = await new Promise<boolean>((resolve) => {
    child.once("error", () => resolve(false));
    child.stdout?.on("data", (text: Buffer) => text.includes("Ready to accept connections") && resolve(true));
  });
  return isThere ? { child, port } : undefined;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
