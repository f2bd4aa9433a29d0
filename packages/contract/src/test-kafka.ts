/**
 * A real Kafka for tests: one node that is broker and controller (KRaft), on free ports of loopback, with a folder of its own.
 *
 * Its programs are those of `KAFKA_HOME`, else those that `scripts/fetch-kafka.mjs` has fetched.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { kafkaBroker } from "rungs/queue/kafka";
import { freePorts } from "./support/free-ports.ts";
import { type SupervisedServer, startSupervisedServer } from "./support/supervised-server.ts";

/** A running test server. */
export interface TestKafka extends SupervisedServer {
  readonly port: number;
  /** `kafka://127.0.0.1:port`. */
  readonly url: string;
  /** `kafka+ssl://user:password@127.0.0.1:another`; undefined without certificates. */
  readonly secureUrl: string | undefined;
}

const run = promisify(execFile);
const readyMs = 90_000;

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
  const { port, controllerPort, securePort } = await freePorts("port", "controllerPort", "securePort");
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
  const url = `kafka://127.0.0.1:${port}`;
  const server = await startSupervisedServer({
    ...{ name: "Kafka", folder, environment: environment(), readyWithinMs: readyMs },
    command: ["java", ...java("kafka.Kafka", properties)],
    isReady: () => answers(url),
  });
  return {
    ...server,
    port,
    url,
    secureUrl: certificate === undefined ? undefined : `kafka+ssl://tester:${password}@127.0.0.1:${securePort}`,
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

const environment = () => ({ PATH: process.env["PATH"], JAVA_HOME: process.env["JAVA_HOME"], LC_ALL: "C", TZ: "UTC" });

async function answers(url: string): Promise<boolean> {
  const asker = kafkaBroker({ url });
  try {
    await asker.check();
    return true;
  } finally {
    await asker.close();
  }
}
