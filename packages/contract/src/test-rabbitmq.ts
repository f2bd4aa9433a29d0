/**
 * A real RabbitMQ server for tests, on free ports of loopback, with an Erlang port mapper (epmd) and a folder of its own.
 * Both are a session, which is killed as a whole.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePorts } from "./support/free-ports.ts";
import { type SupervisedServer, startSupervisedServer } from "./support/supervised-server.ts";

/** A running test server. */
export interface TestRabbitmq extends SupervisedServer {
  readonly port: number;
  /** `amqp://user:password@127.0.0.1:port/`. */
  readonly url: string;
  /** Runs rabbitmqctl against it and gives what it prints. Takes a second. */
  ctl(...args: readonly string[]): Promise<string>;
}

const run = promisify(execFile);

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
  const { port, mapperPort, distributionPort } = await freePorts("port", "mapperPort", "distributionPort");
  const login = { user: "tester", password: randomBytes(16).toString("hex") };
  const environment = await prepare({ folder, port, mapperPort, distributionPort, login, settings });
  const server = await startSupervisedServer({
    ...{ name: "RabbitMQ", folder, environment, readyWithinMs: 60_000 },
    command: ["setsid", "sh", "-c", serverScript, "sh", join(programs, "rabbitmq-server")],
    isReady: () => greets(port),
  });
  return {
    ...server,
    port,
    url: `amqp://${login.user}:${login.password}@127.0.0.1:${port}/`,
    async ctl(...args) {
      const { stdout } = await run(join(programs, "rabbitmqctl"), ["-q", ...args], {
        timeout: 30_000,
        env: environment,
      });
      return stdout.trim();
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
