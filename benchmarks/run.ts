/**
 * Conduit beside the same three handlers written by hand on bare Fastify and pg, in one run on one database.
 *
 * `npm run bench -- --people 2000 --seconds 3 --rounds 5`. The servers take turns within each round, so that a change of
 * the machine's pace meets all of them; what is reported are medians of the rounds' ratios to bare.
 *
 * A favourite in Conduit is also a message, by which its author is notified; the bare handler knows nothing of that. So it is measured
 * with the messages left to workers elsewhere, which is what the request itself costs, and once more with workers in the same process.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import pg from "pg";
import { seededRandom } from "rungs";
import { type EmbeddedConnection, startEmbeddedPostgres } from "rungs/database/embedded";
import { closedLoop, type LoadResult, openLoop, requestBytes } from "./load-client.ts";

const connections = 32;
const readers = 100;
const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));

interface Server {
  readonly name: string;
  readonly port: number;
  readonly child: ChildProcess;
}

interface Route {
  readonly name: string;
  readonly request: (port: number) => () => Buffer;
}

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "2000" },
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "5" },
  },
});
const durationMs = Number(values.seconds) * 1_000;
const rounds = Number(values.rounds);

const folder = await mkdtemp(join(tmpdir(), "rungs-bench-"));
await chmod(folder, 0o755);
const children: ChildProcess[] = [];
const database = await startEmbeddedPostgres({ directory: join(folder, "database") });
try {
  await main();
} finally {
  for (const child of children) child.kill("SIGKILL");
  await database.stop();
  await rm(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const environment = { DATABASE_URL: addressOf(database.connection), RUNGS_DIR: folder, NODE_ENV: "production" };
  print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`);
  print(`seeding ${values.people} people ...`);
  execFileSync(process.execPath, [file("../examples/conduit/src/seed/main.ts"), "--people", values.people], {
    env: { ...process.env, ...environment },
  });
  const startBoth = async (more: Record<string, string>) => [
    await startConduit("off", { ...environment, ...more }),
    await startConduit("on", { ...environment, ...more }),
  ];
  const bare = await startBare();
  const alone = await startBoth({ RUNGS_GROUP: "web", RUNGS_WORKERS: "1" });
  const routes = await prepareRoutes([...alone, bare]);
  await printMemory("idle", [bare, ...alone]);
  for (const route of routes) await compare(route, bare, alone);
  await printMemory("after the load", [bare, ...alone]);
  for (const { child } of alone) {
    child.kill("SIGTERM");
    await once(child, "exit");
  }
  await forgetMessages();
  const working = await startBoth({});
  const [favorite] = routes.slice(-1) as [Route];
  const name = `${favorite.name}, its messages handled in the same process`;
  await compare({ ...favorite, name }, bare, working);
}

/** Those that no worker has handled. */
async function forgetMessages(): Promise<void> {
  const client = new pg.Client(database.connection);
  await client.connect();
  await client.query("truncate rungs_jobs");
  await client.end();
}

/** Throughput at saturation, then latency at half of the slowest server's throughput, round by round. */
async function compare(route: Route, bare: Server, others: readonly Server[]): Promise<void> {
  const servers = [bare, ...others];
  // Compiled code, filled pools and learned addresses first, so that the steady state is compared.
  for (const server of servers) await load(server, route, Math.min(durationMs, 2_000));
  const throughput = new Map<Server, LoadResult[]>(servers.map((server) => [server, []]));
  for (let round = 0; round < rounds; round++) {
    for (const server of rotated(servers, round)) throughput.get(server)?.push(await load(server, route, durationMs));
  }
  const rate = Math.min(...servers.map((server) => median(of(throughput, server, "perSecond")))) / 2;
  const latency = new Map<Server, LoadResult[]>(servers.map((server) => [server, []]));
  for (let round = 0; round < rounds; round++) {
    for (const server of rotated(servers, round))
      latency.get(server)?.push(await load(server, route, durationMs, rate));
  }
  print(`\n${route.name}  (${connections} connections; latency at ${Math.round(rate)} requests/s)`);
  print("  server              requests/s   ratio      p50 ms    p99 ms   ratio   failures");
  for (const server of servers) {
    const ratio = (results: Map<Server, LoadResult[]>, figure: "perSecond" | "p99Ms") =>
      median(of(results, server, figure).map((value, index) => value / (of(results, bare, figure)[index] as number)));
    const failures = [...(throughput.get(server) ?? []), ...(latency.get(server) ?? [])].reduce(
      (sum, run) => sum + run.failures,
      0,
    );
    print(
      `  ${server.name.padEnd(18)} ${cell(median(of(throughput, server, "perSecond")), 11, 0)} ${cell(ratio(throughput, "perSecond"), 7, 2)}` +
        `   ${cell(median(of(latency, server, "p50Ms")), 9, 2)} ${cell(median(of(latency, server, "p99Ms")), 9, 2)} ${cell(ratio(latency, "p99Ms"), 7, 2)} ${cell(failures, 10, 0)}`,
    );
  }
}

function load(server: Server, route: Route, forMs: number, ratePerSecond?: number): Promise<LoadResult> {
  const options = { port: server.port, next: route.request(server.port), connections, durationMs: forMs };
  return ratePerSecond === undefined ? closedLoop(options) : openLoop({ ...options, ratePerSecond });
}

async function prepareRoutes(others: readonly Server[]): Promise<Route[]> {
  const [conduit] = others as [Server];
  const client = new pg.Client(database.connection);
  await client.connect();
  // A hand-written app on one database would look articles up by an index on the slug.
  await client.query("create unique index articles_by_slug on articles (slug)");
  const slugs = (
    await client.query("select slug from articles order by favorites_count desc, slug limit 5000")
  ).rows.map((row) => row.slug as string);
  await client.query("vacuum analyze");
  await client.end();
  for (const server of others) {
    // A process learns where an article lives at its first read, with one more query: the start is over before we measure.
    for (const slug of slugs) await (await fetch(`http://127.0.0.1:${server.port}/api/articles/${slug}`)).arrayBuffer();
  }
  const tokens: string[] = [];
  // One after the other: password hashing is bounded, and refuses a crowd.
  for (let index = 0; index < readers; index++) tokens.push(await register(conduit, `bench${index}`));
  const random = seededRandom(1);
  const pick = <V>(list: readonly V[]) => list[Math.floor(random.next() * list.length)] as V;
  /** Popular articles are read far more often than others. */
  const popular = () => slugs[Math.floor(slugs.length ** random.next()) - 1] as string;
  const built = (make: () => Parameters<typeof requestBytes>[0]) => {
    const requests = Array.from({ length: 20_000 }, () => requestBytes(make()));
    let at = 0;
    return () => requests[at++ % requests.length] as Buffer;
  };
  return [
    {
      name: "GET /api/articles/:slug",
      request: (port) => built(() => ({ method: "GET", path: `/api/articles/${popular()}`, port })),
    },
    {
      name: "GET /api/articles?limit=20",
      request: (port) => built(() => ({ method: "GET", path: "/api/articles?limit=20", port })),
    },
    {
      name: "POST /api/articles/:slug/favorite",
      request: (port) =>
        built(() => ({
          method: "POST",
          path: `/api/articles/${pick(slugs)}/favorite`,
          port,
          headers: { authorization: `Token ${pick(tokens)}` },
        })),
    },
  ];
}

async function register(server: Server, username: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${server.port}/api/users`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: { username, email: `${username}@example.com`, password: "benchmark" } }),
  });
  return ((await response.json()) as { user: { token: string } }).user.token;
}

async function startBare(): Promise<Server> {
  const child = spawn(process.execPath, [file("bare-server.ts")], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { ...process.env, NODE_ENV: "production", BARE_DATABASE: JSON.stringify(database.connection) },
  });
  children.push(child);
  const { port } = await new Promise<{ port: number }>((resolve) =>
    child.once("message", (message) => resolve(message as { port: number })),
  );
  return { name: "bare Fastify + pg", port, child };
}

async function startConduit(cache: "on" | "off", environment: Record<string, string>): Promise<Server> {
  const child = spawn(
    process.execPath,
    [file("../examples/conduit/src/main.ts"), "--port", "0", "--cache", cache, "--log-level", "error"],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...environment },
    },
  );
  children.push(child);
  let output = "";
  const port = await new Promise<number>((resolve, reject) => {
    child.once("exit", () => reject(new Error(`Conduit ended:\n${output}`)));
    child.stdout?.on("data", (chunk: Buffer) => {
      output += String(chunk);
      const found = /Open\s+http:\/\/[^:]+:(\d+)/.exec(output)?.[1];
      if (found !== undefined) resolve(Number(found));
    });
  });
  return { name: `Conduit, cache ${cache}`, port, child };
}

/** Resident memory of each server process, from the kernel. */
async function printMemory(when: string, servers: readonly Server[]): Promise<void> {
  const sizes = await Promise.all(
    servers.map(async ({ name, child }) => {
      const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "");
      const kib = /VmRSS:\s+(\d+)/.exec(status)?.[1];
      return `${name} ${kib === undefined ? "unknown" : `${Math.round(Number(kib) / 1024)} MiB`}`;
    }),
  );
  print(`memory ${when}: ${sizes.join(", ")}`);
}

/** The embedded server's address as a URL: pg takes the socket's folder from the query. */
function addressOf({ host, port, user, password, database: name }: EmbeddedConnection): string {
  return `postgres://${user}:${encodeURIComponent(password)}@localhost:${port}/${name}?host=${encodeURIComponent(host)}`;
}

function rotated<V>(list: readonly V[], by: number): V[] {
  return list.map((_, index) => list[(index + by) % list.length] as V);
}

function of(results: Map<Server, LoadResult[]>, server: Server, figure: "perSecond" | "p50Ms" | "p99Ms"): number[] {
  return (results.get(server) ?? []).map((result) => result[figure]);
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function cell(value: number, width: number, digits: number): string {
  return value.toFixed(digits).padStart(width);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
