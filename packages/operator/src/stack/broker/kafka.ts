/** Kafka of a stack: one node on loopback that is broker and controller, from the release that KAFKA_HOME names. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { UnavailableError } from "rungs";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { privateFolder, writePrivate } from "../process/secrets.ts";
import { findJava, type KafkaPorts, kafkaArguments, kafkaConfig, kafkaUser } from "./kafka-config.ts";
import { probeKafka } from "./kafka-probe.ts";

export interface KafkaOptions {
  /** Folder of Kafka's release, with `libs` in it. */
  readonly home: string;
  /** The stack's; Kafka's own is below it. */
  readonly folder: string;
  readonly logFolder: string;
  readonly ports: KafkaPorts;
  readonly password: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

const name = "kafka";
const formatTimeoutMs = 60_000;
const run = promisify(execFile);

/** The address that the app's processes get, with the password. */
export function kafkaUrl({ port, password }: { readonly port: number; readonly password: string }): string {
  return `kafka://${kafkaUser}:${password}@127.0.0.1:${port}`;
}

/** Makes the component; the files are written when it starts. */
export function kafkaComponent(options: KafkaOptions): Component {
  const { home, logFolder, ports, password } = options;
  const folder = join(options.folder, name);
  const data = join(folder, "data");
  const configFile = join(folder, "server.properties");
  const java = findJava(options.environment) ?? "java";
  const args = kafkaArguments(home, "kafka.Kafka", configFile);
  const environment = { PATH: options.environment["PATH"], LC_ALL: "C.UTF-8" };
  const server = new ManagedProcess({
    name,
    role: "broker",
    command: java,
    args,
    folder,
    environment,
    port: ports.kafka,
    logFolder,
    probe: (signal) => probeKafka({ port: ports.kafka, user: kafkaUser, password, signal }),
    // A cold machine takes 10 s, one that starts 50 other processes more.
    startTimeoutMs: 90_000,
    stopTimeoutMs: 30_000,
  });
  return {
    name,
    role: "broker",
    needs: [],
    plan: [java, ...args].join(" "),
    async start(signal) {
      await privateFolder(folder);
      await privateFolder(data);
      await writePrivate(configFile, kafkaConfig({ ports, data, password }));
      if (!existsSync(join(data, "meta.properties"))) {
        await format({ java, home, folder, configFile, environment, signal });
      }
      await server.start(signal);
    },
    stop: () => server.stop(),
    processes: () => server.report(),
  };
}

/** Gives the empty folder an identity. */
async function format(options: {
  readonly java: string;
  readonly home: string;
  readonly folder: string;
  readonly configFile: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { java, home, folder, configFile, environment, signal } = options;
  const id = randomBytes(16).toString("base64url");
  const args = kafkaArguments(home, "kafka.tools.StorageTool", "format", `--cluster-id=${id}`, "-c", configFile);
  try {
    await run(java, args, { cwd: folder, env: environment, signal, timeout: formatTimeoutMs });
  } catch (error) {
    signal.throwIfAborted();
    const output = error as { readonly stderr?: string; readonly stdout?: string };
    const why = `${output.stdout ?? ""}${output.stderr ?? ""}`.trim().split("\n").slice(-5).join("\n");
    throw new UnavailableError("SERVER_START_FAILED", `Kafka could not prepare ${folder}:\n${why}`, {
      canRetry: false,
      cause: error,
    });
  }
}
