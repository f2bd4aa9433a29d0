/** Kafka as a part of a stack: what it is told, and that it starts, takes its login only, comes back and leaves nothing behind. */
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kafkaHome, whyNoKafka } from "@rungs/contract/test-kafka";
import { kafkaBroker } from "rungs/queue/kafka";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { kafkaComponent, kafkaUrl } from "../src/stack/broker/kafka.ts";
import { findJava, kafkaConfig, kafkaUser } from "../src/stack/broker/kafka-config.ts";
import { probeKafka } from "../src/stack/broker/kafka-probe.ts";
import type { ProcessReport } from "../src/stack/component.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { generatedSecret } from "../src/stack/process/secrets.ts";
import { expectLasting, listening } from "./support/broker-component.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-kafka-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const missing = whyNoKafka();
const never = new AbortController().signal;

describe("what Kafka is told", () => {
  it("is to listen on loopback alone, and to ask for a login everywhere", () => {
    const config = kafkaConfig({
      ports: { kafka: 20_001, kafkaController: 20_002 },
      data: "/stack/kafka/data",
      password: "hush",
    });
    expect(config).toContain("\nlisteners=CLIENT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002\n");
    expect(config).toContain("\nlistener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT\n");
    expect(config.match(/username="rungs" password="hush" user_rungs="hush"/g)).toHaveLength(2);
  });

  it("is run by the Java of JAVA_HOME, else by that of the PATH", async () => {
    const bin = join(folder, "java-home", "bin");
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, "java"), "", { mode: 0o755 });
    expect(findJava({ JAVA_HOME: join(folder, "java-home"), PATH: process.env["PATH"] })).toBe(join(bin, "java"));
    expect(findJava({ JAVA_HOME: "", PATH: bin })).toBe(join(bin, "java"));
    expect(findJava({ JAVA_HOME: join(folder, "none"), PATH: bin })).toBeUndefined();
  });
});

describe.skipIf(missing !== undefined)(`Kafka of a stack${missing === undefined ? "" : `: ${missing}`}`, () => {
  it("starts, takes its login only, keeps messages over a crash, and leaves nothing", async () => {
    const chosen = await choosePorts(["kafka", "kafkaController"], {});
    const ports = chosen as { kafka: number; kafkaController: number };
    const password = await generatedSecret(folder, "kafka-password");
    const component = kafkaComponent({
      ...{ home: kafkaHome(), folder, logFolder: folder, ports, password, environment: process.env },
    });
    const broker = kafkaBroker({ url: kafkaUrl({ port: ports.kafka, password }) });
    try {
      await component.start(never);
      const [server] = component.processes() as [ProcessReport];
      expect(server).toMatchObject({ name: "kafka", role: "broker", state: "ready", port: ports.kafka });
      const wrong = { port: ports.kafka, user: kafkaUser, password: "wrong", signal: never };
      await expect(probeKafka(wrong)).rejects.toThrow();
      const addresses = listening([server.pid]);
      expect(addresses.length).toBeGreaterThanOrEqual(2);
      for (const address of addresses) expect(address).toMatch(/^127\.0\.0\.1:/);
      expect((await stat(join(folder, "kafka", "server.properties"))).mode & 0o777).toBe(0o600);
      expect(await readFile(`/proc/${server.pid}/cmdline`, "utf8")).not.toContain(password);

      await expectLasting({ component, broker, ports });
    } finally {
      await broker.close();
      await component.stop();
    }
  }, 120_000);
});
