/** Conduit with `rungs up` for benchmarks: on a seeded database of the benchmark's own, and what each of its processes costs. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { type EmbeddedConnection, startEmbeddedPostgres } from "rungs/database/embedded";

const conduit = fileURLToPath(new URL("../../examples/conduit/", import.meta.url));
const bin = fileURLToPath(new URL("../../packages/operator/bin/rungs.mjs", import.meta.url));

export interface SeededDatabase {
  readonly connection: EmbeddedConnection;
  readonly url: string;
  readonly folder: string;
  /** Most liked first. */
  readonly slugs: readonly string[];
  stop(): Promise<void>;
}

/** An embedded server with so many people and what they wrote; `settings` are PostgreSQL's own. */
export async function seededDatabase(
  people: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<SeededDatabase> {
  const folder = await benchFolder();
  const server = await startEmbeddedPostgres({
    directory: join(folder, "database"),
    settings: { max_connections: "300", ...settings },
  });
  const { host, port, user, password, database } = server.connection;
  const url = `postgres://${user}:${encodeURIComponent(password)}@localhost:${port}/${database}?host=${encodeURIComponent(host)}`;
  execFileSync(process.execPath, [join(conduit, "src/seed/main.ts"), "--people", people], {
    env: { ...process.env, DATABASE_URL: url, RUNGS_DIR: folder },
  });
  const client = new pg.Client(server.connection);
  await client.connect();
  // A hand-written app on one database would look articles up by an index on the slug.
  await client.query("create unique index articles_by_slug on articles (slug)");
  const { rows } = await client.query("select slug from articles order by favorites_count desc, slug limit 2000");
  await client.query("vacuum analyze");
  await client.end();
  return {
    connection: server.connection,
    url,
    folder,
    slugs: rows.map(({ slug }) => slug as string),
    async stop() {
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export interface StartedStack {
  readonly folder: string;
  /** Port of the balancer. */
  readonly port: number;
  readonly web: readonly { readonly name: string; readonly pid: number; readonly port: number }[];
  /** From the start of the program to the line that says ready. */
  readonly readyMs: number;
  /** Pid of a process by its name. */
  pidOf(name: string): number;
  /** Leaves the folder when `isKept`. */
  stop(options?: { readonly isKept?: boolean }): Promise<void>;
}

/** Starts `rungs up` with these flags. Without `databaseUrl` it starts its own. */
export async function startStack(options: {
  readonly flags: readonly string[];
  readonly databaseUrl?: string;
  readonly folder?: string;
  readonly cache?: "on" | "off";
  /** Folder of the app; default Conduit's. */
  readonly app?: string;
}): Promise<StartedStack> {
  const folder = options.folder ?? (await benchFolder());
  const { DATABASE_URL: _, REDIS_URL: __, npm_command: ___, ...environment } = process.env;
  const since = performance.now();
  const launcher = spawn(process.execPath, [bin, "up", "--json", "--port", "0", "--dir", folder, ...options.flags], {
    cwd: options.app ?? conduit,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...environment,
      NODE_ENV: "production",
      RUNGS_LOG_LEVEL: "error",
      RUNGS_CACHE: options.cache ?? "on",
      ...(options.databaseUrl === undefined ? {} : { DATABASE_URL: options.databaseUrl }),
    },
  });
  const line = await readyLine(launcher);
  const readyMs = performance.now() - since;
  const web = line.processes.filter(({ role }) => role === "web");
  return {
    folder,
    port: Number(new URL(line.app).port),
    web: web.map(({ name, pid, port }) => ({ name, pid, port: port as number })),
    readyMs,
    pidOf: (name) => line.processes.find((process) => process.name === name)?.pid ?? 0,
    async stop({ isKept = false } = {}) {
      const ended = once(launcher, "exit");
      launcher.kill("SIGTERM");
      await ended;
      if (!isKept) await rm(folder, { recursive: true, force: true });
    },
  };
}

interface ReadyLine {
  readonly app: string;
  readonly processes: readonly { name: string; role: string; pid: number; port: number | null }[];
}

function readyLine(launcher: ChildProcess): Promise<ReadyLine> {
  return new Promise((resolve, reject) => {
    let output = "";
    launcher.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (output.includes("\n")) resolve(JSON.parse(output.split("\n")[0] as string));
    });
    launcher.once("exit", (code) => reject(new Error(`rungs up ended with ${code}`)));
  });
}

export async function benchFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-bench-"));
  // The databases run as another user when this runs as root.
  await chmod(folder, 0o755);
  return folder;
}

/** Seconds of processor time that a process and its children have used so far; Linux only, 0 elsewhere. */
export async function cpuSeconds(pid: number): Promise<number> {
  // Fields 14 and 15 of proc_pid_stat(5), in hundredths; the name before them may hold spaces.
  const secondsOf = async (id: number) => {
    const text = await readFile(`/proc/${id}/stat`, "utf8").catch(() => "");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { parent: Number(fields[1]), seconds: (Number(fields[11]) + Number(fields[12])) / 100 || 0 };
  };
  const entries = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = await Promise.all(entries.map(async (id) => ({ id, ...(await secondsOf(id)) })));
  return all.filter(({ id, parent }) => id === pid || parent === pid).reduce((sum, { seconds }) => sum + seconds, 0);
}

/** Signs a new user up and gives their token. */
export async function register(port: number, username: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/api/users`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: { username, email: `${username}@example.com`, password: "benchmark" } }),
  });
  return ((await response.json()) as { user: { token: string } }).user.token;
}

export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
