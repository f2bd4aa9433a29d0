/** Kafka as a part of a stack: what it is told, and that it starts, takes its login only, comes back and leaves nothing behind. */
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kafkaHome, whyNoKafka } from "@rungs/contract/test-kafka";
import { kafkaBroker } from "rungs/queue/kafka";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ProcessReport } from "../src/stack/component.ts";
import { kafkaComponent, kafkaUrl } from "../src/stack/kafka.ts";
import { findJava, kafkaConfig, kafkaUser } from "../src/stack/kafka-config.ts";
import { probeKafka } from "../src/stack/kafka-probe.ts";
import { choosePorts } from "../src/stack/ports.ts";
import { identify, isRunning } from "../src/stack/process-identity.ts";
import { generatedSecret } from "../src/stack/secrets.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-kafka-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const missing = whyNoKafka();
const never = new AbortController().signal;
const subscriptions = [{ event: "thing.happened", handler: "work.note" }];
const message = {
  ...{ id: "0190c7a0-0000-7000-8000-000000000001", event: "thing.happened", version: 1, key: "a", payload: null },
  ...{ publishedAt: new Date(0), shard: 0 },
};

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
      const addresses = listening(server.pid);
      expect(addresses.length).toBeGreaterThanOrEqual(2);
      for (const address of addresses) expect(address).toMatch(/^127\.0\.0\.1:/);
      expect((await stat(join(folder, "kafka", "server.properties"))).mode & 0o777).toBe(0o600);
      expect(await readFile(`/proc/${server.pid}/cmdline`, "utf8")).not.toContain(password);

      await broker.declare(subscriptions);
      await broker.publish([message]);
      process.kill(server.pid, "SIGKILL");
      const restarted = () => {
        const [now] = component.processes();
        return now?.state === "ready" && now.pid !== server.pid;
      };
      await expect.poll(restarted, { timeout: 30_000 }).toBe(true);
      const waiting = async () => (await broker.backlog(subscriptions).catch(() => undefined))?.[0]?.messages;
      await expect.poll(waiting, { timeout: 15_000 }).toBe(1);
      const identities = component.processes().map(({ pid }) => identify(pid));
      await broker.close();
      await component.stop();
      expect(identities.filter((identity) => identity !== undefined && isRunning(identity))).toEqual([]);
      expect(listening(undefined).filter((address) => Object.values(ports).includes(portOf(address)))).toEqual([]);
    } finally {
      await broker.close();
      await component.stop();
    }
  }, 120_000);
});

const portOf = (address: string) => Number(address.split(":").at(-1));

/** Local addresses on which this process listens, or all do. */
function listening(pid: number | undefined): string[] {
  const lines = execFileSync("ss", ["-ltnpH"], { encoding: "utf8" }).split("\n").filter(Boolean);
  const wanted = lines.filter((line) => pid === undefined || line.includes(`pid=${pid},`));
  return wanted.map((line) => line.trim().split(/\s+/)[3] as string);
}
