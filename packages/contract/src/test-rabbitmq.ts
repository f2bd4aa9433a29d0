/**
 * A real RabbitMQ server for tests, on free ports of loopback, with an Erlang port mapper (epmd) and a folder of its own.
 *
 * Its shell waits on a pipe that this process holds: when the pipe closes, by `stop()` or because this process ended in whatever way,
 * server and mapper are killed and the folder is removed. They are a session of their own, which is killed as a whole.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { until } from "./test-redis.ts";

/** A running test server. */
export interface TestRabbitmq {
  readonly port: number;
  /** `amqp://user:password@127.0.0.1:port/`. */
  readonly url: string;
  /** Runs rabbitmqctl against it and gives what it prints. Takes a second. */
  ctl(...args: readonly string[]): Promise<string>;
  /** The end of what it has printed since its last start, for when a test fails. */
  log(): string;
  /** Kills it as a crash would, and waits for its end. */
  kill(): Promise<void>;
  /** Starts it again where it was, with what it had written. */
  restart(): Promise<void>;
  /** Stops its process in its tracks, or lets it go on. */
  freeze(isFrozen: boolean): Promise<void>;
  /** Kills it for good and removes its folder. Safe to call twice. */
  stop(): Promise<void>;
}

const run = promisify(execFile);
const readyMs = 60_000;
const logCharactersMax = 200_000;

/** `$1` is the server's folder, the rest its command. A line on the pipe kills the server only, its end removes the folder too. */
const supervisor = `
trap '' INT TERM HUP PIPE
folder="$1"; shift
setsid "$@" 3<&- &
server=$!
{ read -r _ <&3 || touch "$folder/gone"; kill -KILL -$server; } 2>/dev/null &
watcher=$!
wait $server
kill -KILL -$server 2>/dev/null
kill -KILL $watcher 2>/dev/null
[ -e "$folder/gone" ] && rm -rf "$folder"
`;

/** The mapper comes first: Erlang would start one of its own, which outlives everything. */
const serverScript = `epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$1"`;

/** Starts a server; `settings` are further lines of rabbitmq.conf. */
export async function startTestRabbitmq({
  settings = [],
}: {
  readonly settings?: readonly string[];
} = {}): Promise<TestRabbitmq> {
  const programs = await findPrograms();
  const folder = await mkdtemp(join(tmpdir(), "rungs-rabbitmq-"));
  const [port, mapperPort, distributionPort] = await freePorts();
  const login = { user: "tester", password: randomBytes(16).toString("hex") };
  const environment = await prepare({ folder, port, mapperPort, distributionPort, login, settings });
  const start = async () => {
    const child = spawnServer(join(programs, "rabbitmq-server"), folder, environment);
    await whenReady(child, port);
    return child;
  };
  let server = await start();
  const end = async (isForGood: boolean) => {
    const { child } = server;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.ref();
    const pipe = child.stdio[3] as Socket;
    if (isForGood) pipe.destroy();
    else pipe.write("kill\n");
    await ended;
    pipe.destroy();
  };
  return {
    port,
    url: `amqp://${login.user}:${login.password}@127.0.0.1:${port}/`,
    async ctl(...args) {
      const { stdout } = await run(join(programs, "rabbitmqctl"), ["-q", ...args], {
        timeout: 30_000,
        env: environment,
      });
      return stdout.trim();
    },
    log: () => server.log(),
    kill: () => end(false),
    async restart() {
      await end(false);
      server = await start();
    },
    async freeze(isFrozen) {
      const pid = Number(await readFile(environment["RABBITMQ_PID_FILE"] as string, "utf8"));
      process.kill(pid, isFrozen ? "SIGSTOP" : "SIGCONT");
    },
    async stop() {
      await end(true);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** The folder of the newest server's own scripts; those in /usr/sbin switch users. */
async function findPrograms(): Promise<string> {
  const base = "/usr/lib/rabbitmq/lib";
  const found = (await readdir(base).catch(() => [])).filter((name) => name.startsWith("rabbitmq_server-"));
  const newest = found.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1);
  if (newest === undefined) throw new Error("RabbitMQ is not installed: apt-get install rabbitmq-server");
  return join(base, newest, "sbin");
}

async function prepare(options: {
  readonly folder: string;
  readonly port: number;
  readonly mapperPort: number;
  readonly distributionPort: number;
  readonly login: { readonly user: string; readonly password: string };
  readonly settings: readonly string[];
}): Promise<Record<string, string>> {
  const { folder, port, mapperPort, distributionPort, login, settings } = options;
  const at = (name: string) => join(folder, name);
  await Promise.all(["home", "data", "log", "conf.d"].map((name) => mkdir(at(name))));
  await writeFile(
    at("rabbitmq.conf"),
    [
      `listeners.tcp.1 = 127.0.0.1:${port}`,
      // Made at the first start, in place of guest.
      `default_user = ${login.user}`,
      `default_pass = ${login.password}`,
      "vm_memory_high_watermark.absolute = 512MB",
      "disk_free_limit.absolute = 50MB",
      "raft.wal_max_size_bytes = 33554432",
      "log.console = true",
      "log.console.level = warning",
      "log.file = false",
      ...settings,
    ]
      .map((line) => `${line}\n`)
      .join(""),
    { mode: 0o600 },
  );
  await writeFile(at("advanced.config"), "[].\n");
  await writeFile(at("enabled_plugins"), "[].\n");
  await writeFile(at("rabbitmq-env.conf"), "");
  return {
    PATH: process.env["PATH"] ?? "",
    HOME: at("home"),
    LANG: "C.UTF-8",
    RABBITMQ_NODENAME: "rabbit@localhost",
    RABBITMQ_CONF_ENV_FILE: at("rabbitmq-env.conf"),
    RABBITMQ_CONFIG_FILE: at("rabbitmq.conf"),
    RABBITMQ_CONFIG_FILES: at("conf.d"),
    RABBITMQ_ADVANCED_CONFIG_FILE: at("advanced.config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: at("enabled_plugins"),
    RABBITMQ_MNESIA_BASE: at("data"),
    RABBITMQ_LOG_BASE: at("log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_PID_FILE: at("pid"),
    RABBITMQ_DIST_PORT: String(distributionPort),
    // The start script becomes the server, and not its parent.
    RABBITMQ_ALLOW_INPUT: "1",
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:
      "-noinput +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
    RABBITMQ_CTL_ERL_ARGS: "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
    ERL_EPMD_PORT: String(mapperPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    ERL_CRASH_DUMP_SECONDS: "0",
  };
}

interface Running {
  readonly child: ChildProcess;
  log(): string;
}

function spawnServer(program: string, folder: string, environment: Readonly<Record<string, string>>): Running {
  const child = spawn("sh", ["-c", supervisor, "sh", folder, "sh", "-c", serverScript, "sh", program], {
    cwd: folder,
    env: environment,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  let log = "";
  const read = (text: string) => {
    log = (log + text).slice(-logCharactersMax);
  };
  child.stdout?.setEncoding("utf8").on("data", read);
  child.stderr?.setEncoding("utf8").on("data", read);
  child.once("error", (error) => read(error.message));
  child.stdio[3]?.on("error", () => {});
  // A test that forgets to stop it must still be able to end; the pipe's end kills the server then.
  child.unref();
  for (const stream of [child.stdout, child.stderr, child.stdio[3]]) (stream as Socket).unref();
  return { child, log: () => log };
}

async function whenReady(server: Running, port: number): Promise<void> {
  const hasEnded = () => server.child.exitCode !== null || server.child.signalCode !== null;
  try {
    await until("the test RabbitMQ answers", async () => hasEnded() || (await greets(port)), readyMs);
    if (hasEnded()) throw new Error(`It ended with code ${server.child.exitCode}.`);
  } catch (error) {
    (server.child.stdio[3] as Socket).destroy();
    throw new Error(`The test RabbitMQ did not start:\n${server.log()}`, { cause: error });
  }
}

/** Whether a connection is answered by "connection.start", a frame of type 1. */
function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    const end = (isThere: boolean) => {
      socket.destroy();
      resolve(isThere);
    };
    socket.setTimeout(2_000, () => end(false));
    socket.once("error", () => end(false));
    socket.once("close", () => end(false));
    socket.once("data", (bytes) => end(bytes[0] === 1));
    socket.write(Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1]));
  });
}

/** Held together until all are known, so that no two are the same. */
async function freePorts(): Promise<readonly [number, number, number]> {
  const servers = [createServer(), createServer(), createServer()];
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports as [number, number, number];
}
