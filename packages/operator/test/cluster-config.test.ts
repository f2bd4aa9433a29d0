/** The files of rung 4's servers, as their programs read them; the app's password as PostgreSQL keeps it; and who is taken for silent. */
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { openPostgres } from "rungs/database/postgres";
import { resolveTopology, type Topology } from "rungs/topology";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { scramVerifier } from "../src/stack/databases/app-database.ts";
import {
  databaseRouterConfig,
  databaseRouterState,
  type RoutedShard,
} from "../src/stack/databases/database-router-config.ts";
import { etcdConfig } from "../src/stack/databases/etcd.ts";
import {
  type PatroniCluster,
  type PatroniMember,
  patroniConfig,
  type Replication,
} from "../src/stack/databases/patroni-config.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { watchSilence } from "../src/stack/process/watch-silence.ts";
import { planStack, shardAddresses } from "../src/stack/stack-plan.ts";
import { until } from "./support/orders.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-cluster-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const members: readonly PatroniMember[] = [1, 2, 3].map((number) => ({
  name: `postgres-0-${number}`,
  postgresPort: 21_000 + number,
  patroniPort: 22_000 + number,
}));
const clusterOf = (replication: Replication): PatroniCluster => ({
  ...{ shard: 0, members, replication, connectionsMax: 300, etcdPorts: [23_000] },
  passwords: { superuser: 's"\\: #', replication: "r", rewind: "w", rest: "p", etcd: "e" },
});
const configOf = (replication: Replication, version = 15) =>
  parse(
    patroniConfig(clusterOf(replication), members[1] as PatroniMember, {
      folder: "/srv/a folder",
      programs: { bin: "/usr/lib/postgresql/15/bin", version },
    }),
  );

describe("Patroni's file", () => {
  it("says what a commit waits for", () => {
    const dcs = (replication: Replication) => {
      const { synchronous_mode, synchronous_mode_strict } = configOf(replication).bootstrap.dcs;
      return [synchronous_mode, synchronous_mode_strict];
    };
    expect(dcs("synchronous")).toEqual([true, false]);
    expect(dcs("strict")).toEqual([true, true]);
    expect(dcs("asynchronous")).toEqual([false, false]);
  });

  it("holds passwords of any characters, trusts nobody, and names this server's places", () => {
    const { postgresql, restapi, name } = configOf("synchronous");
    expect(name).toBe("postgres-0-2");
    expect(postgresql.authentication.superuser.password).toBe('s"\\: #');
    expect(postgresql.data_dir).toBe("/srv/a folder/data");
    expect([postgresql.listen, restapi.listen]).toEqual(["127.0.0.1:21002", "127.0.0.1:22002"]);
    expect(restapi.authentication).toEqual({ username: "patroni", password: "p" });
    expect(postgresql.pg_hba.every((line: string) => line.endsWith("127.0.0.1/32 scram-sha-256"))).toBe(true);
  });

  it("sorts texts the same with every version of PostgreSQL", () => {
    expect(configOf("synchronous", 15).bootstrap.initdb).toContainEqual({ locale: "C.UTF-8" });
    expect(configOf("synchronous", 17).bootstrap.initdb).toContainEqual({ "builtin-locale": "C.UTF-8" });
  });
});

describe("etcd's file", () => {
  it("listens on loopback and speaks what Patroni speaks", () => {
    const config = parse(etcdConfig({ folder: "/srv/a folder", ports: { client: 23_000, peer: 23_001 } }));
    expect(config).toMatchObject({ "enable-grpc-gateway": true, "data-dir": "/srv/a folder/data" });
    for (const name of ["listen-client-urls", "listen-peer-urls"])
      expect(config[name]).toMatch(/^http:\/\/127\.0\.0\.1:/);
  });
});

describe("the router's file", () => {
  const shards: readonly RoutedShard[] = [
    { name: "shard-0", members, leaderPort: 24_000, followersPort: 24_001, connectionsMax: 300 },
    { name: "shard-1", members, leaderPort: 24_002, followersPort: 24_003, connectionsMax: 300 },
  ];
  const program = findProgram("haproxy", process.env);

  it.runIf(program !== undefined)(
    "is one that HAProxy takes, with every server down before its first check",
    async () => {
      const state = join(folder, "servers");
      const file = join(folder, "haproxy.cfg");
      await writeFile(state, databaseRouterState(shards));
      await writeFile(file, databaseRouterConfig(shards, { socket: join(folder, "socket"), state }));
      execFileSync(program as string, ["-c", "-f", file], { stdio: "pipe" });
    },
  );

  it("asks Patroni, and ends connections to one that does not lead any more", () => {
    const text = databaseRouterConfig(shards, { socket: "/s", state: "/f" });
    const leader = text.slice(text.indexOf("listen shard-1-leader"), text.indexOf("listen shard-1-followers"));
    expect(leader).toContain("option httpchk OPTIONS /primary");
    expect(leader).toContain("on-marked-down shutdown-sessions");
    expect(leader).toContain("server postgres-0-3 127.0.0.1:21003 check port 22003");
  });
});

describe("the app's password", () => {
  it("is known to PostgreSQL without ever being in a statement", async () => {
    const server = await startTestPostgres({ settings: { listen_addresses: "" } });
    try {
      const admin = openPostgres({ name: "admin", address: { url: server.connectionString } });
      await admin.query(undefined, `create role app login password '${scramVerifier("s3cret")}'`, []);
      const [made] = await admin.query<{ rolpassword: string }>(
        undefined,
        "select rolpassword from pg_authid where rolname = 'app'",
        [],
      );
      const salt = Buffer.from(/\$4096:([^$]+)\$/.exec(made?.rolpassword ?? "")?.[1] ?? "", "base64");
      expect(made?.rolpassword).toBe(scramVerifier("s3cret", salt));
      await admin.query(undefined, "alter role app password 's3cret'", []);
      const [own] = await admin.query<{ rolpassword: string }>(
        undefined,
        "select rolpassword from pg_authid where rolname = 'app'",
        [],
      );
      const ownSalt = Buffer.from(/\$4096:([^$]+)\$/.exec(own?.rolpassword ?? "")?.[1] ?? "", "base64");
      expect(scramVerifier("s3cret", ownSalt)).toBe(own?.rolpassword);
      await admin.close();
    } finally {
      await server.stop();
    }
  });
});

describe("a watched server", () => {
  it("is ended once it has been silent for too long, and not for one missed answer", async () => {
    const asked: string[] = [];
    let ended = 0;
    let isSilent = true;
    const watch = watchSilence(
      [
        {
          silentMsMax: 200,
          isMeant: () => true,
          ask: async () => {
            asked.push(isSilent ? "silent" : "answered");
            if (isSilent) throw new Error("no answer");
          },
          end: () => ended++,
        },
      ],
      20,
    );
    await sleep(100);
    isSilent = false;
    await sleep(150);
    expect([ended, asked.includes("answered")]).toEqual([0, true]);
    isSilent = true;
    await until(() => ended > 0);
    watch.stop();
    const before = asked.length;
    await sleep(60);
    expect(asked.length - before).toBeLessThanOrEqual(1);
  });
});

describe("servers of the operator's", () => {
  const followersIn = ({ database: { shards } }: Topology) =>
    typeof shards === "number" ? [] : shards.map(({ followers }) => followers?.length);
  const planned = (environment: Record<string, string>, flags: Record<string, string> = {}) => {
    const { topology } = resolveTopology({ environment, flags: { rung: "4", ...flags } });
    const app = {
      name: "a",
      folder,
      app: "a.ts",
      companions: [],
      balancer: { uploads: [], streams: [], hidden: [] },
      cdn: { files: [] },
    };
    return { topology, plan: planStack({ topology, app, folder, environment }) };
  };

  it("come with as many followers as their variable lists, and without any where it is not set", () => {
    const environment = {
      SHARD_0_LEADER_URL: "postgres://leader/a",
      SHARD_0_FOLLOWER_URL: "postgres://one/a, postgres://two/a",
      SHARD_1_LEADER_URL: "postgres://other/a",
    };
    const { topology, plan } = planned(environment, { shards: "2" });
    expect(plan.clusters).toBe(0);
    expect(shardAddresses(topology, environment)).toEqual({
      RUNGS_SHARD_0_URL: "postgres://leader/a",
      RUNGS_SHARD_0_FOLLOWER_1_URL: "postgres://one/a",
      RUNGS_SHARD_0_FOLLOWER_2_URL: "postgres://two/a",
      RUNGS_SHARD_1_URL: "postgres://other/a",
    });
    expect(followersIn(plan.processTopology({ group: "web", port: 3_000 }))).toEqual([2, 0]);
  });

  it("are started here where none is named: three a shard, each of them a follower for reads", () => {
    const { topology, plan } = planned({}, { shards: "2" });
    expect(plan).toMatchObject({ clusters: 2, embedded: 0, rung: 4, replication: "synchronous" });
    expect(shardAddresses(topology, {})).toEqual({});
    expect(followersIn(plan.processTopology({ group: "web", port: 3_000 }))).toEqual([3, 3]);
    expect(plan.programs.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["PostgreSQL 15 or newer", "patroni", "etcd", "haproxy"]),
    );
  });
});
