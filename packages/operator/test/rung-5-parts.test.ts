/** What of rung 5 needs no broker: plans, routing rules in nginx's words, and workers over job tables. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { kafkaHome, whyNoKafka } from "@rungs/contract/test-kafka";
import fc from "fast-check";
import Fastify from "fastify";
import { env, resolveTopology, type TopologyInput } from "rungs/topology";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StackStatus } from "../src/stack/component.ts";
import { serviceShards } from "../src/stack/databases/service-databases.ts";
import { balancerOf } from "../src/stack/front/balancer-of.ts";
import { nginxConfig } from "../src/stack/front/nginx-config.ts";
import { type RouteOfGroup, routingRules } from "../src/stack/front/routing-rules.ts";
import { processGroup } from "../src/stack/groups/process-group.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { expectOk } from "../src/stack/process/http-probe.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { planStack, type StackPlan } from "../src/stack/stack-plan.ts";
import { rungs } from "./support/cli.ts";
import { haproxyTakes } from "./support/haproxy.ts";
import { until } from "./support/orders.ts";
import { identities, type RunningStack, stackApp, startStackApp, stillRunning } from "./support/stack.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-groups-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const app: StackPlan["app"] = {
  ...{ name: "shop", folder: "/shop", app: "/shop/app.ts", companions: [{ name: "bank", program: "/shop/bank.ts" }] },
  balancer: { uploads: [{ path: "/up", bodyLimitMegabytes: 2, timeoutMs: 1_000 }], streams: ["/live"], hidden: [] },
  cdn: { files: [] },
};

function planned(
  content: TopologyInput,
  options: { environment?: Record<string, string>; broker?: "kafka"; rung?: string } = {},
): StackPlan {
  const { environment = {}, broker, rung } = options;
  const { topology } = resolveTopology({
    file: { name: "f", content },
    environment,
    flags: rung === undefined ? {} : { rung },
  });
  return planStack({ topology, app, folder: "/data", environment, ...(broker === undefined ? {} : { broker }) });
}

describe("the plan of groups", () => {
  it("at rung 5 is that of rung 4 with a broker and workers", () => {
    const plan = planned({}, { rung: "5" });
    expect(plan).toMatchObject({
      ...{ rung: 5, clusters: 1, hasRedis: true, hasCache: true, hasVarnish: true, broker: "rabbitmq" },
      groups: [
        { name: "web", role: "web", processes: 4, places: 12, isRouted: true },
        { name: "workers", role: "worker", processes: 2, places: 8, isRouted: false },
      ],
    });
    expect(plan.places).toBe(20);
    expect(plan.programs.map(({ name }) => name)).toContain("rabbitmq-server");
    expect(planned({}, { rung: "5", broker: "kafka" }).broker).toBe("kafka");
    const given = planned({}, { rung: "5", environment: { QUEUE_URL: "amqp://u:hush@10.0.0.1" } });
    expect(given.broker).toBeUndefined();
    expect(JSON.stringify(given.processTopology({ group: "web", port: 1 }))).not.toContain("hush");
  });

  it("tells each process its group, and where the others are", () => {
    const plan = planned({ web: { balancer: "nginx" }, services: { workers: {}, pay: { services: ["payments"] } } });
    const internalPorts = { web: 21_001, pay: 21_002 };
    expect(plan.processTopology({ group: "workers", port: 21_000, internalPorts })).toMatchObject({
      group: "workers",
      web: { host: "127.0.0.1", port: 21_000, processes: 1 },
      services: {
        web: { url: "http://127.0.0.1:21001" },
        workers: { processes: 1 },
        pay: { processes: 1, services: ["payments"], url: "http://127.0.0.1:21002" },
      },
    });
    expect(planned({ web: { balancer: "nginx" } }).processTopology({ group: "web", port: 1 })).not.toHaveProperty(
      "group",
    );
  });

  it("starts as many databases for a group's services as the settings say, and none where they list servers", () => {
    const settings = (shards: TopologyInput["services"]) =>
      planned({ web: { balancer: "nginx" }, queue: { url: "amqp://10.0.0.1" }, services: shards });
    const plan = settings({ "my-pay": { services: ["payments"], database: { shards: 2 } } });
    const leaders = [0, 1].map((shard) => ({ leader: env(`RUNGS_SERVICE_MY_PAY_SHARD_${shard}_URL`) }));
    expect(serviceShards(plan.topology).map(({ group, shard }) => `${group} ${shard}`)).toEqual([
      "my-pay 0",
      "my-pay 1",
    ]);
    for (const group of ["web", "my-pay"]) {
      expect(plan.processTopology({ group, port: 1 }).services?.["my-pay"]?.database?.shards).toEqual(leaders);
    }
    const listed = settings({ pay: { services: ["payments"], database: { shards: [{ leader: env("PAY_URL") }] } } });
    expect(serviceShards(listed.topology)).toEqual([]);
    expect(listed.processTopology({ group: "pay", port: 1 }).services?.["pay"]?.database?.shards).toEqual([
      { leader: env("PAY_URL") },
    ]);
  });

  it("needs no balancer for workers, who listen on loopback whatever web does", () => {
    const plan = planned({ web: { host: "0.0.0.0" }, services: { workers: {} } });
    expect(plan.groups.map(({ name, isRouted }) => [name, isRouted])).toEqual([
      ["web", false],
      ["workers", false],
    ]);
    expect(plan.processTopology({ group: "web", port: 1 }).web.host).toBe("0.0.0.0");
    expect(plan.processTopology({ group: "workers", port: 1 }).web.host).toBe("127.0.0.1");
  });

  it.each<[string, TopologyInput, string]>([
    ["a service without a balancer", { services: { payments: {} } }, "need a balancer in front: --balancer nginx"],
    ["a name of another part", { web: { balancer: "nginx" }, services: { cache: {} } }, "another part of the stack"],
    ["a companion's name", { web: { balancer: "nginx" }, services: { bank: {} } }, "another part of the stack"],
    [
      "one process's setting",
      { services: { workers: {} }, group: "workers" },
      "rungs up starts the processes of every group",
    ],
  ])("refuses %s, and says what to do", (_what, content, message) => {
    expect(() => planned(content)).toThrow(message);
  });

  it("refuses to start a broker that nothing would use", () => {
    expect(() => planned({}, { broker: "kafka" })).toThrow(
      "--queue kafka has an effect only where the topology has a broker",
    );
    const environment = { QUEUE_URL: "amqp://10.0.0.1" };
    expect(() => planned({}, { rung: "5", broker: "kafka", environment })).toThrow("queue.url names one of yours");
  });

  it("is told by --dry-run with all parts and what they need", async () => {
    const config = join(folder, "dry.json");
    await writeFile(config, JSON.stringify({ services: { billing: { processes: 3 } } }));
    const args = ["up", "--rung", "5", "--queue", "kafka", "--workers", "4", "--config", config, "--dry-run", "--json"];
    const { code, stdout, stderr } = await rungs(args, { folder: stackApp, environment: { QUEUE_URL: undefined } });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const { parts } = JSON.parse(stdout) as { parts: { part: string; number: number; needs: string[] }[] };
    expect(parts.find(({ part }) => part === "kafka")).toMatchObject({ number: 1 });
    expect(parts.find(({ part }) => part === "workers")).toMatchObject({
      number: 4,
      needs: expect.arrayContaining(["kafka"]),
    });
    expect(parts.find(({ part }) => part === "billing")).toMatchObject({ number: 3 });
    expect(parts.find(({ part }) => part === "balancer")).toMatchObject({ needs: ["web", "billing"] });
  });

  it("names Kafka's folder and Java when Kafka is not there", async () => {
    const args = ["up", "--rung", "5", "--queue", "kafka", "--dir", join(folder, "none"), "--port", "0"];
    const environment = { QUEUE_URL: undefined, KAFKA_HOME: undefined };
    const { code, stderr } = await rungs(args, { folder: stackApp, environment });
    expect(code).toBe(4);
    expect(stderr).toContain("Kafka with Java");
    expect(stderr).toContain("set KAFKA_HOME");
  }, 20_000);
});

describe("routing rules", () => {
  const route = (group: string, path: string, method = "GET"): RouteOfGroup => ({ group, path, method });

  it("are none for routes of web alone, and name those of web only where another group's would take their requests", () => {
    expect(routingRules([route("web", "/"), route("web", "/a/:b")])).toEqual([]);
    expect(
      routingRules([
        ...[route("web", "/articles/feed"), route("web", "/articles/:slug/comments"), route("web", "/users/:name")],
        ...[route("reading", "/articles/:slug"), route("reading", "/articles/:slug", "HEAD")],
      ]),
    ).toEqual([
      { group: "web", methods: ["GET"], pattern: "/articles/feed/?" },
      { group: "reading", methods: ["GET", "HEAD"], pattern: "/articles/[^/]+/?" },
    ]);
  });

  /** As nginx goes through its map. */
  const groupOf = (rules: ReturnType<typeof routingRules>, method: string, path: string) =>
    rules.find(({ methods, pattern }) => methods.includes(method) && new RegExp(`^${pattern}$`).test(path))?.group ??
    "web";

  it("send every request where the app's own router would take it, for any routes", async () => {
    const segment = fc.constantFrom("a", "b", "a.b", ":x", ":x", ":id(^\\d+$)", ":x.json", ":x-:y", "*");
    const path = fc
      .array(segment, { minLength: 1, maxLength: 3 })
      // A parameter's name is used once a path, a wildcard only at its end.
      .map(
        (parts) =>
          `/${parts.map((part, index) => (part === "*" && index < parts.length - 1 ? "w" : part.replaceAll(/:([a-z]+)/g, `:$1${index}`))).join("/")}`,
      );
    const routes = fc.array(fc.tuple(fc.constantFrom("web", "one", "two"), path), { minLength: 1, maxLength: 8 });
    const asked = fc
      .array(fc.constantFrom("a", "b", "w", "7", "x.json", "a-b", "a.b", "c%2Fd"), { minLength: 1, maxLength: 4 })
      .map((parts) => `/${parts.join("/")}`);
    await fc.assert(
      fc.asyncProperty(routes, fc.array(asked, { minLength: 5, maxLength: 10 }), async (all, paths) => {
        const fastify = Fastify({ routerOptions: { ignoreTrailingSlash: true } });
        const taken: RouteOfGroup[] = [];
        for (const [group, each] of all) {
          try {
            fastify.get(each, (_request, reply) => reply.send(group));
            taken.push(route(group, each));
          } catch {
            // Two of a kind: no app can have both.
          }
        }
        const rules = routingRules(taken);
        for (const each of paths) {
          const { statusCode, body } = await fastify.inject({ method: "GET", url: each });
          if (statusCode === 200) expect([each, taken, groupOf(rules, "GET", each)]).toEqual([each, taken, body]);
        }
        await fastify.close();
      }),
      { numRuns: 200 },
    );
  }, 30_000);

  it("become a configuration that nginx takes, and one that HAProxy takes", async () => {
    const plan = planned({
      web: { balancer: "nginx" },
      services: { workers: {}, payments: { processes: 2 }, bot: {} },
    });
    const names = plan.groups.flatMap(({ name, places }) =>
      Array.from({ length: places }, (_, at) => `${name}-${at + 1}`),
    );
    const all = [...names, "web-internal", "payments-internal", "bot-internal"];
    const ports = Object.fromEntries(all.map((name, index) => [name, 22_000 + index]));
    const [region] = plan.regions as [StackPlan["regions"][number]];
    const balancer = balancerOf(plan, { region, appPort: 21_999, ports });
    const rules = routingRules([
      ...[route("web", "/p/list"), route("payments", '/p/:id(^[0-9 ]{2}$)/"x"', "POST"), route("payments", "/p/:id")],
      ...[route("bot", "/files/*"), route("bot", "/ä/:a-:b")],
    ]);
    const file = join(folder, "nginx.conf");
    for (const made of ["pages", "logs"]) await mkdir(join(folder, made), { recursive: true });
    const places = { work: folder, pages: join(folder, "pages"), accessLog: join(folder, "logs", "access.log") };
    const split = balancer.split === undefined ? undefined : { ...balancer.split, rules };
    await writeFile(file, nginxConfig({ ...balancer, split }, places));
    const { stderr } = await promisify(execFile)(findProgram("nginx", process.env) as string, [
      ...["-t", "-e", "stderr", "-p", folder, "-c", file],
    ]);
    expect(stderr).toContain("test is successful");
    expect(stderr).not.toContain("[warn]");
    expect(await haproxyTakes(balancer, { folder, rules })).toBe("");
  });
});

describe("workers over job tables, without a broker or a balancer", () => {
  let stack: RunningStack;
  beforeAll(async () => {
    stack = await startStackApp(["--rung", "1", "--workers", "1"]);
  }, 60_000);
  afterAll(() => stack?.dispose(), 30_000);

  it("run what the web process publishes", async () => {
    const { processes, groups, broker } = (await stack.status()) as unknown as StackStatus;
    expect(groups.map(({ name, ready }) => [name, ready])).toEqual([
      ["web", 1],
      ["workers", 1],
    ]);
    expect(broker).toBeNull();
    await fetch(`${stack.app}/notes?id=alone`, { method: "POST" });
    const rows = async () => ((await (await fetch(`${stack.app}/handled`)).json()) as { rows: { pid: number }[] }).rows;
    await until(async () => (await rows()).length === 1);
    expect((await rows())[0]?.pid).toBe(processes.find(({ role }) => role === "worker")?.pid);
  }, 20_000);
});

describe("a group's process", () => {
  it("is asked whether it lives where it listens, and is left alone when it answers there", async () => {
    const { port } = (await choosePorts(["port"], {})) as { port: number };
    const server = `require("node:http").createServer((_, answer) => answer.end()).listen(${port}, "127.0.0.2")`;
    const group = processGroup({
      ...{ name: "web", role: "web", places: [{ name: "web-1", port, host: "127.0.0.2" }], processes: 1, needs: [] },
      ...{ plan: "", startAgain: () => "", silentMsMax: 300 },
      processIn: ({ name }) => ({
        ...{ name, role: "web", command: process.execPath, args: ["-e", server], folder, environment: {}, port },
        ...{ logFolder: folder, probe: (signal) => expectOk(`http://127.0.0.2:${port}/`, signal) },
      }),
    });
    await group.start(new AbortController().signal);
    const [before] = group.processes();
    // It is asked once a second, and would be killed at the second question.
    await sleep(3_500);
    const [after] = group.processes();
    await group.stop();
    expect(after).toMatchObject({ pid: before?.pid, crashes: 0, state: "ready" });
  });
});

const noKafka = whyNoKafka();

describe.skipIf(noKafka !== undefined)(
  `Kafka in RabbitMQ's place${noKafka === undefined ? "" : `: ${noKafka}`}`,
  () => {
    it("carries events to workers, and nothing is left of it when the launcher is killed", async () => {
      const config = join(folder, "kafka.json");
      await writeFile(config, JSON.stringify({ queue: { url: { env: "QUEUE_URL" } } }));
      const before = process.env["KAFKA_HOME"];
      process.env["KAFKA_HOME"] = kafkaHome();
      const stack = await startStackApp(["--queue", "kafka", "--workers", "1", "--config", config]).finally(() => {
        if (before === undefined) delete process.env["KAFKA_HOME"];
        else process.env["KAFKA_HOME"] = before;
      });
      try {
        const { processes, broker } = (await stack.status()) as unknown as StackStatus;
        expect([broker, processes.find(({ role }) => role === "broker")?.name]).toEqual(["kafka", "kafka"]);
        await fetch(`${stack.app}/notes?id=by-kafka`, { method: "POST" });
        const rows = async () =>
          ((await (await fetch(`${stack.app}/handled`)).json()) as { rows: { pid: number }[] }).rows;
        await until(async () => (await rows()).length === 1);
        expect((await rows())[0]?.pid).toBe(processes.find(({ role }) => role === "worker")?.pid);
        const all = identities(processes);
        await stack.end("SIGKILL");
        await until(() => stillRunning(all).length === 0);
      } finally {
        await stack.dispose();
      }
    }, 90_000);
  },
);
