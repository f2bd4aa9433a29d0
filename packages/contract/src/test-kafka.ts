/**
 * A real Kafka for tests: one node that is broker and controller (KRaft), on free ports of loopback, with a folder of its own.
 *
 * Its programs are those of `KAFKA_HOME`, else those that `scripts/fetch-kafka.mjs` has fetched. Its shell waits on a pipe that this
 * process holds: when the pipe closes, by `stop()` or because this process ended in whatever way, the server is killed and the folder
 * removed.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { kafkaBroker } from "rungs/queue/kafka";
import { until } from "./test-redis.ts";

/** A running test server. */
export interface TestKafka {
  readonly port: number;
  /** `kafka://127.0.0.1:port`. */
  readonly url: string;
  /** `kafka+ssl://user:password@127.0.0.1:another`; undefined without certificates. */
  readonly secureUrl: string | undefined;
  /** Kills it as a crash would, and waits for its end. */
  kill(): Promise<void>;
  /** Starts it again where it was, with what it had written. */
  restart(): Promise<void>;
  /** Stops its process in its tracks, or lets it go on. */
  freeze(isFrozen: boolean): void;
  /** Kills it for good and removes its folder. Safe to call twice. */
  stop(): Promise<void>;
}

const run = promisify(execFile);
const readyMs = 90_000;

/** `$1` is the server's folder, the rest its command. A line on the pipe kills the server only, its end removes the folder too. */
const supervisor = `
trap '' INT TERM HUP PIPE
folder="$1"; shift
"$@" 3<&- &
server=$!
echo "pid $server"
{ read -r _ <&3 || touch "$folder/gone"; kill -KILL $server; } 2>/dev/null &
watcher=$!
wait $server
kill -KILL $watcher 2>/dev/null
[ -e "$folder/gone" ] && rm -rf "$folder"
`;

/** Small, and quick to start; the last is for the logger that is fetched with it. */
const javaFlags = [
  ...["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"],
  "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/** Files of a server's key and certificate, in PEM. */
export interface KafkaCertificate {
  readonly keyFile: string;
  readonly certificateFile: string;
}

/** Starts a server. With a `certificate` it has a second listener, with TLS and a login. */
export async function startTestKafka({
  certificate,
}: {
  readonly certificate?: KafkaCertificate;
} = {}): Promise<TestKafka> {
  const classpath = join(kafkaHome(), "libs", "*");
  const folder = await mkdtemp(join(tmpdir(), "rungs-kafka-"));
  const [port, controllerPort, securePort] = await freePorts();
  const properties = join(folder, "server.properties");
  const password = randomBytes(16).toString("hex");
  const keystore = join(folder, "keystore.pem");
  if (certificate !== undefined) {
    const files = [certificate.keyFile, certificate.certificateFile].map((file) => readFileSync(file, "utf8"));
    await writeFile(keystore, files.join("\n"));
  }
  const content = kafkaProperties({
    ...{ port, controllerPort, data: join(folder, "data") },
    secure: certificate === undefined ? undefined : { port: securePort, keystore, password },
  });
  await writeFile(properties, `${content.join("\n")}\n`);
  const java = (main: string, ...args: readonly string[]) => [...javaFlags, "-cp", classpath, main, ...args];
  const id = randomBytes(16).toString("base64url");
  await run("java", java("kafka.tools.StorageTool", "format", `--cluster-id=${id}`, "-c", properties), {
    cwd: folder,
    timeout: readyMs,
    env: environment(),
  });
  const command = ["java", ...java("kafka.Kafka", properties)];
  const url = `kafka://127.0.0.1:${port}`;
  const start = async () => {
    const started = await spawnServer(command, folder);
    await whenReady(started, url);
    return started;
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
    url,
    secureUrl: certificate === undefined ? undefined : `kafka+ssl://tester:${password}@127.0.0.1:${securePort}`,
    kill: () => end(false),
    async restart() {
      await end(false);
      server = await start();
    },
    freeze: (isFrozen) => void process.kill(server.pid, isFrozen ? "SIGSTOP" : "SIGCONT"),
    async stop() {
      await end(true);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Why no Kafka can be started here, for the title of tests that then do not run; undefined when one can. */
export function whyNoKafka(): string | undefined {
  try {
    kafkaHome();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** The folder with Kafka's `libs`. Raises an `Error` when there is none. */
export function kafkaHome(): string {
  const given = process.env["KAFKA_HOME"] ?? "";
  const servers = JSON.parse(readFileSync(new URL("../../../scripts/servers.json", import.meta.url), "utf8")) as {
    readonly name: string;
    readonly version?: string;
  }[];
  const version = servers.find(({ name }) => name === "Kafka")?.version ?? "";
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const home = given === "" ? join(cache, "rungs", `kafka-${version}`) : given;
  const libs = join(home, "libs");
  if (existsSync(libs) && readdirSync(libs).some((name) => /^kafka_.*\.jar$/.test(name))) return home;
  throw new Error("Kafka is not there: set KAFKA_HOME, or run node scripts/fetch-kafka.mjs (needs Java and Maven)");
}

function kafkaProperties(options: {
  readonly port: number;
  readonly controllerPort: number;
  readonly data: string;
  readonly secure: { readonly port: number; readonly keystore: string; readonly password: string } | undefined;
}): string[] {
  const { port, controllerPort, data, secure } = options;
  const ours = `PLAINTEXT://127.0.0.1:${port}${secure === undefined ? "" : `,SECURE://127.0.0.1:${secure.port}`}`;
  return [
    "process.roles=broker,controller",
    "node.id=1",
    `controller.quorum.voters=1@127.0.0.1:${controllerPort}`,
    "controller.listener.names=CONTROLLER",
    `listeners=${ours},CONTROLLER://127.0.0.1:${controllerPort}`,
    `advertised.listeners=${ours}`,
    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
    "inter.broker.listener.name=PLAINTEXT",
    ...(secure === undefined ? [] : secureProperties(secure)),
    `log.dirs=${data}`,
    "auto.create.topics.enable=false",
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=1",
    "transaction.state.log.num.partitions=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=500",
    "num.network.threads=2",
    "num.io.threads=2",
    "background.threads=2",
    "log.cleaner.dedupe.buffer.size=4194304",
    // A killed broker may come back at once: its own controller waits this long for the one that it remembers.
    "broker.heartbeat.interval.ms=250",
    "broker.session.timeout.ms=1000",
    "controller.quorum.election.timeout.ms=200",
    "controller.quorum.fetch.timeout.ms=400",
  ];
}

function secureProperties({ keystore, password }: { readonly keystore: string; readonly password: string }): string[] {
  const login = `org.apache.kafka.common.security.plain.PlainLoginModule required user_tester="${password}";`;
  return [
    "listener.name.secure.ssl.keystore.type=PEM",
    `listener.name.secure.ssl.keystore.location=${keystore}`,
    "listener.name.secure.sasl.enabled.mechanisms=PLAIN",
    `listener.name.secure.plain.sasl.jaas.config=${login}`,
  ];
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  log(): string;
}

const environment = () => ({ PATH: process.env["PATH"], JAVA_HOME: process.env["JAVA_HOME"], LC_ALL: "C", TZ: "UTC" });

async function spawnServer(command: readonly string[], folder: string): Promise<Running> {
  const child = spawn("sh", ["-c", supervisor, "sh", folder, ...command], {
    cwd: folder,
    env: environment(),
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  let log = "";
  const pid = await new Promise<number>((resolve, reject) => {
    const read = (text: string) => {
      log = (log + text).slice(-8_000);
      const [, digits] = /^pid (\d+)$/m.exec(log) ?? [];
      if (digits !== undefined) resolve(Number(digits));
    };
    child.stdout?.setEncoding("utf8").on("data", read);
    child.stderr?.setEncoding("utf8").on("data", read);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`Kafka ended with ${code}:\n${log}`)));
  });
  child.stdio[3]?.on("error", () => {});
  // A test that forgets to stop it must still be able to end; the pipe's end kills the server then.
  child.unref();
  for (const stream of [child.stdout, child.stderr, child.stdio[3]]) (stream as Socket).unref();
  return { child, pid, log: () => log };
}

async function whenReady(server: Running, url: string): Promise<void> {
  const asker = kafkaBroker({ url });
  try {
    await until(
      "the test Kafka answers",
      async () => {
        if (server.child.exitCode !== null) return true;
        await asker.check();
        return true;
      },
      readyMs,
    );
    if (server.child.exitCode !== null) throw new Error(`It ended with code ${server.child.exitCode}.`);
  } catch (error) {
    throw new Error(`The test Kafka did not start. Its log ends with:\n${server.log()}`, { cause: error });
  } finally {
    await asker.close();
  }
}

/** Some that are free, taken together so that they differ. */
async function freePorts(): Promise<[number, number, number]> {
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
