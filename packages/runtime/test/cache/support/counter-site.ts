/** A site that counts: several web processes over one database and one Redis, each with a cache of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startTestPostgres } from "@rungs/contract/test-postgres";

/** One web process. */
export interface CounterProcess {
  readonly address: string;
  /** Kills it as a crash would. */
  kill(): Promise<void>;
  /** Its cache's counters. */
  figures(): Promise<Readonly<Record<string, number>>>;
}

/** A running site. */
export interface CounterSite {
  readonly processes: readonly CounterProcess[];
  readonly databaseUrl: string;
  /** Starts one more process. */
  add(): Promise<CounterProcess>;
  stop(): Promise<void>;
}

const program = fileURLToPath(new URL("./counter-program.ts", import.meta.url));
const startMs = 30_000;

/** Starts `count` web processes. Without a Redis for sessions, each hears only its own invalidations. */
export async function startCounterSite(options: {
  readonly redisUrl: string | undefined;
  readonly count: number;
  /** Address of a shared cache. */
  readonly cacheUrl?: string | undefined;
}): Promise<CounterSite> {
  const { redisUrl, cacheUrl, count } = options;
  const postgres = await startTestPostgres();
  const folder = await mkdtemp(join(tmpdir(), "rungs-site-"));
  const topology = {
    dataDirectory: folder,
    web: { port: 0, loopLatenessMsMax: 0 },
    database: { shards: [{ leader: { env: "SITE_DATABASE_URL" } }], pool: { connectionsMax: 8 } },
    ...(redisUrl === undefined ? {} : { sessions: { url: redisUrl } }),
    ...(cacheUrl === undefined ? {} : { cache: { url: cacheUrl } }),
  };
  const environment = {
    PATH: process.env["PATH"],
    NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"],
    COUNTER_LOG: process.env["COUNTER_LOG"],
    COUNTER_TOPOLOGY: JSON.stringify(topology),
    SITE_DATABASE_URL: postgres.connectionString,
  };
  const children: ChildProcess[] = [];
  const processes: CounterProcess[] = [];
  const add = async () => {
    const child = spawn(process.execPath, [program], { env: environment, stdio: ["pipe", "pipe", "inherit"] });
    children.push(child);
    const address = await addressOf(child);
    const started: CounterProcess = {
      address,
      async kill() {
        child.kill("SIGKILL");
        await ended(child);
      },
      figures: async () => (await fetch(`${address}/figures`)).json() as Promise<Record<string, number>>,
    };
    processes.push(started);
    return started;
  };
  for (let index = 0; index < count; index++) await add();
  return {
    processes,
    databaseUrl: postgres.connectionString,
    add,
    async stop() {
      const codes = await Promise.all(
        children.map(async (child) => {
          if (child.signalCode !== null) return 0;
          child.stdin?.end();
          return ended(child);
        }),
      );
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
      if (codes.some((code) => code !== 0)) throw new Error(`The processes ended with ${codes.join(", ")}`);
    },
  };
}

async function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  return new Promise((resolve) => child.once("exit", (code) => resolve(code)));
}

function addressOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`A process did not start within ${startMs} ms`)), startMs);
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
      const [, address] = /"address":"([^"]+)"/.exec(text) ?? [];
      if (address === undefined) return;
      clearTimeout(timer);
      resolve(address);
    });
    child.once("exit", (code) => reject(new Error(`A process ended with ${code} before it listened`)));
  });
}
