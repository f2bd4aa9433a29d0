/**
 * Conduit at every rung: in this process at rung 1, started by `rungs up` above it. A suite gives its body once and runs it at each.
 *
 * Above rung 1 `app` is one more process of the same stack, in this process: on its databases and its Redis, but not behind the balancer.
 * So tests can look into the databases and publish events while all their requests go to the stack's own processes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { startApp } from "rungs/app";
import { embeddedConnection } from "rungs/database/embedded";
import { env, resolveTopology, type TopologyInput } from "rungs/topology";
import conduit from "../../src/app.ts";
import { calmWeb, startConduit, type TestConduit } from "./conduit.ts";

const bin = fileURLToPath(new URL("../../../../packages/operator/bin/rungs.mjs", import.meta.url));
const conduitFolder = fileURLToPath(new URL("../../", import.meta.url));
const readyWithinMs = 90_000;

/** Where a suite runs. */
export interface Target {
  /** For the names of tests. */
  readonly title: string;
  readonly rung: 1 | 2 | 4 | 5;
  readonly shards: number;
  readonly cache: "on" | "off";
  /** Web processes that answer requests. */
  readonly processes: number;
}

/** Two in CI, for its time; `CONDUIT_RUNG_4_SHARDS=3 npm test -- journey` runs the same on another number. */
const shardsAtRung4 = Number(process.env["CONDUIT_RUNG_4_SHARDS"] ?? 2);

/** What is tested above rung 1; a later rung is a line here. */
const above: readonly Target[] = [
  { title: "rung 2: 3 processes, 2 shards", rung: 2, shards: 2, cache: "on", processes: 3 },
  {
    title: `rung 4: 2 processes, ${shardsAtRung4} shard${shardsAtRung4 === 1 ? "" : "s"} with followers`,
    ...{ rung: 4, shards: shardsAtRung4, cache: "on", processes: 2 },
  },
  { title: "rung 5: RabbitMQ, workers, payments apart, 2 shards", rung: 5, shards: 2, cache: "on", processes: 2 },
];

/**
 * Rung 1 with each of these settings, and each of the rungs above it once: for `describe.each(...)("... at $title", ...)`.
 *
 * Rung 4 starts six servers of PostgreSQL, so only suites about what is read after what was written go up to it; to rung 5 go those
 * about what is done in the background. Both have the several processes of rung 2 in them, and take its place, for the time that all tests take.
 */
export function targets(
  atRung1: readonly Pick<Target, "shards" | "cache">[],
  { rungs = [2] }: { readonly rungs?: readonly Target["rung"][] } = {},
): readonly Target[] {
  const single = atRung1.map(({ shards, cache }): Target => {
    const title = `rung 1: ${shards} shard${shards === 1 ? "" : "s"}, cache ${cache}`;
    return { title, rung: 1, shards, cache, processes: 1 };
  });
  return [...single, ...above.filter(({ rung }) => rungs.includes(rung))];
}

/** A web process of a stack. */
export interface WebProcess {
  readonly name: string;
  readonly pid: number;
  /** Its own address, behind the balancer. */
  readonly url: string;
}

/** A running Conduit, whose `url` is the balancer's where there is one. */
export interface ConduitAtRung extends TestConduit {
  readonly rung: Target["rung"];
  /** Its web processes; at rung 1 the one in this process. */
  readonly web: readonly WebProcess[];
  /** All that run the app, those included that only handle messages. */
  readonly processes: readonly WebProcess[];
  /** Requests that each web process was sent by the balancer, by its address; empty at rung 1. */
  requestsByProcess(): Promise<ReadonlyMap<string, number>>;
}

export interface StartAtOptions {
  /** Settings beside those of this process, for every process; e.g. of a payment provider. */
  readonly environment?: Readonly<Record<string, string>>;
  /** The settings file of `rungs up`; not for rung 1. */
  readonly settings?: TopologyInput;
}

/** Starts Conduit with fresh data. */
export async function startConduitAt(
  target: Pick<Target, "rung" | "shards" | "cache" | "processes">,
  options: StartAtOptions = {},
): Promise<ConduitAtRung> {
  if (target.rung > 1) return startStack(target, options);
  const started = await startConduit({ ...options, shards: target.shards, cache: target.cache });
  const web = [{ name: "web-1", pid: process.pid, url: started.url }];
  return { ...started, rung: 1, web, processes: web, requestsByProcess: async () => new Map() };
}

async function startStack(
  { rung, shards, cache, processes }: Pick<Target, "rung" | "shards" | "cache" | "processes">,
  { environment = {}, settings = {} }: StartAtOptions,
): Promise<ConduitAtRung> {
  const folder = await mkdtemp(join(tmpdir(), "conduit-stack-"));
  // The databases run as another user when the tests run as root.
  await chmod(folder, 0o755);
  const config = join(folder, "settings.json");
  const web = { ...calmWeb.web, ...settings.web };
  await writeFile(config, JSON.stringify({ ...settings, ...(rung === 5 ? split : {}), web }));
  const flags = { rung: rung === 5 ? 3 : rung, port: 0, dir: folder, shards, processes, config };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const launcher = spawn(process.execPath, [bin, "up", "--json", ...args], {
    cwd: conduitFolder,
    env: { ...withoutServers(process.env), ...environment, RUNGS_CACHE: cache, RUNGS_LOG_LEVEL: "error" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  try {
    const line = await readyLine(launcher);
    const app = await joinStack({ folder, rung, shards, cache, environment });
    const processesOf = (...roles: readonly string[]) =>
      line.processes
        .filter(({ role }) => roles.includes(role))
        .map(({ name, pid, port }) => ({ name, pid, url: `http://127.0.0.1:${port}` }));
    const web = processesOf("web");
    // Past the CDN, which may show others a change some milliseconds later: it has tests of its own.
    const balancer = line.processes.find(({ role }) => role === "balancer")?.port;
    return {
      ...{
        url: `http://127.0.0.1:${balancer}`,
        folder,
        app,
        rung,
        web,
        processes: processesOf("web", "worker", "service"),
      },
      requestsByProcess: () => requestsIn(join(folder, "logs", "balancer-access.log"), web),
      async stop() {
        const errors = await app.stop();
        const code = await end(launcher, "SIGTERM");
        await rm(folder, { recursive: true, force: true });
        if (errors.length > 0 || code !== 0) throw new AggregateError(errors, `The stack ended with ${code}`);
      },
    };
  } catch (error) {
    await end(launcher, "SIGTERM");
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/**
 * What rung 5 adds: payments in a process of their own, all other handlers in workers. It is added to rung 3, whose databases are
 * embedded: servers with followers are rung 4's part.
 */
const split = {
  queue: { url: { env: "QUEUE_URL" } },
  services: { workers: { processes: 1 }, payments: { processes: 1 } },
};

/** Servers of the developer's own have no part in tests, and npm's presence none in the launcher's life. */
function withoutServers(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const others = /^(?:DATABASE_URL|REDIS_URL|CACHE_URL|QUEUE_URL|SHARD_\d+_\w+|RUNGS_DIR|npm_command)$/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !others.test(name)));
}

interface ReadyLine {
  readonly app: string;
  readonly processes: readonly { name: string; role: string; pid: number; port: number | null }[];
}

function readyLine(launcher: ChildProcess): Promise<ReadyLine> {
  let stdout = "";
  let stderr = "";
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Not ready within ${readyWithinMs} ms: ${stderr}`)), readyWithinMs);
    launcher.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-20_000);
    });
    launcher.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (!stdout.includes("\n")) return;
      clearTimeout(timer);
      resolve(JSON.parse(stdout.split("\n")[0] as string));
    });
    launcher.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`rungs up ended with ${code}: ${stderr}`));
    });
  });
}

async function end(launcher: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (launcher.exitCode !== null || launcher.signalCode !== null) return launcher.exitCode;
  const ended = once(launcher, "exit");
  launcher.kill(signal);
  await ended;
  return launcher.exitCode;
}

/** Sum of a metric's values over all processes; `pattern` has the value as its only group. */
export async function metricSum({ processes, app }: ConduitAtRung, pattern: RegExp): Promise<number> {
  const addresses = new Set([...processes.map(({ url }) => url), app.address]);
  const texts = await Promise.all([...addresses].map(async (url) => (await fetch(`${url}/metrics`)).text()));
  const values = texts.flatMap((text) =>
    [...text.matchAll(new RegExp(pattern, "gm"))].map(([, value]) => Number(value)),
  );
  if (values.length === 0) throw new Error(`No process has a metric like ${pattern}`);
  return values.reduce((sum, value) => sum + value, 0);
}

/** Live streams that are open at any process. */
export const openStreams = (conduit: ConduitAtRung) => metricSum(conduit, /^live\{kind="streams",reason=""\} (\d+)$/);

/** One more process of the stack, in this one: on its databases, its Redis and its caches. */
async function joinStack(options: {
  readonly folder: string;
  readonly rung: Target["rung"];
  readonly shards: number;
  readonly cache: "on" | "off";
  readonly environment: Readonly<Record<string, string>>;
}): Promise<TestConduit["app"]> {
  const { folder, rung, shards, cache, environment } = options;
  const { ports } = JSON.parse(await readFile(join(folder, "stack.json"), "utf8")) as { ports: Record<string, number> };
  const secret = async (name: string) => (await readFile(join(folder, "secrets", name), "utf8")).trim();
  const redis = async (name: string) => `redis://:${await secret(`${name}-password`)}@127.0.0.1:${ports[name]}`;
  const shard = async (index: number) =>
    rung !== 4
      ? databaseUrl(folder, index)
      : `postgres://app:${await secret("postgres-app-password")}@127.0.0.1:${ports[`shard-${index}-leader`]}/app`;
  const urls = await Promise.all(Array.from({ length: shards }, (_, index) => shard(index)));
  const isCached = rung >= 3;
  const { topology } = resolveTopology({
    file: {
      name: "of the test",
      content: {
        dataDirectory: folder,
        web: { port: 0 },
        sessions: { url: env("REDIS_URL") },
        database: { shards: urls.map((_, index) => ({ leader: env(`SHARD_${index}`) })) },
        cache: { isEnabled: cache === "on", ...(isCached ? { url: env("CACHE_URL") } : {}) },
        ...(rung < 5
          ? {}
          : {
              queue: { url: env("QUEUE_URL") },
              services: { workers: {}, payments: { url: `http://127.0.0.1:${ports["payments-internal"]}` } },
              // It publishes, and lets the stack's own processes do the work.
              group: "web",
            }),
        ...(isCached
          ? {
              cdn: {
                provider: "varnish",
                addresses: [`http://127.0.0.1:${ports["purge"]}`],
                token: env("RUNGS_PURGE_SECRET"),
              },
            }
          : {}),
      },
    },
  });
  return startApp(conduit, {
    topology,
    log: pino({ level: "fatal" }),
    environment: {
      ...process.env,
      ...environment,
      REDIS_URL: await redis("redis"),
      ...(isCached ? { CACHE_URL: await redis("cache"), RUNGS_PURGE_SECRET: await secret("purge-secret") } : {}),
      ...(rung < 5
        ? {}
        : { QUEUE_URL: `amqp://app:${await secret("rabbitmq-password")}@127.0.0.1:${ports["rabbitmq"]}` }),
      ...Object.fromEntries(urls.map((url, index) => [`SHARD_${index}`, url])),
    },
  });
}

async function databaseUrl(folder: string, shard: number): Promise<string> {
  const found = await embeddedConnection(join(folder, "database", `shard-${shard}`));
  if (found === undefined) throw new Error(`The stack has no shard ${shard}.`);
  const { host, port, user, password, database } = found;
  return `postgres://${user}:${encodeURIComponent(password)}@/${database}?host=${encodeURIComponent(host)}&port=${port}`;
}

/** By the balancer's access log, which names the process that answered last. It is written every second. */
async function requestsIn(log: string, web: readonly WebProcess[]): Promise<ReadonlyMap<string, number>> {
  const counts = new Map(web.map(({ url }) => [url, 0]));
  for (const line of (await readFile(log, "utf8")).split("\n")) {
    const [, places] = /"upstream":"([^"]+)"/.exec(line) ?? [];
    const url = `http://${places?.split(", ").at(-1)}`;
    const before = counts.get(url);
    if (before !== undefined) counts.set(url, before + 1);
  }
  return counts;
}
