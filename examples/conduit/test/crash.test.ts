/** What a crash costs: nothing that was acknowledged. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { seededRandom } from "rungs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Client, client, registered } from "./support/client.ts";
import { type ConduitProcess, databasePid, spawnConduit } from "./support/process.ts";

const rounds = Number(process.env["CRASH_ROUNDS"] ?? 15);
const seed = Number(process.env["CRASH_SEED"] ?? Date.now() % 1_000_000);
const writers = 4;

describe("a crash of Conduit", () => {
  let folder: string;
  let running: ConduitProcess | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "conduit-crash-"));
    await chmod(folder, 0o755);
  });
  afterEach(async () => {
    await running?.end("SIGINT");
    running = undefined;
    const pid = await databasePid(folder);
    if (pid !== undefined) kill(pid, "SIGQUIT");
    await rm(folder, { recursive: true, force: true });
  });

  it(`loses no acknowledged write in ${rounds} kills of app, database or both (seed ${seed})`, {
    timeout: 300_000,
  }, async () => {
    const random = seededRandom(seed);
    running = await spawnConduit(folder);
    const { token } = await registered(running.url, "ann");
    const acknowledged: string[] = [];
    for (let round = 0; round < rounds; round++) {
      const victim = (["app", "database", "both"] as const)[Math.floor(random.next() * 3)] as
        | "app"
        | "database"
        | "both";
      const stop = new AbortController();
      const writing = write(client(running.url, token), `round ${round}`, acknowledged, stop.signal);
      await sleep(50 + random.next() * 250);
      if (victim !== "app") kill((await databasePid(folder)) as number, "SIGKILL");
      if (victim !== "database") {
        await running.end("SIGKILL");
        stop.abort();
        await writing;
        running = await spawnConduit(folder);
      } else {
        await untilReady(running.url);
        stop.abort();
        await writing;
      }
    }
    const found = await slugsOf(client(running.url));
    expect(acknowledged.length).toBeGreaterThan(rounds);
    expect(acknowledged.filter((slug) => !found.has(slug))).toEqual([]);
  });

  it("refuses a second start on the same data, naming the first, and leaves it alone", async () => {
    running = await spawnConduit(folder);
    await expect(spawnConduit(folder)).rejects.toThrow(
      new RegExp(`is in use by process ${running.child.pid} at ${running.url}`),
    );
    expect((await client(running.url).get("/tags")).status).toBe(200);
  });

  it("stops cleanly on SIGINT and SIGTERM: no process left, code 0, nothing to recover", async () => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      running = await spawnConduit(folder);
      const pid = (await databasePid(folder)) as number;
      expect(await running.end(signal)).toBe(0);
      expect(isAlive(pid)).toBe(false);
      expect(await databasePid(folder)).toBeUndefined();
    }
  });

  it("says in plain words what is wrong with the setup, without a stack trace", async () => {
    const cases: [Record<string, string>, RegExp][] = [
      [{ PORT: "80x" }, /web\.port: .*"80x".*env PORT/],
      [{ RUNGS_SHARDS: "0" }, /database\.shards: .*env RUNGS_SHARDS/],
      [{ DATABASE_URL: "postgres://nobody:s3cret@127.0.0.1:1/none" }, /did not answer|unreachable/i],
    ];
    for (const [environment, message] of cases) {
      const error = await spawnConduit(folder, environment).then(
        () => new Error("it started"),
        (reason: unknown) => reason as Error,
      );
      expect(error.message).toMatch(message);
      expect(error.message).not.toMatch(/s3cret|\n\s+at /);
    }
  });
});

/** Publishes from several writers until told to stop; notes the slug of each acknowledged article. */
async function write(author: Client, title: string, acknowledged: string[], signal: AbortSignal): Promise<void> {
  await Promise.all(
    Array.from({ length: writers }, async () => {
      for (let count = 0; !signal.aborted && count < 2_000; count++) {
        try {
          const answer = await author.post("/articles", { article: { title, description: "d", body: "b" } });
          if (answer.status === 201) acknowledged.push(answer.body.article.slug);
          else await sleep(20);
        } catch {
          await sleep(20);
        }
      }
    }),
  );
}

async function slugsOf(reader: Client): Promise<Set<string>> {
  const slugs = new Set<string>();
  for (let offset = 0; ; offset += 100) {
    const body = await pageAt(reader, offset);
    for (const article of body.articles) slugs.add(article.slug);
    if (body.articles.length < 100) return slugs;
  }
}

/** One page of articles; a database that has just come back may answer the first tries with 503. */
async function pageAt(reader: Client, offset: number): Promise<{ articles: { slug: string }[] }> {
  for (let tries = 0; ; tries++) {
    const { status, body } = await reader.get(`/articles?limit=100&offset=${offset}`);
    if (status === 200) return body;
    if (status !== 503 || tries >= 200) throw new Error(`The list answered ${status}: ${JSON.stringify(body)}`);
    await sleep(50);
  }
}

async function untilReady(url: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if ((await fetch(`${url}/readyz`)).status === 200) return;
    await sleep(20);
  }
  throw new Error("Conduit did not become ready again within 10 s.");
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
