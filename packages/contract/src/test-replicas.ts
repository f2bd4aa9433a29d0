/**
 * A real leader with streaming followers for tests, up in half a second: copies of one data directory, of which all but one
 * start as followers. The machine's own PostgreSQL, because that is what production runs; else the one that npm ships.
 *
 * Every server ends with this process, in whatever way that ends, as in `test-postgres.ts`. Servers can be killed, frozen,
 * delayed, promoted, made followers again and started again.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { appendFile, chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import {
  type Account,
  ensureTemplate,
  findPrograms,
  settingsDefault,
  superuser,
  unprivilegedAccount,
} from "./test-postgres.ts";

/** One server of a set; its superuser is `rungs` and needs no password. */
export interface ReplicaServer {
  readonly name: string;
  /** Folder of the unix socket, as `host` of a client's settings. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly connectionString: string;
  /** Process id of the server and of all its parts. */
  processes(): Promise<readonly number[]>;
  /** One statement on a connection of its own. */
  query<R extends object>(sql: string, values?: unknown[]): Promise<R[]>;
  /** Kills it and all its parts at once, as a power failure does. */
  kill(): Promise<void>;
  /** Stops it and all its parts for a while (SIGSTOP), as a machine that hangs. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** Shuts it down as an operator does, after its followers have got everything. */
  shutDown(): Promise<void>;
  /** Starts it again, as what it was. */
  start(): Promise<void>;
  /** Goes on receiving, but shows nothing new. */
  pauseReplay(): Promise<void>;
  resumeReplay(): Promise<void>;
  /** Shows what is committed only after this long (`recovery_min_apply_delay`). */
  delayReplay(ms: number): Promise<void>;
  /** Makes it a leader, on a new timeline. */
  promote(): Promise<void>;
  /** Makes it a follower of that server; it must be running as a follower, or be shut down. */
  follow(leader: ReplicaServer): Promise<void>;
  /** Resolves once it has replayed what the leader has now. */
  caughtUpWith(leader: ReplicaServer): Promise<void>;
}

/** A leader and its followers. */
export interface TestReplicas {
  readonly leader: ReplicaServer;
  readonly followers: readonly ReplicaServer[];
  readonly version: number;
  /** Ends everything and removes all data. Safe to call twice. */
  stop(): Promise<void>;
}

const run = promisify(execFile);
const port = 5432;
const startTimeoutMs = 30_000;
const logTailCharacters = 4_000;

const replicationSettings: Readonly<Record<string, string>> = {
  wal_level: "replica",
  hot_standby: "on",
  wal_keep_size: "256MB",
  wal_retrieve_retry_interval: "100ms",
  wal_receiver_timeout: "3s",
  recovery_init_sync_method: "syncfs",
  // Kept in the data directory, so that a killed server leaves nothing elsewhere.
  dynamic_shared_memory_type: "mmap",
};

/** `$1` is the folder that the servers share; ends when the pipe closes. A stopped process must go on to be able to end. */
const supervisor = `
trap '' INT TERM HUP
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT $server; kill -CONT $server; } 2>/dev/null &
watcher=$!
wait $server
status=$?
kill -KILL $watcher 2>/dev/null
exit $status
`;
const remover = `
trap '' INT TERM HUP
read -r _ <&3
for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && exit 0; sleep 0.3; done
`;

/** Starts a leader and as many followers, streaming. */
export async function startTestReplicas(options: {
  readonly followers: number;
  /** Extra settings of all servers, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Extra settings of each server, the leader first. */
  readonly settingsOf?: readonly Readonly<Record<string, string>>[];
}): Promise<TestReplicas> {
  const account = await unprivilegedAccount();
  const programs = await findPrograms(account, true);
  const template = await ensureTemplate(programs, account);
  const folder = await mkdtemp(join(tmpdir(), "rungs-pg-set-"));
  if (account.uid !== undefined) await chown(folder, account.uid, account.gid);
  const guard = spawn("sh", ["-c", remover, "sh", folder], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  guard.unref();
  (guard.stdio[3] as Socket).unref();
  const settings = { ...settingsDefault, ...replicationSettings, ...options.settings };
  const names = ["leader", ...Array.from({ length: options.followers }, (_, index) => `follower-${index + 1}`)];
  const servers = await Promise.all(
    names.map(async (name, index) => {
      const host = join(folder, name);
      await mkdir(host);
      if (account.uid !== undefined) await chown(host, account.uid, account.gid);
      await run("cp", ["-R", template, join(host, "data")], account);
      await chmod(join(host, "data"), 0o700);
      const own = { ...settings, ...options.settingsOf?.[index] };
      return new Server({ name, host, bin: programs.bin, account, settings: own });
    }),
  );
  const [leader, ...followers] = servers as [Server, ...Server[]];
  await leader.start();
  await Promise.all(followers.map((follower) => follower.follow(leader)));
  await Promise.all(followers.map((follower) => follower.caughtUpWith(leader)));
  return {
    leader,
    followers,
    version: programs.version,
    async stop() {
      await Promise.all(servers.map((server) => server.end()));
      await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
      (guard.stdio[3] as Socket).destroy();
    },
  };
}

class Server implements ReplicaServer {
  readonly name: string;
  readonly host: string;
  readonly port = port;
  readonly user = superuser;
  readonly database = "postgres";
  private readonly bin: string;
  private readonly account: Account;
  private readonly settings: Readonly<Record<string, string>>;
  private child: ChildProcess | undefined;

  constructor(options: {
    readonly name: string;
    readonly host: string;
    readonly bin: string;
    readonly account: Account;
    readonly settings: Readonly<Record<string, string>>;
  }) {
    this.name = options.name;
    this.host = options.host;
    this.bin = options.bin;
    this.account = options.account;
    this.settings = options.settings;
  }

  get connectionString(): string {
    return `postgresql://${superuser}@/${this.database}?host=${encodeURIComponent(this.host)}&port=${port}`;
  }

  async start(): Promise<void> {
    const all = { ...this.settings, unix_socket_directories: this.host, port: String(port) };
    const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const command = [join(this.bin, "postgres"), "-D", join(this.host, "data"), ...flags];
    const child = spawn("sh", ["-c", supervisor, "sh", ...command], {
      ...this.account,
      cwd: "/",
      env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
      stdio: ["ignore", "ignore", "pipe", "pipe"],
    });
    this.child = child;
    await whenReady(child, this.name);
    child.unref();
    (child.stderr as Socket).unref();
    (child.stdio[3] as Socket).unref();
  }

  async query<R extends object>(sql: string, values: unknown[] = []): Promise<R[]> {
    const client = new pg.Client({ connectionString: this.connectionString, connectionTimeoutMillis: 5_000 });
    client.on("error", () => {});
    await client.connect();
    try {
      return (await client.query<R>(sql, values)).rows;
    } finally {
      await client.end();
    }
  }

  async processes(): Promise<readonly number[]> {
    const postmaster = Number((await readFile(join(this.host, "data", "postmaster.pid"), "utf8")).split("\n")[0]);
    const parts: number[] = [];
    for (const entry of await readdir("/proc")) {
      if (!/^\d+$/.test(entry)) continue;
      const stat = await readFile(`/proc/${entry}/stat`, "utf8").catch(() => "");
      // The command's name is in parentheses and may hold anything; the parent is the second field behind it.
      if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === postmaster) parts.push(Number(entry));
    }
    return [postmaster, ...parts];
  }

  async kill(): Promise<void> {
    const ended = this.ended();
    await this.signal("SIGKILL");
    await ended;
  }

  async freeze(): Promise<void> {
    await this.signal("SIGSTOP");
    // Parts that were being born when the first round looked.
    await this.signal("SIGSTOP");
  }

  thaw(): Promise<void> {
    return this.signal("SIGCONT");
  }

  async shutDown(): Promise<void> {
    const ended = this.ended();
    const [postmaster] = await this.processes();
    if (postmaster !== undefined) process.kill(postmaster, "SIGINT");
    await ended;
  }

  async pauseReplay(): Promise<void> {
    await this.query("select pg_wal_replay_pause()");
    await this.until("select pg_get_wal_replay_pause_state() = 'paused' as done");
  }

  async resumeReplay(): Promise<void> {
    await this.query("select pg_wal_replay_resume()");
  }

  async delayReplay(ms: number): Promise<void> {
    await this.set("recovery_min_apply_delay", `${ms}ms`);
  }

  async promote(): Promise<void> {
    await this.query("select pg_promote(true, 20)");
  }

  async follow(leader: ReplicaServer): Promise<void> {
    const address = `host=${leader.host} port=${leader.port} user=${leader.user} application_name=${this.name}`;
    if (this.isRunning) {
      await this.set("primary_conninfo", address);
      return;
    }
    const data = join(this.host, "data");
    await writeFile(join(data, "standby.signal"), "");
    await appendFile(join(data, "postgresql.auto.conf"), `primary_conninfo = '${address}'\n`);
    if (this.account.uid !== undefined) await chown(join(data, "standby.signal"), this.account.uid, this.account.gid);
    await this.start();
  }

  async caughtUpWith(leader: ReplicaServer): Promise<void> {
    const [row] = await leader.query<{ lsn: string }>("select pg_current_wal_flush_lsn()::text as lsn");
    await this.until("select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false) as done", [row?.lsn]);
  }

  /** Ends it at once, whatever it is doing. */
  async end(): Promise<void> {
    const { child } = this;
    if (!this.isRunning || child === undefined) return;
    const ended = this.ended();
    child.ref();
    (child.stdio[3] as Socket).destroy();
    await this.signal("SIGCONT").catch(() => {});
    await ended;
  }

  private get isRunning(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  private ended(): Promise<void> {
    const { child } = this;
    if (child === undefined || !this.isRunning) return Promise.resolve();
    child.ref();
    return new Promise((resolve) => child.once("exit", () => resolve()));
  }

  private async signal(name: NodeJS.Signals): Promise<void> {
    for (const pid of await this.processes()) {
      try {
        process.kill(pid, name);
      } catch {
        // It ended meanwhile.
      }
    }
  }

  private async set(name: string, value: string): Promise<void> {
    const client = new pg.Client({ connectionString: this.connectionString });
    await client.connect();
    try {
      await client.query(`alter system set ${name} = ${pg.escapeLiteral(value)}`);
      await client.query("select pg_reload_conf()");
    } finally {
      await client.end();
    }
    await this.until("select current_setting($1) = $2 or $1 = 'recovery_min_apply_delay' as done", [name, value]);
  }

  /** Asks until the statement says `done`; on a connection each, so that settings are the new ones. */
  private async until(sql: string, values: unknown[] = []): Promise<void> {
    const deadline = performance.now() + 20_000;
    while (performance.now() < deadline) {
      if ((await this.query<{ done: boolean }>(sql, values))[0]?.done) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`${this.name}: not so within 20 s: ${sql}`);
  }
}

function whenReady(child: ChildProcess, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let log = "";
    const fail = (why: string) => {
      clearTimeout(timer);
      (child.stdio[3] as Socket).destroy();
      reject(new Error(`The test server ${name} ${why}. Its log ends with:\n${log}`));
    };
    const timer = setTimeout(() => fail(`was not ready within ${startTimeoutMs} ms`), startTimeoutMs);
    child.stdio[3]?.on("error", () => {});
    child.once("error", (error) => fail(`could not be started: ${error.message}`));
    child.once("exit", (code) => fail(`ended with code ${code}`));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-logTailCharacters);
      if (!/ready to accept (read-only )?connections/.test(log)) return;
      clearTimeout(timer);
      resolve();
    });
  });
}
