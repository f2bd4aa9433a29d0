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
import { systemClock, systemRandom, uuidV7 } from "rungs";
import type { TopologyInput } from "rungs/topology";
import { createConduit } from "../../src/app.ts";
import { type Client, client, registered } from "./client.ts";
import { calmWeb, startConduit, type TestConduit } from "./conduit.ts";
import { joinStack, portsOf } from "./join-stack.ts";
import { delayFollowers, lateMs, type ReplicaLag } from "./replica-lag.ts";
import type { StackTarget, Target } from "./target.ts";

const bin = fileURLToPath(new URL("../../../../packages/operator/bin/rungs.mjs", import.meta.url));
const conduitFolder = fileURLToPath(new URL("../../", import.meta.url));
const readyWithinMs = 90_000;

/** What is tested above rung 1; a later rung is a line here. */
const above: readonly Target[] = [
  { title: "rung 2: 3 processes, 2 shards", rung: 2, shards: 2, cache: "on", processes: 3 },
  ...kindsOfRung4(process.env["CONDUIT_RUNG_4"] ?? "2 range late"),
  { title: "rung 5: RabbitMQ, workers, payments apart, 2 shards", rung: 5, shards: 2, cache: "on", processes: 2 },
];
const twoRegions: Target = {
  title: "rung 5: two regions, users in both",
  ...{ rung: 5, shards: 1, cache: "on", processes: 1, isRegional: true },
};

/**
 * Rung 1 with each of these settings, and each of the rungs above it once: for `describe.each(...)("... at $title", ...)`.
 *
 * Rung 4 starts six servers of PostgreSQL, so only suites about what is read after what was written go up to it; to rung 5 go those
 * about what is done in the background. Both have the several processes of rung 2 in them, and take its place, for the time that all tests take.
 */
export function targets(
  atRung1: readonly Pick<Target, "shards" | "cache">[],
  {
    rungs = [2],
    more = [],
    hasRegions = false,
  }: {
    readonly rungs?: readonly Target["rung"][];
    /** Whether in two regions too; default false. */
    readonly hasRegions?: boolean;
    /** Rung 1 with these too when CONDUIT_TARGETS is "all": what they would show, other suites show in less time. */
    readonly more?: typeof atRung1;
  } = {},
): readonly Target[] {
  const asked = process.env["CONDUIT_TARGETS"] === "all" ? [...more, ...atRung1] : atRung1;
  const single = asked.map(({ shards, cache }): Target => {
    const title = `rung 1: ${shards} shard${shards === 1 ? "" : "s"}, cache ${cache}`;
    return { title, rung: 1, shards, cache, processes: 1 };
  });
  return [...single, ...above.filter(({ rung }) => rungs.includes(rung)), ...(hasRegions ? [twoRegions] : [])];
}

/**
 * What CONDUIT_RUNG_4 asks for, with commas between: a number of shards, then "hash" or "range", then "late" for followers that lag. "all" is
 * every combination. One in CI, for its time: the one that has most in it.
 */
function kindsOfRung4(asked: string): Target[] {
  const strategies = ["hash", "range"] as const;
  const every = [1, 2, 3].flatMap((shards) =>
    strategies.flatMap((strategy) => [`${shards} ${strategy}`, `${shards} ${strategy} late`]),
  );
  return (asked === "all" ? every : asked.split(",")).map((kind): Target => {
    const [, count, strategy, late] = /^ *([1-9]) (hash|range)( late)? *$/.exec(kind) ?? [];
    if (count === undefined) throw new Error(`CONDUIT_RUNG_4: "${kind}" is not like "2 range late".`);
    const shards = Number(count);
    const title = `rung 4: 2 processes, ${shards} shard${shards === 1 ? "" : "s"} by ${strategy} with followers${late === undefined ? "" : " that lag"}`;
    return {
      ...{ title, rung: 4, shards, cache: "on", processes: 2 },
      ...{ strategy: strategy as "hash" | "range", isLate: late !== undefined },
    };
  });
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
  /**
   * Registers somebody whose rows are on that shard of those by ranges: an id begins with the time it was made at, so all who come now are
   * on the last one. By hash, wherever chance puts them. In two regions, a user of the first one, which `url` is not.
   */
  registeredOn(shard: number, username: string): Promise<Client>;
  /** What holds followers back, where something does. */
  readonly lag: ReplicaLag | undefined;
}

export interface StartAtOptions {
  /** Settings beside those of this process, for every process; e.g. of a payment provider. */
  readonly environment?: Readonly<Record<string, string>>;
  /** The settings file of `rungs up`; not for rung 1. */
  readonly settings?: TopologyInput;
}

/** Starts Conduit with fresh data. */
export async function startConduitAt(target: StackTarget, options: StartAtOptions = {}): Promise<ConduitAtRung> {
  if (target.rung > 1) return startStack(target, options);
  const started = await startConduit({ ...options, shards: target.shards, cache: target.cache });
  const web = [{ name: "web-1", pid: process.pid, url: started.url }];
  return {
    ...{ ...started, rung: 1, web, processes: web, lag: undefined },
    requestsByProcess: async () => new Map(),
    registeredOn: (_shard, username) => registered(started.url, username),
  };
}

async function startStack(target: StackTarget, options: StartAtOptions): Promise<ConduitAtRung> {
  const { rung, shards, cache, isLate = false, isRegional = false } = target;
  const { environment = {} } = options;
  const folder = await mkdtemp(join(tmpdir(), "conduit-stack-"));
  // The databases run as another user when the tests run as root.
  await chmod(folder, 0o755);
  const splits = target.strategy === "range" ? splitsByAge(shards) : [];
  const launcher = spawn(
    process.execPath,
    [bin, "up", "--json", ...(await argumentsOf(target, options, { folder, splits }))],
    {
      cwd: conduitFolder,
      env: { ...withoutServers(process.env), ...environment, RUNGS_CACHE: cache, RUNGS_LOG_LEVEL: "error" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  try {
    const line = await readyLine(launcher);
    const { app, payments, close } = await joinStack({ ...target, folder, environment, splits });
    const lag = isLate ? await delayFollowers({ folder, shards, ports: await portsOf(folder) }) : undefined;
    const processesOf = (...roles: readonly string[]) =>
      line.processes
        .filter(({ role }) => roles.includes(role))
        .map(({ name, pid, port }) => ({ name, pid, url: `http://127.0.0.1:${port}` }));
    const web = processesOf("web");
    // Past the CDN, which may show others a change some milliseconds later: it has tests of its own.
    const [near, far] = processesOf("balancer").map((balancer) => balancer.url) as [string, string | undefined];
    const url = far ?? near;
    return {
      ...{ url, folder, app, payments, rung, web, processes: processesOf("web", "worker", "service"), lag },
      requestsByProcess: () => requestsIn(join(folder, "logs", "balancer-access.log"), web),
      registeredOn: (shard, username) =>
        splits.length === 0 || shard === shards - 1
          ? registered(isRegional ? near : url, username)
          : registeredBefore({ url, app }, username, (shards - 1 - shard + 0.5) * dayMs),
      async stop() {
        await lag?.stop();
        await close();
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

/** What `rungs up` is told; writes its settings file. */
async function argumentsOf(
  { rung, shards, processes, strategy = "hash", isLate = false, isRegional = false }: StackTarget,
  { settings = {} }: StartAtOptions,
  { folder, splits }: { readonly folder: string; readonly splits: readonly string[] },
): Promise<string[]> {
  const config = join(folder, "settings.json");
  const isSplit = rung === 5 && !isRegional;
  const web = { ...calmWeb.web, ...settings.web };
  const database = isLate ? { database: { replicas: { lagMsMax: 6 * lateMs } } } : {};
  await writeFile(config, JSON.stringify({ ...settings, ...(isSplit ? split : {}), ...database, web }));
  const flags = { rung: isSplit ? 3 : rung, port: 0, dir: folder, shards, processes, config };
  return [
    ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]),
    ...(strategy === "range" ? ["--strategy", strategy, ...splits.flatMap((split) => ["--split", split])] : []),
    ...(isRegional ? ["--regions", "eu,us", "--distance-ms", "20"] : []),
  ];
}

/**
 * What rung 5 adds: payments in a process of their own, all other handlers in workers. It is added to rung 3, whose databases are
 * embedded: servers with followers are rung 4's part.
 */
const split = {
  queue: { url: { env: "QUEUE_URL" } },
  services: { workers: { processes: 1 }, payments: { processes: 1, database: { shards: 1 } } },
};

/** Servers of the developer's own have no part in tests, and npm's presence none in the launcher's life. */
function withoutServers(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const others = /^(?:DATABASE_URL|REDIS_URL|CACHE_URL|QUEUE_URL|SHARD_\d+_\w+|RUNGS_DIR|npm_command)$/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !others.test(name)));
}

const dayMs = 24 * 60 * 60_000;

/** Each shard but the last has the people of a day, the first those of all days before. */
function splitsByAge(shards: number): string[] {
  return Array.from({ length: shards - 1 }, (_, index) => {
    const clock = { ...systemClock, now: () => Date.now() - (shards - 1 - index) * dayMs };
    return uuidV7(clock, systemRandom).slice(0, "01234567-89ab".length);
  });
}

/** Somebody who has been there for that long. */
async function registeredBefore(
  { url, app }: Pick<TestConduit, "url" | "app">,
  username: string,
  agoMs: number,
): Promise<Client> {
  const clock = { ...systemClock, now: () => Date.now() - agoMs };
  const user = { username, email: `${username}@example.com`, password: "correct horse" };
  await createConduit({ ...app.context, clock }).accounts.register(user);
  return client(url, (await client(url).post("/users/login", { user })).body.user.token);
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
