/** Two regions and the distance between them: what runs, where writes go and what they cost, and that changes keep to their region. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { openPostgres } from "rungs/database/postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StackStatus } from "../src/stack/component.ts";
import { identities, type ReadyLine, type RunningStack, startStackApp, stillRunning } from "./support/stack.ts";

const roundTripMs = 40;

let stack: RunningStack;
let eu: string;
let us: string;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "5", "--regions", "eu,us", "--distance-ms", String(roundTripMs)]);
  [eu = "", us = ""] = (stack.line as RegionalLine).regions.map(({ app }) => app);
}, 120_000);
afterAll(() => stack?.dispose(), 60_000);

interface RegionalLine extends ReadyLine {
  readonly regions: readonly { readonly name: string; readonly app: string }[];
}

interface Mirror {
  readonly pid: number;
  readonly ip: string;
  readonly host: string;
  readonly protocol: string;
  readonly headers: Readonly<Record<string, string>>;
}

const status = async () => (await stack.status()) as unknown as StackStatus;
const pidsOf = async (name: RegExp) =>
  (await status()).processes.filter((process) => name.test(process.name)).map(({ pid }) => pid);

/** A POST from an address of its own. */
async function post(url: string, headers: Record<string, string> = {}): Promise<{ status: number; body: Mirror }> {
  const asking = request(url, { method: "POST", localAddress: "127.9.9.9", headers });
  asking.end();
  const [response] = await once(asking, "response");
  let text = "";
  for await (const part of response.setEncoding("utf8")) text += part;
  return { status: response.statusCode, body: JSON.parse(text) as Mirror };
}

describe("two regions", () => {
  it("are told in the line, each at an address of its own, with all of its parts", () => {
    const { app, rung, regions, processes } = stack.line as RegionalLine;
    expect({ app, rung, regions }).toEqual({
      ...{ app: `http://127.1.1.1:${stack.port}`, rung: 5 },
      regions: [
        { name: "eu", app: `http://127.1.1.1:${stack.port}` },
        { name: "us", app: `http://127.1.2.1:${stack.port}` },
      ],
    });
    const names = processes.map(({ name }) => name);
    for (const region of ["eu", "us"]) {
      const own = [
        "web-1",
        "web-2",
        "workers-1",
        "balancer",
        "varnish",
        "cache",
        "database-router",
        "redis",
        "sentinel",
      ];
      expect(names).toEqual(expect.arrayContaining(own.map((name) => `${region}-${name}`)));
      expect(names).toEqual(expect.arrayContaining([`${region}-postgres-0`, `${region}-patroni-0`]));
    }
    expect(names).toEqual(expect.arrayContaining(["etcd", "distance", "gdnsd"]));
    expect(names.filter((name) => /rabbitmq|kafka/.test(name))).toEqual([]);
    const placed = (processes as readonly { name: string; region?: string }[]).filter(
      ({ region }) => region !== undefined,
    );
    for (const { name, region } of placed) expect(name.startsWith(`${region}-`)).toBe(true);
  });

  it("begin with the leader in the first, and a copy in the other that commits wait for", async () => {
    const { shards } = await status();
    expect(shards[0]?.members).toMatchObject([
      { name: "eu-postgres-0", region: "eu", role: "leader" },
      { name: "us-postgres-0", region: "us", role: "sync_standby" },
    ]);
    const { stdout } = await stack.run("status");
    expect(stdout).toMatch(/NAME +ROLE +REGION +PID/);
    expect(stdout).toMatch(/us-web-1 +web +us +\d+/);
    expect(stdout).toMatch(/etcd +consensus +- +\d+/);
    expect(stdout).toMatch(/us-postgres-0 +us +sync_standby +(streaming|running)/);
    expect(stdout).toContain(`${eu} (eu), ${us} (us)`);
  });

  it("know by the leader where it is, over the distance that was asked for", async () => {
    const { ports } = JSON.parse(await readFile(join(stack.folder, "stack.json"), "utf8"));
    const password = (await readFile(join(stack.folder, "secrets", "postgres-app-password"), "utf8")).trim();
    const through = async (name: string) => {
      const database = openPostgres({
        name,
        address: { host: "127.0.0.1", port: ports[name], user: "app", password, database: "app" },
        pool: { connectionsMax: 1 },
      });
      const sql = "select current_setting('rungs.region', true) as region, not pg_is_in_recovery() as leads";
      try {
        const [row] = await database.query<{ region: string; leads: boolean }>(undefined, sql, []);
        const since = performance.now();
        await database.query(undefined, sql, []);
        return { ...row, ms: performance.now() - since };
      } finally {
        await database.close();
      }
    };
    expect(await through("eu-shard-0-leader")).toMatchObject({ region: "eu", leads: true });
    const far = await through("us-shard-0-leader");
    expect(far).toMatchObject({ region: "eu", leads: true });
    expect(far.ms).toBeGreaterThanOrEqual(roundTripMs - 1);
    // For reading each has its own server.
    expect(await through("us-shard-0-followers")).toMatchObject({ region: "us", leads: false });
    expect(await through("eu-shard-0-followers")).toMatchObject({ region: "eu", leads: true });
  });

  it("carry out a write where the leader is, whichever was asked, and read it back at once", async () => {
    const since = performance.now();
    const written = await fetch(`${us}/write?id=from-us`, { method: "POST", headers: { "rungs-position": "" } });
    // Forwarded, and copied to the other region before it was acknowledged: twice over the ocean at least.
    expect(performance.now() - since).toBeGreaterThanOrEqual(2 * roundTripMs - 2);
    expect(written.status).toBe(200);
    const note = written.headers.get("rungs-position") as string;
    expect(note).not.toBeNull();
    for (const app of [us, eu]) {
      const { ids } = (await (await fetch(`${app}/writes`, { headers: { "rungs-position": note } })).json()) as {
        ids: string[];
      };
      expect(ids).toContain("from-us");
    }
    const [leading, following] = [await pidsOf(/^eu-web/), await pidsOf(/^us-web/)];
    expect(leading).toContain((await post(`${us}/mirror`)).body.pid);
    expect(leading).toContain((await post(`${eu}/mirror`)).body.pid);
    const read = (await (await fetch(`${us}/read`)).json()) as { pid: number };
    expect(following).toContain(read.pid);
  });

  it("tell each other who asks, and believe no client that says so", async () => {
    const { body: honest } = await post(`${us}/mirror`);
    expect(honest).toMatchObject({ ip: "127.9.9.9", host: new URL(us).host, protocol: "http" });
    for (const app of [eu, us]) {
      const { status: code, body } = await post(`${app}/mirror`, {
        ...{ "Rungs-Forwarded": "v1;region=us;for=1.2.3.4", "X-Forwarded-For": "1.2.3.4" },
      });
      expect(code).toBe(200);
      expect(body).toMatchObject({ ip: "127.9.9.9", host: new URL(app).host });
      expect(JSON.stringify(body.headers)).not.toContain("1.2.3.4");
    }
  });

  it("are scaled and restarted each by itself", async () => {
    const before = { eu: await pidsOf(/^eu-(web|workers)/), us: await pidsOf(/^us-workers/) };
    const scaled = await stack.run("scale", "us-web", "3", "--json");
    expect({ code: scaled.code, stderr: scaled.stderr }).toEqual({ code: 0, stderr: "" });
    expect(await pidsOf(/^us-web/)).toHaveLength(3);
    expect((await stack.run("restart", "us-workers")).code).toBe(0);
    const after = await pidsOf(/^us-workers/);
    expect(after).toHaveLength(1);
    expect(before.us).not.toContain(after[0]);
    expect(await pidsOf(/^eu-(web|workers)/)).toEqual(before.eu);
    const groups = (await status()).groups.map(({ name, region, ready }) => [name, region, ready]);
    expect(groups).toEqual([
      ["eu-web", "eu", 2],
      ["eu-workers", "eu", 1],
      ["us-web", "us", 3],
      ["us-workers", "us", 1],
    ]);
    expect(await stack.run("logs", "us-web-3")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("ready after"),
    });
    const wrong = await stack.run("scale", "web", "3");
    expect(wrong).toMatchObject({ code: 3, stderr: expect.stringContaining('Nothing here is called "web"') });
  }, 90_000);

  it("let go of a page in every region when it has changed", async () => {
    const at = async (app: string) => ((await (await fetch(`${app}/shared`)).json()) as { number: number }).number;
    const before = [await at(eu), await at(us)];
    expect([await at(eu), await at(us)]).toEqual(before);
    expect((await stack.run("cdn", "purge", "numbers")).code).toBe(0);
    const after = [await at(eu), await at(us)];
    for (const [index, number] of after.entries()) expect(number).not.toBe(before[index]);
  });

  it("listen on loopback alone", async () => {
    const pids = new Set((await status()).processes.map(({ pid }) => pid));
    const lines = execFileSync("ss", ["-H", "-ltnp"], { encoding: "utf8" }).split("\n");
    const own = lines.filter((line) => [...line.matchAll(/pid=(\d+)/g)].some(([, pid]) => pids.has(Number(pid))));
    expect(own.length).toBeGreaterThanOrEqual(25);
    for (const line of own) expect(line.trim().split(/\s+/)[3]).toMatch(/^(127\.[\d.]+|\[::1\]):\d+$/);
  });

  it("leave nothing when they end", async () => {
    const all = identities((await status()).processes);
    expect(await stack.end()).toBe(0);
    expect(stillRunning(all)).toEqual([]);
  }, 60_000);
});
