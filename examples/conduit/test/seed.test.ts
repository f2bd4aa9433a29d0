/** Generated networks: repeatable, plausible, resumable, consistent with what the app counts. */
import { execFile } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { pino } from "pino";
import { createLifecycle } from "rungs";
import { openDatabases } from "rungs/app";
import { resolveTopology } from "rungs/topology";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import conduit from "../src/app.ts";
import { createNetwork, parseEdges } from "../src/seed/network.ts";
import { client } from "./support/client.ts";
import { spawnConduit } from "./support/process.ts";

const run = promisify(execFile);
const seedMain = fileURLToPath(new URL("../src/seed/main.ts", import.meta.url));
const seed = (folder: string, ...args: string[]) =>
  run(process.execPath, [seedMain, "--dir", folder, ...args], { timeout: 120_000 });

describe("a generated network", () => {
  const options = { people: 3_000, seed: 1, untilMs: Date.parse("2026-11-01") };

  it("is the same for the same seed, and another for another", () => {
    const everything = (network: ReturnType<typeof createNetwork>) =>
      [0, 7, 2_999].map((index) => [
        network.person(index),
        network.follows(index),
        network.articles(index),
        network.reads(index),
      ]);
    expect(everything(createNetwork(options))).toEqual(everything(createNetwork(options)));
    expect(everything(createNetwork({ ...options, seed: 2 }))).not.toEqual(everything(createNetwork(options)));
  });

  it("gives everybody a name, address and id of their own, across seeds too", () => {
    const networks = [1, 2].map((number) => createNetwork({ ...options, people: 10_000, seed: number }));
    const people = networks.flatMap((network) => Array.from({ length: 10_000 }, (_, index) => network.person(index)));
    for (const field of ["id", "username", "email"] as const) {
      expect(new Set(people.map((person) => person[field].toLowerCase())).size).toBe(20_000);
    }
  });

  it("has a few very popular people and many hardly known: a power law", () => {
    const network = createNetwork(options);
    const followers = new Array<number>(options.people).fill(0);
    for (let index = 0; index < options.people; index++) {
      for (const followed of network.follows(index)) followers[followed] = (followers[followed] ?? 0) + 1;
    }
    followers.sort((a, b) => b - a);
    const total = followers.reduce((sum, count) => sum + count, 0);
    const topPercent = followers.slice(0, 30).reduce((sum, count) => sum + count, 0);
    expect(topPercent / total).toBeGreaterThan(0.1);
    expect(followers[1_500] ?? 0).toBeLessThan(total / options.people);
  });

  it("reads an edge list, and lets ties be mutual", () => {
    const { ties, people } = parseEdges("# a comment\n1 0\n2,0\n\n2 2\n");
    const network = createNetwork({ ...options, people, ties });
    expect([people, network.follows(0), network.follows(1), network.follows(2)]).toEqual([3, [1, 2], [0], [0]]);
  });
});

describe("the seed tool", () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "conduit-seed-"));
    await chmod(folder, 0o755);
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const counts = async () => {
    const { topology } = resolveTopology({ flags: { dir: folder, shards: "2" } });
    const lifecycle = createLifecycle();
    try {
      const { db } = await openDatabases(conduit, { topology, log: pino({ level: "fatal" }) }, lifecycle);
      const tables = ["users", "follows", "articles", "article_tags", "favorites", "comments"] as const;
      const rows = await Promise.all(
        tables.map((table) =>
          db.everywhere((shard) =>
            shard
              .selectFrom(table)
              .select((eb) => eb.fn.countAll<number>().as("rows"))
              .execute(),
          ),
        ),
      );
      return Object.fromEntries(tables.map((table, index) => [table, rows[index]?.map((row) => row.rows)]));
    } finally {
      await lifecycle.stop();
    }
  };

  it("goes on where it was cut off, and writes nothing twice", { timeout: 120_000 }, async () => {
    const cut = seed(folder, "--people", "600", "--shards", "2");
    setTimeout(() => cut.child.kill("SIGKILL"), 2_200);
    await cut.catch(() => {});
    await seed(folder, "--people", "600", "--shards", "2");
    const first = await counts();
    const { stdout } = await seed(folder, "--people", "600", "--shards", "2");
    expect(stdout).toMatch(/Sign in as \S+@example\.com/);
    expect(await counts()).toEqual(first);
    expect(first["users"]?.reduce((sum: number, rows: number) => sum + rows, 0)).toBe(600);
    expect(first["users"]?.every((rows: number) => rows > 200)).toBe(true);
  });

  it("fills a running app, whose API then tells a consistent story", { timeout: 120_000 }, async () => {
    const running = await spawnConduit(folder);
    try {
      const graph = join(folder, "ties.txt");
      await writeFile(graph, Array.from({ length: 60 }, (_, index) => `${index} ${(index * 7 + 1) % 60}`).join("\n"));
      const { stdout } = await seed(folder, "--graph", graph);
      const email = /Sign in as (\S+) with/.exec(stdout)?.[1];
      const api = client(running.url);
      const { user } = (await api.post("/users/login", { user: { email, password: "password" } })).body;
      const feed = (await client(running.url, user.token).get("/articles/feed?limit=100")).body;
      expect(feed.articles.every((article: { author: { following: boolean } }) => article.author.following)).toBe(true);
      const { articles, articlesCount } = (await api.get("/articles?limit=100")).body;
      expect(articlesCount).toBeGreaterThan(60);
      const liked = articles.find((article: { favoritesCount: number }) => article.favoritesCount > 0);
      const { slug, favoritesCount } = liked;
      const { comments } = (await api.get(`/articles/${slug}/comments`)).body;
      const added = (
        await client(running.url, user.token).post(`/articles/${slug}/comments`, { comment: { body: "new" } })
      ).body.comment;
      expect(comments.every((comment: { id: number }) => comment.id < added.id)).toBe(true);
      const before = (await client(running.url, user.token).delete(`/articles/${slug}/favorite`)).body.article
        .favoritesCount;
      const after = (await client(running.url, user.token).post(`/articles/${slug}/favorite`)).body.article
        .favoritesCount;
      expect([before, before + 1]).toContain(favoritesCount);
      expect(after).toBe(before + 1);
    } finally {
      await running.end("SIGINT");
    }
  });

  it("says what is wrong with its flags", async () => {
    for (const [args, message] of [
      [["--people", "x"], /--people: expected a whole number from 1 to 5000000, found "x"/],
      [["--graph", join("missing", "file")], /--graph: .* could not be read/],
      [["--peple", "5"], /Unknown option '--peple'/],
      [["--until", "someday"], /--until: expected a date/],
    ] as const) {
      const error = await seed(folder, ...args).then(
        () => ({ stderr: "it ran" }),
        (reason: { stderr: string }) => reason,
      );
      expect(error.stderr).toMatch(message);
      expect(error.stderr).not.toMatch(/\n\s+at /);
    }
  });
});
