/**
 * The embedded database: a real PostgreSQL, shipped through npm, run as a child process on a unix socket.
 *
 * Life of one server:
 * - *create*: `initdb` into a folder beside, then an atomic rename; a crash in between leaves nothing half made.
 * - *start*: spawn in a process group of its own, so that Ctrl-C in the terminal does not reach it; ready when it answers.
 * - *lock*: a session of ours holds an advisory lock as long as the app lives. A second app on the same data is refused.
 *   The lock ends with the app, however it ends, so no stale lock can remain.
 * - *adopt*: a server left behind by a killed app is running and unlocked: it is taken over as it is.
 * - *watch*: when the lock session breaks, the server died; it is started again at once and the lock taken again.
 * - *stop*: SIGINT (fast shutdown), then SIGQUIT.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, chown, lstat, mkdir, open, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { createCluster, readPassword, tailOf } from "./embedded-postgres-cluster.ts";
import { type EmbeddedHome, prepareEmbeddedHome } from "./embedded-postgres-home.ts";

export interface EmbeddedPostgresOptions {
  /** Folder that holds the data, e.g. `.rungs/database/shard-0`; made when missing. */
  readonly directory: string;
  /** Name of the database to make inside; default "rungs". */
  readonly database?: string;
  /** Extra settings, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly log?: Logger;
  readonly clock?: Clock;
}

/** How to reach the server, as pg's pool takes it; `host` is the folder of its socket. */
export interface EmbeddedConnection {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: string;
}

export interface EmbeddedPostgres {
  readonly connection: EmbeddedConnection;
  /** How this start found the data: new, at rest, after a crash of the server, or with the server still running. */
  readonly origin: "created" | "started" | "recovered" | "adopted";
  /** The real folder of the data; differs from the one asked for when that was a closed one. */
  readonly directory: string;
  /** Process id of the server; changes when it is restarted. */
  readonly pid: number;
  /** Notes who holds the data, for the message to a second starter. */
  announce(holder: { readonly address: string }): Promise<void>;
  /** Stops the server and waits until it is gone. */
  stop(): Promise<void>;
}

const majorVersion = "18";
const port = 5432;
const superuser = "rungs";
/** "rungs" in ASCII; any fixed number would do. */
const lockKey = 0x72756e6773;
const startTimeoutMs = 60_000;
/** A dead app's session may hold its lock until the server notices the closed socket. */
const lockPatienceMs = 1_500;
const stopTimeoutMs = 20_000;
const failedStartsMax = 6;
/** sun_path is 108 bytes with its end (unix(7)); the socket is `.s.PGSQL.5432`. */
const socketFolderBytesMax = 107 - "/.s.PGSQL.5432".length;

/**
 * Starts, recovers or adopts the server in `directory`.
 *
 * Raises `PLATFORM_UNSUPPORTED`, `DATA_DIRECTORY_IN_USE`, `DATA_DIRECTORY_INVALID` or `DATABASE_START_FAILED`.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const home = await prepareEmbeddedHome(options.directory);
  const isCreated = await createCluster(home, majorVersion, superuser);
  const server = new EmbeddedServer(home, socketFolderOf(home), await readPassword(home), options);
  await server.start(isCreated);
  return server;
}

/** Connection settings of an embedded server that another process holds; undefined when none runs there. */
export async function embeddedConnection(
  directory: string,
  database = "rungs",
): Promise<EmbeddedConnection | undefined> {
  const home = await prepareEmbeddedHome(directory);
  const lines = await readFile(join(home.directory, "data", "postmaster.pid"), "utf8").then(
    (text) => text.split("\n"),
    () => [],
  );
  const host = lines[4];
  if (host === undefined || !(await isPostgres(Number(lines[0])))) return undefined;
  return { host, port, user: superuser, database, password: await readPassword(home) };
}

class EmbeddedServer implements EmbeddedPostgres {
  readonly connection: EmbeddedConnection;
  readonly directory: string;
  origin: EmbeddedPostgres["origin"] = "started";
  pid = 0;
  private readonly home: EmbeddedHome;
  private readonly socketFolder: string;
  private readonly options: EmbeddedPostgresOptions;
  private readonly log: Logger;
  private readonly clock: Clock;
  private child: ChildProcess | undefined;
  private lock: pg.Client | undefined;
  private isStopping = false;
  private restarting: Promise<void> = Promise.resolve();

  constructor(home: EmbeddedHome, socketFolder: string, password: string, options: EmbeddedPostgresOptions) {
    this.home = home;
    this.socketFolder = socketFolder;
    this.options = options;
    this.log = options.log ?? silentLogger;
    this.clock = options.clock ?? systemClock;
    this.directory = home.directory;
    this.connection = { host: socketFolder, port, user: superuser, database: options.database ?? "rungs", password };
  }

  async start(isCreated: boolean): Promise<void> {
    const wasRunning = (await this.runningPid()) !== undefined;
    const hadPidFile = (await this.pidFile()) !== undefined;
    const spawned = await this.bringUp();
    await this.createDatabase();
    this.origin = isCreated ? "created" : !spawned ? "adopted" : hadPidFile && !wasRunning ? "recovered" : "started";
  }

  async announce(holder: { readonly address: string }): Promise<void> {
    await writeFile(join(this.directory, "holder.json"), JSON.stringify({ pid: process.pid, ...holder }), {
      mode: 0o600,
    });
  }

  async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    await this.restarting.catch(() => {});
    const pid = await this.runningPid();
    // The lock stays ours until the server itself ends it, so that nobody adopts a server that is about to stop.
    if (pid !== undefined) await stopProcess(pid, this.child, this.clock);
    await this.lock?.end().catch(() => {});
    await rm(join(this.directory, "holder.json"), { force: true });
    // Only while it is empty: the next app may have started its server already.
    await rmdir(this.socketFolder).catch(() => {});
  }

  /** Gets a server that answers and whose lock is ours, starting one when there is none; gives whether it was started. */
  private async bringUp(): Promise<boolean> {
    const deadline = this.clock.monotonic() + startTimeoutMs;
    let spawned = false;
    let failedStarts = 0;
    let lockedSince: number | undefined;
    while (this.clock.monotonic() < deadline) {
      const answer = await this.tryLock();
      if (answer === "locked") return spawned;
      if (answer === "held") {
        lockedSince ??= this.clock.monotonic();
        if (this.clock.monotonic() - lockedSince > lockPatienceMs) throw await this.inUse();
      } else if (answer === "absent" && this.child === undefined && (await this.runningPid()) === undefined) {
        spawned = await this.spawnServer();
        // After a kill -9 the kernel may need a moment to let go of the dead server's shared memory.
        if (!spawned && ++failedStarts >= failedStartsMax) throw await this.startFailed("it ended at once");
        if (!spawned) await sleep(200 * failedStarts);
      }
      await sleep(10);
    }
    throw await this.startFailed(`it did not answer within ${startTimeoutMs} ms`);
  }

  /** One try to connect and take the lock. */
  private async tryLock(): Promise<"locked" | "held" | "absent" | "starting"> {
    const client = new pg.Client({
      ...this.connection,
      database: "postgres",
      application_name: "rungs lock",
      keepAlive: true,
    });
    client.on("error", () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{ mine: boolean }>("select pg_try_advisory_lock($1) as mine", [lockKey]);
      if (rows[0]?.mine !== true) {
        await client.end();
        return "held";
      }
    } catch (error) {
      await client.end().catch(() => {});
      const code = (error as { code?: string }).code;
      if (code === "28P01")
        throw new ConfigError(
          "DATA_DIRECTORY_INVALID",
          `The password file in ${this.directory} does not fit the data there.`,
          { cause: error },
        );
      return code === "ENOENT" || code === "ECONNREFUSED" ? "absent" : "starting";
    }
    this.lock = client;
    this.pid = (await this.runningPid()) ?? 0;
    client.once("end", () => this.onLockLost());
    return "locked";
  }

  private onLockLost(): void {
    if (this.isStopping) return;
    this.log.warn({ directory: this.directory }, "the embedded PostgreSQL went away; starting it again");
    this.restarting = this.restart();
    this.restarting.catch((error: unknown) =>
      this.log.error({ error }, "the embedded PostgreSQL could not be started again"),
    );
  }

  private async restart(): Promise<void> {
    for (let attempt = 0; !this.isStopping; attempt++) {
      try {
        await this.bringUp();
        this.log.info({ directory: this.directory, pid: this.pid }, "the embedded PostgreSQL is back");
        return;
      } catch (error) {
        if (error instanceof ConfigError) throw error;
        this.log.error({ error }, "restart of the embedded PostgreSQL failed");
        await sleep(Math.min(5_000, 100 * 2 ** attempt));
      }
    }
  }

  /** Gives whether the server came up; false when it ended, be it because another starter was first. */
  private async spawnServer(): Promise<boolean> {
    await makeSocketFolder(this.socketFolder, this.home);
    const logFile = await open(join(this.directory, "postgres.log"), "a", 0o600);
    const settings = { ...serverSettings, unix_socket_directories: this.socketFolder, ...this.options.settings };
    const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const child = spawn(
      join(this.home.programs, "bin", "postgres"),
      ["-D", join(this.directory, "data"), "-p", String(port), ...flags],
      {
        cwd: this.directory,
        detached: true,
        stdio: ["ignore", logFile.fd, logFile.fd],
        ...(this.home.user ?? {}),
      },
    );
    this.child = child;
    child.once("exit", () => {
      if (this.child === child) this.child = undefined;
    });
    try {
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
      child.unref();
    } catch (error) {
      this.child = undefined;
      throw await this.startFailed(String(error));
    } finally {
      await logFile.close();
    }
    return this.waitUntilReady(child);
  }

  private async waitUntilReady(child: ChildProcess): Promise<boolean> {
    const deadline = this.clock.monotonic() + startTimeoutMs;
    while (this.clock.monotonic() < deadline && child.exitCode === null && child.signalCode === null) {
      // Line 8 of the pid file is the server's own word for its state (PostgreSQL's pidfile.h).
      if ((await this.pidFile())?.[7]?.trim() === "ready") return true;
      await sleep(5);
    }
    return child.exitCode === null && child.signalCode === null;
  }

  private async createDatabase(): Promise<void> {
    const { database } = this.connection;
    const found = await this.lock?.query("select 1 from pg_database where datname = $1", [database]);
    if (found?.rowCount === 0) await this.lock?.query(`create database ${pg.escapeIdentifier(database)}`);
  }

  private async pidFile(): Promise<string[] | undefined> {
    return readFile(join(this.directory, "data", "postmaster.pid"), "utf8").then(
      (text) => text.split("\n"),
      () => undefined,
    );
  }

  private async runningPid(): Promise<number | undefined> {
    const pid = Number((await this.pidFile())?.[0]);
    return Number.isInteger(pid) && pid > 1 && (await isPostgres(pid)) ? pid : undefined;
  }

  private async inUse(): Promise<ConfigError> {
    const text = await readFile(join(this.directory, "holder.json"), "utf8").catch(() => "{}");
    const holder = JSON.parse(text) as { pid?: number; address?: string };
    const who =
      holder.pid === undefined
        ? "another process"
        : `process ${holder.pid}${holder.address === undefined ? "" : ` at ${holder.address}`}`;
    return new ConfigError(
      "DATA_DIRECTORY_IN_USE",
      `The data in ${this.options.directory} is in use by ${who}. Stop that one first, or start this one on other data with RUNGS_DIR=<folder> (and another PORT).`,
    );
  }

  private async startFailed(reason: string): Promise<UnavailableError> {
    const tail = await tailOf(join(this.directory, "postgres.log"), 8);
    return new UnavailableError(
      "DATABASE_START_FAILED",
      `The embedded PostgreSQL in ${this.directory} did not start: ${reason}. Its log ends with:\n${tail}`,
      {
        canRetry: false,
      },
    );
  }
}

/** Settings of an embedded server. Durability is PostgreSQL's own default: fsync and synchronous commit on. */
const serverSettings: Readonly<Record<string, string>> = {
  listen_addresses: "",
  max_connections: "100",
  shared_buffers: "128MB",
  // Later moves of live data use logical replication, which cannot be turned on without a restart.
  wal_level: "logical",
  // One sync of the file system at crash recovery instead of one a file (PostgreSQL manual, 19.11).
  ...(process.platform === "linux" ? { recovery_init_sync_method: "syncfs" } : {}),
  // Short queries gain nothing from compilation, and it costs tens of milliseconds when a plan looks costly.
  jit: "off",
  timezone: "UTC",
  log_timezone: "UTC",
};

function socketFolderOf(home: EmbeddedHome): string {
  const inside = join(home.directory, "socket");
  if (Buffer.byteLength(inside) <= socketFolderBytesMax) return inside;
  return join(tmpdir(), `rungs-${createHash("sha256").update(home.directory).digest("hex").slice(0, 16)}`);
}

/** Made anew for each start of the server: an app that has just stopped may have removed it. */
async function makeSocketFolder(folder: string, { user }: EmbeddedHome): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const found = await lstat(folder);
  // In a shared temporary folder somebody else may have put something under this name.
  const isOurs = found.isDirectory() && [process.getuid?.(), user?.uid].includes(found.uid);
  if (!isOurs) {
    throw new ConfigError(
      "DATA_DIRECTORY_INVALID",
      `${folder}, where the database's socket belongs, is somebody else's. Remove it.`,
    );
  }
  await chmod(folder, 0o700);
  if (user !== undefined) await chown(folder, user.uid, user.gid);
}

/** A stale pid file may name a process that has nothing to do with us, or one that is dead and not yet reaped. */
async function isPostgres(pid: number): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => undefined);
  return command === undefined ? process.platform !== "linux" : command.includes("postgres");
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function stopProcess(pid: number, child: ChildProcess | undefined, clock: Clock): Promise<void> {
  const isGone = () => (child?.pid === pid ? child.exitCode !== null || child.signalCode !== null : !isAlive(pid));
  for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    if (isGone()) return;
    process.kill(pid, signal);
    const deadline = clock.monotonic() + stopTimeoutMs;
    while (!isGone() && clock.monotonic() < deadline) await sleep(5);
  }
}
