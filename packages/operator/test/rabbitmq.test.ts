/** RabbitMQ as a part of a stack: what it is told, and that it starts, takes its login only, comes back and leaves nothing behind. */
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rabbitmqBroker } from "rungs/queue/rabbitmq";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rabbitmqComponent, rabbitmqUrl } from "../src/stack/broker/rabbitmq.ts";
import { rabbitmqConfig, rabbitmqEnvironment, rabbitmqUser } from "../src/stack/broker/rabbitmq-config.ts";
import { probeRabbitmq } from "../src/stack/broker/rabbitmq-probe.ts";
import { findRabbitmq, type RabbitmqPrograms } from "../src/stack/broker/rabbitmq-programs.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { generatedSecret } from "../src/stack/process/secrets.ts";
import { expectLasting, listening } from "./support/broker-component.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-mq-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const never = new AbortController().signal;

describe("what RabbitMQ is told", () => {
  it("is to listen on loopback alone, with one user and no guest", () => {
    const config = rabbitmqConfig({ port: 20_001, password: "hush" });
    expect(config).toContain("listeners.tcp.1 = 127.0.0.1:20001\n");
    expect(config).toContain(`default_user = ${rabbitmqUser}\ndefault_pass = hush\n`);
    const ports = { amqp: 20_001, epmd: 20_002, distribution: 20_003 };
    const environment = rabbitmqEnvironment({ folder: "/stack/rabbitmq", ports, path: "/bin" });
    expect(environment).toMatchObject({
      ERL_EPMD_PORT: "20002",
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_DIST_PORT: "20003",
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: expect.stringContaining("inet_dist_use_interface {127,0,0,1}"),
    });
    const files = Object.entries(environment).filter(([key, value]) => /_(FILES?|BASE)$/.test(key) && value !== "");
    expect(files.length).toBeGreaterThanOrEqual(8);
    for (const [, path] of files) expect(path).toMatch(/^\/stack\/rabbitmq\//);
  });
});

describe("RabbitMQ of a stack", () => {
  it("starts with its own port mapper, takes its login only, keeps messages over a crash, and leaves nothing", async () => {
    const programs = findRabbitmq(process.env);
    expect(programs).toBeDefined();
    const chosen = await choosePorts(["amqp", "epmd", "distribution"], {});
    const ports = chosen as { amqp: number; epmd: number; distribution: number };
    const password = await generatedSecret(folder, "rabbitmq-password");
    const component = rabbitmqComponent({
      ...{
        programs: programs as RabbitmqPrograms,
        folder,
        logFolder: folder,
        ports,
        password,
        environment: process.env,
      },
    });
    const broker = rabbitmqBroker({ url: rabbitmqUrl({ port: ports.amqp, password }) });
    try {
      await component.start(never);
      const processes = component.processes();
      expect(processes.map(({ name, role, state }) => `${name} ${role} ${state}`)).toEqual([
        "rabbitmq broker ready",
        "rabbitmq-epmd broker ready",
      ]);
      for (const login of [
        { user: rabbitmqUser, password: "wrong" },
        { user: "guest", password: "guest" },
      ]) {
        await expect(probeRabbitmq({ ...login, port: ports.amqp, signal: never })).rejects.toThrow();
      }
      // epmd takes the other loopback too.
      const addresses = listening(processes.map(({ pid }) => pid));
      expect(addresses.length).toBeGreaterThanOrEqual(3);
      for (const address of addresses) expect(address).toMatch(/^(127\.0\.0\.1|\[::1\]):/);
      expect((await stat(join(folder, "rabbitmq", "rabbitmq.conf"))).mode & 0o777).toBe(0o600);
      for (const { pid } of processes) expect(await readFile(`/proc/${pid}/cmdline`, "utf8")).not.toContain(password);

      await expectLasting({ component, broker, ports });
    } finally {
      await broker.close();
      await component.stop();
    }
  }, 60_000);
});
