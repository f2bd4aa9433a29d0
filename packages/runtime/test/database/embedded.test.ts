/** The embedded server: every way a start can find its data, and what crashes cost. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type EmbeddedPostgres,
  embeddedConnection,
  startEmbeddedPostgres,
} from "../../src/database/drivers/embedded-postgres.ts";
import { seededRandom } from "../../src/kernel/random.ts";

const starter = fileURLToPath(new URL("embedded-starter.ts", import.meta.url));
const seed = Number(process.env["EMBEDDED_SEED"] ?? Date.now() % 1_000_000);

describe("the embedded PostgreSQL", () => {
  let folder: string;
  let directory: string;
  const children: ChildProcess[] = [];
  const servers: EmbeddedPostgres[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-embedded-"));
    await chmod(folder, 0o755);
    directory = join(folder, "shard-0");
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    for (const server of servers.splice(0)) await server.stop();
    const pid = await pidIn(directory);
    if (pid !== undefined) kill(pid, "SIGQUIT");
    const place = await readlink(directory).catch(() => undefined);
    if (place !== undefined) await rm(place, { recursive: true, force: true });
    await rm(folder, { recursive: true, force: true });
  });

  const start = async (where = directory) => {
    const server = await startEmbeddedPostgres({ directory: where });
    servers.push(server);
    return server;
  };
  /** Starts it in a process of its own; gives what it said first. */
  const startApart = async (): Promise<{ child: ChildProcess; said: string }> => {
    const child = spawn(process.execPath, [starter, directory], { stdio: ["ignore", "pipe", "inherit"] });
    children.push(child);
    const [text] = (await once(child.stdout as NonNullable<typeof child.stdout>, "data")) as [Buffer];
    return { child, said: String(text).trim() };
  };
  const query = async (server: Pick<EmbeddedPostgres, "connection">, sql: string) => {
    const client = new pg.Client(server.connection);
    client.on("error", () => {});
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  };

  it("is created, stopped without trace, and started again with its data, durable and checked", async () => {
    const created = await start();
    expect(created.origin).toBe("created");
    await query(created, "create table t (n int); insert into t values (7)");
    const settings = await query(
      created,
      "select name, setting from pg_settings where name in ('fsync', 'synchronous_commit', 'data_checksums', 'listen_addresses', 'wal_level') order by 1",
    );
    expect(settings.map((row) => row.setting)).toEqual(["on", "on", "", "on", "logical"]);
    await created.stop();
    expect(await isAlive(created.pid)).toBe(false);
    expect((await readdir(directory)).sort()).toEqual(["data", "password", "postgres.log"]);
    const started = await start();
    expect(started.origin).toBe("started");
    expect(await query(started, "select n from t")).toEqual([{ n: 7 }]);
  });

  it("asks for its password and keeps it to its owner", async () => {
    const server = await start();
    await expect(query({ connection: { ...server.connection, password: "guess" } }, "select 1")).rejects.toThrow(
      /password authentication failed/,
    );
    const processes = await readFile(`/proc/${server.pid}/cmdline`, "utf8");
    expect(processes).not.toContain(server.connection.password);
  });

  it("is adopted running after its app was killed, and recovered after it was killed itself", async () => {
    const first = await startApart();
    expect(first.said).toBe("created");
    first.child.kill("SIGKILL");
    const adopted = await startApart();
    expect(adopted.said).toBe("adopted");
    adopted.child.kill("SIGKILL");
    const pid = (await pidIn(directory)) as number;
    kill(pid, "SIGKILL");
    // A killed process takes a moment to go; a start in that moment rightly sees a server that is running.
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
    expect((await start()).origin).toBe("recovered");
  });

  it("refuses a second app on the same data, naming the first, and lets tools connect beside it", async () => {
    const { child } = await startApart();
    await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
      code: "DATA_DIRECTORY_IN_USE",
      message: expect.stringContaining(`process ${child.pid} at http://test`),
    });
    const connection = await embeddedConnection(directory);
    expect(await query({ connection: connection as EmbeddedPostgres["connection"] }, "select 1 as one")).toEqual([
      { one: 1 },
    ]);
  });

  it("lets exactly one of several first starts at once win, and the others say so", async () => {
    const said = (await Promise.all([startApart(), startApart(), startApart()])).map((start) => start.said);
    expect(said.filter((word) => word === "DATA_DIRECTORY_IN_USE")).toHaveLength(2);
    expect(said.filter((word) => /^(created|started|adopted)$/.test(word))).toHaveLength(1);
    expect((await readdir(directory)).filter((name) => name.startsWith("init-"))).toEqual([]);
  });

  it("waits for a holder that is just stopping, and then starts", async () => {
    const { child } = await startApart();
    child.kill("SIGINT");
    await sleep(5);
    expect(["started", "adopted"]).toContain((await start()).origin);
  });

  it(`comes back by itself when it is killed, losing no acknowledged row of 10 kills (seed ${seed})`, {
    timeout: 120_000,
  }, async () => {
    const random = seededRandom(seed);
    const server = await start();
    await query(server, "create table t (n int primary key)");
    const acknowledged: number[] = [];
    const pool = new pg.Pool({ ...server.connection, max: 4 });
    pool.on("error", () => {});
    pool.on("connect", (client) => client.on("error", () => {}));
    let next = 0;
    const stop = new AbortController();
    const writers = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        const n = next++;
        await pool.query("insert into t values ($1)", [n]).then(
          () => void acknowledged.push(n),
          () => sleep(10),
        );
      }
    });
    for (let round = 0; round < 10; round++) {
      await sleep(30 + random.next() * 120);
      const before = server.pid;
      kill(before, "SIGKILL");
      for (let tries = 0; tries < 1_000 && (server.pid === before || server.pid === 0); tries++) await sleep(10);
    }
    await sleep(200);
    stop.abort();
    await Promise.all(writers);
    await pool.end();
    const kept = new Set((await query(server, "select n from t")).map((row) => row.n as number));
    expect(acknowledged.length).toBeGreaterThan(10);
    expect(acknowledged.filter((n) => !kept.has(n))).toEqual([]);
  });

  it("runs in a folder whose path is longer than a socket's may be", async () => {
    const deep = join(folder, "d".repeat(100), "shard-0");
    await mkdir(join(folder, "d".repeat(100)));
    const server = await start(deep);
    expect(Buffer.byteLength(join(server.connection.host, ".s.PGSQL.5432"))).toBeLessThan(108);
    expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }]);
    await server.stop();
    await expect(access(server.connection.host)).rejects.toThrow();
  });

  it.runIf(process.getuid?.() === 0)(
    "runs as an unprivileged user below a folder that is closed to it, and finds its data again",
    async () => {
      await chmod(folder, 0o700);
      const server = await start();
      expect(server.directory).not.toContain(folder);
      const [owner] = await query(server, "select 1 as one");
      expect(owner).toEqual({ one: 1 });
      const status = await readFile(`/proc/${server.pid}/status`, "utf8");
      expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).not.toBe("0");
      await server.stop();
      expect((await start()).origin).toBe("started");
    },
  );

  it("refuses the data of another major version", async () => {
    await (await start()).stop();
    const { writeFile } = await import("node:fs/promises");
    await writeFile(join(directory, "data", "PG_VERSION"), "14\n");
    await expect(startEmbeddedPostgres({ directory })).rejects.toThrow(
      /made by PostgreSQL 14; this version of Rungs brings PostgreSQL 18/,
    );
  });
});

async function pidIn(directory: string): Promise<number | undefined> {
  const text = await readFile(join(directory, "data", "postmaster.pid"), "utf8").catch(() => undefined);
  return text === undefined ? undefined : Number(text.split("\n")[0]);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** A dead process that nobody reaped yet has no command line. */
async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "unknown")) !== "";
}
