/** What `--regions` means before anything starts: parts, names, addresses, settings of each region, and what is refused. */
import { execFile, execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { resolveTopology, Secret, type TopologyInput } from "rungs/topology";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import {
  databaseRouterConfig,
  databaseRouterState,
  type RoutedShard,
} from "../src/stack/databases/database-router-config.ts";
import { type PatroniMember, patroniConfig } from "../src/stack/databases/patroni-config.ts";
import type { Balancer } from "../src/stack/front/balancer.ts";
import { balancerOf } from "../src/stack/front/balancer-of.ts";
import { nginxConfig } from "../src/stack/front/nginx-config.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { type RegionChoice, regionNames } from "../src/stack/regions/planned-regions.ts";
import { portNames } from "../src/stack/stack-parts.ts";
import { planStack, type StackPlan } from "../src/stack/stack-plan.ts";
import { rungs } from "./support/cli.ts";
import { haproxyTakes } from "./support/haproxy.ts";
import { stackApp } from "./support/stack.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-regions-plan-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const app: StackPlan["app"] = {
  ...{ name: "shop", folder: "/shop", app: "/shop/app.ts", companions: [] },
  balancer: {
    uploads: [{ path: "/up", bodyLimitMegabytes: 2, timeoutMs: 90_000 }],
    streams: ["/live"],
    hidden: ["/inner"],
  },
  cdn: { files: [] },
};
const choice: RegionChoice = { names: ["eu", "us"], roundTripMs: 80, isSpread: false };

function planned(
  content: TopologyInput = {},
  options: {
    readonly regions?: Partial<RegionChoice>;
    readonly environment?: Record<string, string>;
    readonly broker?: "kafka";
    readonly rung?: string;
  } = {},
): StackPlan {
  const { environment = {}, rung = "5", regions = {}, broker } = options;
  const { topology, sources } = resolveTopology({ file: { name: "f", content }, environment, flags: { rung } });
  return planStack({
    ...{ topology, app, folder: "/data", environment, regions: { ...choice, ...regions } },
    isChosen: (path) => !/^(default|preset)/.test(sources.get(path) ?? "default"),
    ...(broker === undefined ? {} : { broker }),
  });
}

describe("the plan of two regions", () => {
  it("has the app's groups in each, few of them unless more were asked for, and no broker", () => {
    const plan = planned();
    expect(plan).toMatchObject({
      ...{
        rung: 5,
        clusters: 1,
        membersPerShard: 2,
        hasRedis: true,
        hasCache: true,
        hasVarnish: true,
        balancer: "nginx",
      },
      regions: [
        { name: "eu", prefix: "eu-", host: "127.1.1.1", folder: "/data/regions/eu" },
        { name: "us", prefix: "us-", host: "127.1.2.1", folder: "/data/regions/us" },
      ],
      groups: [
        { name: "eu-web", group: "web", region: "eu", processes: 2, places: 6, isRouted: true },
        { name: "eu-workers", group: "workers", region: "eu", processes: 1, places: 4 },
        { name: "us-web", group: "web", region: "us" },
        { name: "us-workers", group: "workers", region: "us" },
      ],
    });
    expect([plan.broker, plan.topology.queue.url]).toEqual([undefined, undefined]);
    expect(plan.places).toBe(20);
    expect(plan.programs.map(({ name }) => name)).toEqual(expect.arrayContaining(["gdnsd", "patroni", "haproxy"]));
    const asked = planned({ web: { processes: 4 }, services: { workers: { processes: 2 } } });
    expect(asked.groups.map(({ processes }) => processes)).toEqual([4, 2, 4, 2]);
  });

  it("tells each process its region, how the others are reached, and whom to read from", () => {
    const { processTopology } = planned();
    const us = processTopology({
      ...{ group: "web", port: 21_000, purgePorts: [22_001, 22_002] },
      region: { name: "us", urls: { eu: "http://127.0.0.1:23001" } },
    });
    expect(us).toMatchObject({
      region: "us",
      regions: {
        eu: { addresses: ["127.1.1.1"], isLeader: true, url: "http://127.0.0.1:23001" },
        us: { addresses: ["127.1.2.1"] },
      },
      web: { host: "127.0.0.1", port: 21_000, trustProxy: ["loopback"] },
      cdn: { addresses: ["http://127.0.0.1:22001", "http://127.0.0.1:22002"] },
      group: "web",
    });
    expect(us.regions?.["us"]).not.toHaveProperty("url");
    expect(us.database.shards).toMatchObject([{ followers: [expect.any(Secret)] }]);
    expect(us.sessions.replica).toBeInstanceOf(Secret);
    // As the process itself reads it.
    const content = JSON.parse(JSON.stringify({ ...us, sessions: {}, cache: {}, cdn: undefined, database: {} }));
    expect(resolveTopology({ file: { name: "of the launcher", content } }).topology.region).toBe("us");
  });

  it("has a port for each part, and one more for each that is reached over a distance", () => {
    const names = portNames(planned());
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(
      expect.arrayContaining([
        ...["etcd", "distance", "dns", "eu-redis", "us-sentinel", "eu-shard-0-leader", "us-shard-0-followers"],
        ...["eu-postgres-0", "us-postgres-0-patroni", "eu-postgres-0-far", "us-forward", "us-forward-far"],
        ...["eu-cache", "us-purge", "eu-balancer", "eu-web-6", "us-workers-4"],
      ]),
    );
    expect(portNames(planned({}, { regions: { roundTripMs: 0 } })).filter((name) => /far|distance/.test(name))).toEqual(
      [],
    );
    expect(names.filter((name) => name === "redis" || name === "web-1")).toEqual([]);
  });

  it("begins with all leaders in the first region, or by turns", () => {
    const shards = { database: { shards: 3 } };
    const first = planned(shards);
    const spread = planned(shards, { regions: { isSpread: true } });
    expect([0, 1, 2].map(first.firstLeaderOf)).toEqual([0, 0, 0]);
    expect([0, 1, 2].map(spread.firstLeaderOf)).toEqual([0, 1, 0]);
  });

  it.each<[string, TopologyInput, Parameters<typeof planned>[1], string]>([
    [
      "a broker by flag",
      {},
      { broker: "kafka" },
      "--queue kafka would start one broker for all, in one region: with that",
    ],
    [
      "a broker of the operator's",
      {},
      { environment: { QUEUE_URL: "amqp://h" } },
      "queue.url names one broker for all",
    ],
    ["embedded databases", {}, { rung: "3" }, "embedded databases are not copied to another region. Add --rung 5"],
    [
      "databases of the operator's",
      {},
      { environment: { SHARD_0_LEADER_URL: "postgres://h/d" } },
      "the databases are servers of yours",
    ],
    ["sessions elsewhere", {}, { environment: { REDIS_URL: "redis://h:1" } }, "sessions.url names a server of yours"],
    ["a cache elsewhere", {}, { environment: { CACHE_URL: "redis://h:1" } }, "cache.url names a server of yours"],
    ["an address of the operator's", { web: { host: "0.0.0.0" } }, {}, "Leave --host and HOST out"],
    [
      "one process's region",
      { regions: { eu: { addresses: ["127.0.0.1"] } }, region: "eu" },
      {},
      'region is "eu", which is for one process alone',
    ],
  ])("refuses %s, and says why", (_what, content, options, message) => {
    expect(() => planned(content, options)).toThrow(message);
  });

  it("is not started by settings alone, which say where production is", () => {
    const content = { regions: { eu: { addresses: ["192.0.2.1"], isLeader: true }, us: { addresses: ["192.0.2.2"] } } };
    const { topology } = resolveTopology({ file: { name: "f", content }, flags: { rung: "5" } });
    expect(() => planStack({ topology, app, folder: "/data", environment: {} })).toThrow("--regions eu,us");
    expect(planned(content).topology.regions?.["eu"]?.addresses).toEqual(["127.1.1.1"]);
  });
});

describe("names of regions", () => {
  it("are those between the commas", () => {
    expect(regionNames("eu, us,ap-south")).toEqual(["eu", "us", "ap-south"]);
  });

  it.each([
    ["eu", "expected 2 to 8 regions, got 1"],
    ["eu,eu", '"eu" and "eu" could not be told apart'],
    ["us,us-west", '"us" and "us-west" could not be told apart'],
    ["EU,us", 'got "EU"'],
    ["eu,,us", 'got ""'],
    ["eu,../us", 'got "../us"'],
    ["a,b,c,d,e,f,g,h,i", "expected 2 to 8 regions, got 9"],
  ])("are refused where %j is none", (text, message) => {
    expect(() => regionNames(text)).toThrow(message);
  });
});

describe("rungs up --regions", () => {
  const up = (...args: string[]) =>
    rungs(["up", "--rung", "5", ...args], {
      folder: stackApp,
      environment: { QUEUE_URL: undefined, REDIS_URL: undefined },
    });

  it("shows with --dry-run what each region has, and starts nothing", async () => {
    const { code, stdout, stderr } = await up("--regions", "eu,us", "--distance-ms", "80", "--dry-run", "--json");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const { parts } = JSON.parse(stdout) as {
      parts: { part: string; number: number; region?: string; needs: string[] }[];
    };
    const of = (region: string | undefined) => parts.filter((each) => each.region === region).map(({ part }) => part);
    expect(of("us")).toEqual(
      ["database-router", "cache", "web", "workers", "balancer", "varnish"].map((name) => `us-${name}`),
    );
    expect(of(undefined)).toEqual(["distance", "etcd", "shard-0", "redis", "sentinel", "gdnsd", "helper"]);
    expect(parts.find(({ part }) => part === "shard-0")).toMatchObject({ number: 2, needs: ["etcd", "distance"] });
    expect(parts.find(({ part }) => part === "eu-web")).toMatchObject({ number: 2 });
  });

  it.each([
    [["--distance-ms", "80"], "--distance-ms has an effect only with several regions: --regions eu,us"],
    [["--regions", "eu,us", "--queue", "rabbitmq"], "Leave --queue out"],
  ])("refuses %j in words", async (args, message) => {
    const { code, stderr } = await up(...args, "--dry-run");
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

const members: readonly PatroniMember[] = [
  { name: "eu-postgres-0", postgresPort: 21_001, patroniPort: 22_001, region: "eu", farPort: 25_001 },
  { name: "us-postgres-0", postgresPort: 21_002, patroniPort: 22_002, region: "us", farPort: 25_002 },
];

describe("a region's database server", () => {
  it("says where it is, and is followed over the distance", () => {
    const cluster = {
      ...{ shard: 0, members, replication: "synchronous" as const, connectionsMax: 300, etcdPorts: [23_000] },
      passwords: { superuser: "s", replication: "r", rewind: "w", rest: "p", etcd: "e" },
    };
    const text = patroniConfig(cluster, members[1] as PatroniMember, {
      ...{ folder: "/srv", programs: { bin: "/usr/lib/postgresql/15/bin", version: 15 } },
    });
    const { postgresql, bootstrap } = parse(text);
    expect(postgresql.parameters["rungs.region"]).toBe("us");
    expect([postgresql.listen, postgresql.connect_address]).toEqual(["127.0.0.1:21002", "127.0.0.1:25002"]);
    expect(bootstrap.dcs.synchronous_mode).toBe(true);
  });
});

describe("a region's router", () => {
  const shards: readonly RoutedShard[] = [
    { name: "shard-0", members, leaderPort: 24_000, followersPort: 24_001, connectionsMax: 300, region: "us" },
  ];
  const program = findProgram("haproxy", process.env);

  it("reaches servers of other regions over the distance, its own directly and first", () => {
    const text = databaseRouterConfig(shards, { socket: "/s", state: "/f" });
    const [leader = "", nearest = ""] = text.split("listen shard-0-followers");
    expect(leader).toContain("server eu-postgres-0 127.0.0.1:25001 check port 22001");
    expect(leader).toContain("server us-postgres-0 127.0.0.1:21002 check port 22002");
    expect(nearest).toMatch(/server eu-postgres-0 .* backup\n/);
    expect(nearest).toMatch(/server us-postgres-0 127\.0\.0\.1:21002 check port 22002\n/);
  });

  it.runIf(program !== undefined)("has a file that HAProxy takes", async () => {
    const [state, file] = [join(folder, "servers"), join(folder, "haproxy.cfg")];
    await writeFile(state, databaseRouterState(shards));
    await writeFile(file, databaseRouterConfig(shards, { socket: join(folder, "socket"), state }));
    execFileSync(program as string, ["-c", "-f", file], { stdio: "pipe" });
  });
});

describe("a region's balancer", () => {
  const plan = planned({ services: { payments: {} } });
  const ports = Object.fromEntries(portNames(plan).map((name, index) => [name, 20_000 + index]));
  const balancer: Balancer = balancerOf(plan, {
    region: plan.regions[1] as StackPlan["regions"][number],
    ...{ ports, appPort: 20_900 },
  });

  it("leads to the places of its own region alone", () => {
    const names = [...balancer.servers, ...(balancer.split?.groups ?? []).flatMap(({ servers }) => servers)];
    expect(names.every(({ name }) => name.startsWith("us-"))).toBe(true);
    expect(balancer.split?.groups.map(({ name }) => name)).toEqual(["payments"]);
    expect(balancer.split?.internalPorts).toEqual({
      web: ports["us-web-internal"],
      payments: ports["us-payments-internal"],
    });
    expect(balancer.forwardedPort).toBe(ports["us-forward"]);
  });

  const split = { ...(balancer.split as NonNullable<Balancer["split"]>), rules: [] };

  it("takes forwarded requests on loopback by the same ways, and no client's word for one", () => {
    const text = nginxConfig({ ...balancer, split }, { work: "/w", pages: "/p", accessLog: "/l" });
    const [before = "", inner = ""] = text.split("# What other regions forward");
    expect(inner).toContain(`listen 127.0.0.1:${ports["us-forward"]} `);
    expect(inner).toContain("proxy_pass http://$group;");
    expect(inner).toContain("proxy_request_buffering off;");
    expect(inner).not.toContain("limit_conn");
    expect(inner).not.toContain("X-Forwarded-For");
    expect(inner).not.toContain('Rungs-Forwarded ""');
    expect(before).toContain('proxy_set_header Rungs-Forwarded "";');
  });

  it("does so as HAProxy too, which takes its file", async () => {
    expect(planned({ web: { balancer: "haproxy" } }).balancer).toBe("haproxy");
    expect(await haproxyTakes({ ...balancer, split }, { folder })).toBe("");
    const text = await readFile(join(folder, "haproxy.cfg"), "utf8");
    const [before = "", rest = ""] = text.split("# What other regions forward");
    const [inner] = rest.split("\nbackend ");
    expect(inner).toContain(`bind 127.0.0.1:${ports["us-forward"]} `);
    for (const kind of ["", ".keyed", ".uploads_0"]) expect(inner).toContain(`use_backend %[var(txn.group)]${kind}`);
    expect(inner).not.toMatch(/txn\.room|X-Forwarded|Rungs-Forwarded/);
    expect(before).toContain("http-request del-header Rungs-Forwarded");
  });

  it("has a file that nginx takes", async () => {
    const file = join(folder, "nginx.conf");
    for (const made of ["pages", "logs"]) await mkdir(join(folder, made), { recursive: true });
    const places = { work: folder, pages: join(folder, "pages"), accessLog: join(folder, "logs", "access.log") };
    await writeFile(file, nginxConfig(balancer, places));
    const nginx = findProgram("nginx", process.env) as string;
    const { stderr } = await promisify(execFile)(nginx, ["-t", "-e", "stderr", "-p", folder, "-c", file]);
    expect(stderr).toContain("test is successful");
  });
});
