/** `rungs up --rung 4` on the small app: two shards of three PostgreSQL servers, who leads them, and how all of it ends and comes back. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openPostgres } from "rungs/database/postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StackStatus } from "../src/stack/component.ts";
import { rungs } from "./support/cli.ts";
import { whole } from "./support/failover.ts";
import { until } from "./support/orders.ts";
import { identities, type RunningStack, stackApp, stackFolder, startStackApp, stillRunning } from "./support/stack.ts";

const args = ["--rung", "4", "--shards", "2", "--processes", "2"];
let folder: string;
let stack: RunningStack;
beforeAll(async () => {
  folder = await stackFolder();
  stack = await startStackApp(args, folder);
}, 120_000);
afterAll(async () => {
  await stack?.dispose();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

const status = async () => (await stack.status()) as unknown as StackStatus;
const secret = async (name: string) => (await readFile(join(folder, "secrets", `${name}-password`), "utf8")).trim();
const ids = async () => ((await (await fetch(`${stack.app}/writes`)).json()) as { ids: string[] }).ids;
const write = async (id: string) => (await fetch(`${stack.app}/write?id=${id}`, { method: "POST" })).status;

/** Asks a server as a user with this password. */
async function ask<R>(port: number, user: string, password: string, sql: string): Promise<R[]> {
  const database = openPostgres({
    name: "test",
    address: { host: "127.0.0.1", port, user, password, database: user === "app" ? "app" : "postgres" },
    pool: { connectionsMax: 1 },
  });
  return database.query<R>(undefined, sql, []).finally(() => database.close());
}

describe("rungs up --rung 4", () => {
  it("starts etcd, a router, and three servers a shard, of which one leads", async () => {
    expect(stack.line.rung).toBe(4);
    await whole(stack, 0, 30_000);
    const { shards, processes } = await whole(stack, 1, 30_000);
    expect(processes.filter(({ role }) => role === "database")).toHaveLength(6);
    expect(processes.filter(({ role }) => role === "failover")).toHaveLength(6);
    expect(processes.map(({ name }) => name)).toEqual(expect.arrayContaining(["etcd", "database-router", "varnish"]));
    for (const { members } of shards) {
      expect(members.map(({ role }) => role).sort()).toEqual(["leader", "replica", "sync_standby"]);
    }
    const { stdout } = await stack.run("status");
    expect(stdout).toMatch(/0 +hash, shard 1 of 2 +postgres-0-1 +\w+ +(running|streaming) +\d+/);
  }, 60_000);

  it("writes to both shards, through whoever leads each", async () => {
    for (let index = 0; index < 20; index++) expect(await write(`person-${index}`)).toBe(200);
    expect(await ids()).toHaveLength(20);
    const password = await secret("postgres-app");
    for (const { leaderPort } of (await status()).shards) {
      const sql = "select pg_is_in_recovery() as follows, count(*)::int as rows from writes";
      const [row] = await ask<{ follows: boolean; rows: number }>(leaderPort, "app", password, sql);
      expect(row?.follows).toBe(false);
      expect(row?.rows).toBeGreaterThan(2);
    }
  });

  it("gives the app a user that owns its database and rules over nothing else", async () => {
    const [{ leaderPort } = { leaderPort: 0 }] = (await status()).shards;
    const password = await secret("postgres-app");
    const sql =
      "select rolsuper or rolcreaterole or rolcreatedb or rolreplication as rules from pg_roles where rolname = 'app'";
    expect(await ask(leaderPort, "app", password, sql)).toEqual([{ rules: false }]);
    // The histories of timelines are told; no other file is.
    const history = "select rungs_timeline_history(999) as history";
    expect(await ask(leaderPort, "app", password, history)).toEqual([{ history: null }]);
    for (const file of ["/etc/passwd", "PG_VERSION", "pg_hba.conf"]) {
      const read = `select pg_read_file('${file}', 0, 100, true)`;
      await expect(ask(leaderPort, "app", password, read), file).rejects.toThrow();
    }
  });

  it("lets nobody in without a password, be it at PostgreSQL, Patroni or etcd", async () => {
    const { shards, processes } = await status();
    for (const { members, leaderPort } of shards) {
      for (const port of [leaderPort, ...members.map((member) => member.port)]) {
        await expect(ask(port, "postgres", "", "select 1")).rejects.toThrow();
        await expect(ask(port, "app", "wrong", "select 1")).rejects.toThrow();
      }
    }
    for (const { port } of processes.filter(({ role }) => role === "failover")) {
      const answer = await fetch(`http://127.0.0.1:${port}/restart`, { method: "POST", body: "{}" });
      expect(answer.status).toBe(401);
    }
    const etcd = processes.find(({ role }) => role === "consensus")?.port;
    const key = Buffer.from("/rungs/shard-0/config").toString("base64");
    const put = await fetch(`http://127.0.0.1:${etcd}/v3/kv/put`, {
      method: "POST",
      body: JSON.stringify({ key, value: Buffer.from("{}").toString("base64") }),
    });
    expect(put.status).toBeGreaterThanOrEqual(400);
  });

  it("listens on loopback alone, and says where", async () => {
    const { processes } = await status();
    const pids = new Set(processes.map(({ pid }) => pid));
    const lines = execFileSync("ss", ["-H", "-ltnp"], { encoding: "utf8" }).split("\n");
    const own = lines.filter((line) => [...line.matchAll(/pid=(\d+)/g)].some(([, pid]) => pids.has(Number(pid))));
    // Two a member, two a shard, two of etcd, and those of the rungs below.
    expect(own.length).toBeGreaterThanOrEqual(18);
    for (const line of own) expect(line.trim().split(/\s+/)[3]).toMatch(/^127\.0\.0\.1:\d+$/);
  });

  it("keeps every secret in files of its owner, out of command lines and logs", async () => {
    const names = [
      "postgres-superuser",
      "postgres-replication",
      "postgres-rewind",
      "postgres-app",
      "patroni",
      "etcd-root",
    ];
    const secrets = await Promise.all(names.map(secret));
    expect(new Set(secrets).size).toBe(names.length);
    for (const pid of await readdir("/proc")) {
      if (!/^\d+$/.test(pid)) continue;
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      for (const each of secrets) expect(line).not.toContain(each);
    }
    for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
      const path = join(entry.parentPath, entry.name);
      // What PostgreSQL and etcd keep themselves is in folders that nobody else can enter.
      if (!entry.isFile() || path.includes("/data/")) continue;
      const content = await readFile(path, "latin1").catch(() => "");
      if (!secrets.some((each) => content.includes(each))) continue;
      expect([path, (await stat(path)).mode & 0o077]).toEqual([path, 0]);
      expect(path).not.toContain("/logs/");
    }
    for (const data of ["clusters/shard-0/postgres-0-1/data", "clusters/etcd/data"]) {
      expect((await stat(join(folder, data))).mode & 0o077).toBe(0);
    }
  });

  it.runIf(process.getuid?.() === 0)("runs servers as a user of their own when root starts it", async () => {
    for (const { pid, role } of (await status()).processes) {
      if (!["database", "failover", "consensus"].includes(role)) continue;
      const uid = /^Uid:\t(\d+)/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1];
      expect(uid).not.toBe("0");
    }
  });
});

describe("tools beside the app", () => {
  it("find the shards of the running stack by its folder alone", async () => {
    const shards = await stack.run("shards", "--interval", "0", "--json");
    expect(shards).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(shards.stdout).placement).toMatchObject({ strategy: "hash", shards: 2 });
    const jobs = await stack.run("jobs", "--json");
    expect(jobs).toMatchObject({ code: 0, stderr: "", stdout: '{"handlers":[]}\n' });
  }, 30_000);
});

describe("rungs switchover", () => {
  it("hands a shard to a follower, and the app writes on", async () => {
    const before = (await whole(stack, 1, 30_000)).shards[1]?.members.find(({ role }) => role === "leader")?.name;
    const { code, stdout, stderr } = await stack.run("switchover", "1");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/shard 1: postgres-1-\d leads in place of postgres-1-\d/);
    const after = (await whole(stack, 1, 30_000)).shards[1]?.members.find(({ role }) => role === "leader");
    expect(after?.name).not.toBe(before);
    expect(after?.timeline).toBe(2);
    await until(async () => (await write("after-the-switch")) === 200);
    for (let index = 0; index < 10; index++) await until(async () => (await write(`switched-${index}`)) === 200);
    expect(await ids()).toHaveLength(31);
  }, 60_000);

  it("refuses a shard that is not there", async () => {
    expect(await stack.run("switchover", "7")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("no shard 7"),
    });
    expect(await stack.run("switchover")).toMatchObject({ code: 2 });
  });
});

describe("when something around the servers dies", () => {
  const named = async (name: string) => (await status()).processes.find((process) => process.name === name);

  /** Who leads, on which timeline, once both shards are whole: a member that etcd has just forgotten is back within a second. */
  const leaders = async () => {
    await whole(stack, 0, 30_000);
    const { shards } = await whole(stack, 1, 30_000);
    return shards.map(({ members }) => {
      const leader = members.find(({ role }) => role === "leader");
      return [leader?.name, leader?.timeline];
    });
  };

  it.each(["etcd", "database-router", "patroni-0-2"])(
    "%s comes back, and nothing changes hands",
    async (name) => {
      const before = await leaders();
      const killed = (await named(name))?.pid as number;
      process.kill(killed, "SIGKILL");
      await until(async () => {
        const now = await named(name);
        return now?.state === "ready" && now.pid !== killed;
      });
      await until(async () => (await write("after-a-kill")) === 200);
      expect(await leaders()).toEqual(before);
    },
    60_000,
  );

  it("a router that begins sends nobody to a follower", async () => {
    const password = await secret("postgres-app");
    const [{ leaderPort } = { leaderPort: 0 }] = (await status()).shards;
    process.kill((await named("database-router"))?.pid as number, "SIGKILL");
    const follows: boolean[] = [];
    const deadline = performance.now() + 2_000;
    while (performance.now() < deadline || follows.length === 0) {
      const rows = await ask<{ follows: boolean }>(
        leaderPort,
        "app",
        password,
        "select pg_is_in_recovery() as follows",
      ).catch(() => []);
      follows.push(...rows.map((row) => row.follows));
    }
    expect(follows.length).toBeGreaterThan(5);
    expect(follows).not.toContain(true);
  }, 30_000);

  it("a frozen etcd leaves the leaders in their places: their followers confirm them", async () => {
    const etcd = (await named("etcd"))?.pid as number;
    const before = await leaders();
    process.kill(etcd, "SIGSTOP");
    try {
      const deadline = performance.now() + 8_000;
      while (performance.now() < deadline) {
        expect(await write(`frozen-${Math.round(performance.now())}`)).toBe(200);
        await sleep(100);
      }
    } finally {
      process.kill(etcd, "SIGCONT");
    }
    expect(await leaders()).toEqual(before);
  }, 60_000);
});

describe("the web processes", () => {
  it("are scaled as at any rung", async () => {
    expect((await stack.run("scale", "web", "3", "--json")).code).toBe(0);
    expect((await status()).processes.filter(({ role }) => role === "web")).toHaveLength(3);
  }, 60_000);
});

describe("the end", () => {
  it("rungs down stops everything; the next start finds it all, and who led leads again", async () => {
    await whole(stack, 0, 30_000);
    const leaders = ({ shards }: StackStatus) =>
      shards.map(({ members }) => members.find(({ role }) => role === "leader")?.name);
    const before = leaders(await whole(stack, 1, 30_000));
    const all = identities((await status()).processes);
    const ended = stack.end;
    expect(await stack.run("down")).toMatchObject({ code: 0, stdout: "Stopped.\n" });
    expect(await ended()).toBe(0);
    expect(stillRunning(all)).toEqual([]);
    expect(existsSync(join(folder, "clusters/shard-0/postgres-0-1/data/postmaster.pid"))).toBe(false);

    stack = await startStackApp(args, folder);
    expect(leaders(await status())).toEqual(before);
    expect(await ids()).toEqual(expect.arrayContaining(["person-19", "switched-9", "after-a-kill"]));
    expect(await write("after-the-start")).toBe(200);
  }, 120_000);

  it("kill -9 of the launcher leaves no process", async () => {
    const all = identities((await status()).processes);
    expect(all.length).toBeGreaterThan(20);
    stack.launcher.kill("SIGKILL");
    const deadline = performance.now() + 30_000;
    while (stillRunning(all).length > 0 && performance.now() < deadline) await sleep(100);
    expect(stillRunning(all)).toEqual([]);
  }, 60_000);
});

describe("without a start", () => {
  it("--dry-run tells the shards, their keys and what they run on", async () => {
    const place = join(folder, "not-there");
    const words = [
      "up",
      "--rung",
      "4",
      "--strategy",
      "range",
      "--split",
      "g",
      "--split",
      "n",
      "--dir",
      place,
      "--dry-run",
    ];
    const { code, stdout } = await rungs(words, { folder: stackApp });
    expect(code).toBe(0);
    for (const text of ["shard-2", 'keys before "g"', 'keys from "g" to before "n"', 'keys from "n"', "synchronous"]) {
      expect(stdout).toContain(text);
    }
    expect(existsSync(place)).toBe(false);
  });

  it.each([
    [{ SHARD_0_LEADER_URL: "postgres://a/x" }, "SHARD_1_LEADER_URL is not"],
    [{ SHARD_0_FOLLOWER_URL: "postgres://a/x" }, "SHARD_0_FOLLOWER_URL is set"],
  ])("%j alone is refused", async (environment, message) => {
    const words = ["up", "--rung", "4", "--shards", "2", "--dir", join(folder, "not-there"), "--dry-run"];
    const refused = await rungs(words, { folder: stackApp, environment });
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(message) });
  });

  it("servers of the operator's take the place of all of them", async () => {
    const environment = { SHARD_0_LEADER_URL: "postgres://a/x" };
    const words = ["up", "--rung", "4", "--dir", join(folder, "not-there"), "--dry-run", "--json"];
    const { code, stdout } = await rungs(words, { folder: stackApp, environment });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).parts.map(({ part }: { part: string }) => part)).not.toContain("etcd");
  });
});
