/** RabbitMQ as a part of a stack: what it is told, and that it starts, takes its login only, comes back and leaves nothing behind. */
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rabbitmqBroker } from "rungs/queue/rabbitmq";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ProcessReport } from "../src/stack/component.ts";
import { choosePorts } from "../src/stack/ports.ts";
import { identify, isRunning } from "../src/stack/process-identity.ts";
import { rabbitmqComponent, rabbitmqUrl } from "../src/stack/rabbitmq.ts";
import { rabbitmqConfig, rabbitmqEnvironment, rabbitmqUser } from "../src/stack/rabbitmq-config.ts";
import { probeRabbitmq } from "../src/stack/rabbitmq-probe.ts";
import { findRabbitmq, type RabbitmqPrograms } from "../src/stack/rabbitmq-programs.ts";
import { generatedSecret } from "../src/stack/secrets.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-mq-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const never = new AbortController().signal;
const subscriptions = [{ event: "thing.happened", handler: "work.note" }];
const message = {
  ...{
    id: "0190c7a0-0000-7000-8000-000000000001",
    event: "thing.happened",
    version: 1,
    key: "a",
    payload: { number: 1 },
  },
  ...{ publishedAt: new Date(0), shard: 0 },
};

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
      for (const address of listening(processes.map(({ pid }) => pid)))
        expect(address).toMatch(/^(127\.0\.0\.1|\[::1\]):/);
      expect((await stat(join(folder, "rabbitmq", "rabbitmq.conf"))).mode & 0o777).toBe(0o600);
      for (const { pid } of processes) expect(await readFile(`/proc/${pid}/cmdline`, "utf8")).not.toContain(password);

      await broker.declare(subscriptions);
      await broker.publish([message]);
      const server = processes[0] as ProcessReport;
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
  }, 60_000);
});

const portOf = (address: string) => Number(address.split(":").at(-1));

/** Local addresses on which these processes listen, or all. */
function listening(pids: readonly number[] | undefined): string[] {
  const lines = execFileSync("ss", ["-ltnpH"], { encoding: "utf8" }).split("\n").filter(Boolean);
  const wanted = lines.filter((line) => pids?.some((pid) => line.includes(`pid=${pid},`)) ?? true);
  if (pids !== undefined) expect(wanted.length).toBeGreaterThanOrEqual(3);
  return wanted.map((line) => line.trim().split(/\s+/)[3] as string);
}
