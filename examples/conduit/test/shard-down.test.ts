/** One of two shards dies, and a process starts without it: its own people wait, all others go on. */
import { freeze } from "@rungs/contract/frozen-postgres";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { pino } from "pino";
import { type RunningApp, startApp } from "rungs/app";
import { openPostgres } from "rungs/database/postgres";
import { resolveTopology } from "rungs/topology";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import conduit from "../src/app.ts";
import type { Tables } from "../src/schema.ts";
import { type Client, client, registered } from "./support/client.ts";
import { calmWeb } from "./support/conduit.ts";
import { signedIn, type Visitor, visitor } from "./ui/support/browserless.ts";
import { attributeOf, elementsOf, textOf } from "./ui/support/inspect.ts";

let servers: [TestPostgres, TestPostgres];
let urls: string[];
const running: RunningApp<Tables>[] = [];

/** A process of Conduit on the two servers. */
async function start(): Promise<RunningApp<Tables>> {
  const environment = { ...process.env, DATABASE_URL: urls.join(",") };
  const { topology } = resolveTopology({
    file: { name: "of the tests", content: calmWeb },
    environment,
    flags: { port: "0", cache: "on" },
  });
  const app = await startApp(conduit, { topology, environment, log: pino({ level: "silent" }) });
  running.push(app);
  return app;
}

interface Person {
  readonly name: string;
  readonly client: Client;
  readonly slug: string;
}

/** One person on each shard, each with an article that the other has commented on. */
async function populate(url: string): Promise<[Person, Person]> {
  const found: (Person | undefined)[] = [undefined, undefined];
  for (let index = 0; index < 30 && found.includes(undefined); index++) {
    const name = `person${index}`;
    const person = await registered(url, name);
    const shard = await shardOfUser(name);
    if (found[shard] !== undefined) continue;
    const { body } = await person.post("/articles", {
      article: { title: `Of ${name}`, description: "d", body: "b", tagList: [`tag-${shard}`] },
    });
    found[shard] = { name, client: person, slug: body.article.slug };
  }
  const [first, second] = found as [Person, Person];
  for (const { slug } of [first, second]) {
    for (const { client: writer } of [first, second]) {
      await writer.post(`/articles/${slug}/comments`, { comment: { body: "hello" } });
    }
  }
  return [first, second];
}

/** What a page says is not on it. */
function noticeIn(html: string): string | undefined {
  const found = elementsOf(html).find((element) => attributeOf(element, "class") === "notice");
  return found && textOf(found);
}

/** What the process says it cannot reach. */
async function failingOf(url: string): Promise<unknown> {
  const answer = (await (await fetch(`${url}/readyz`)).json()) as { readonly failing: unknown };
  return answer.failing;
}

async function shardOfUser(name: string): Promise<number> {
  for (const [shard, url] of urls.entries()) {
    const connection = openPostgres({ name: `shard ${shard}`, address: { url } });
    const rows = await connection.query(undefined, "select 1 from users where username = $1", [name]);
    await connection.close();
    if (rows.length > 0) return shard;
  }
  throw new Error(`${name} is nowhere`);
}

describe("Conduit with one of two shards down", { timeout: 60_000 }, () => {
  let app: RunningApp<Tables>;
  let mine: Person;
  let theirs: Person;
  beforeAll(async () => {
    servers = [await startTestPostgres(), await startTestPostgres()];
    urls = servers.map((server) => server.connectionString);
    app = await start();
    [mine, theirs] = await populate(app.address);
  });
  afterAll(async () => {
    for (const each of running) await each.stop();
    for (const server of servers) await server.stop();
  });

  it("shows everything and everybody while both are up", async () => {
    const { body, headers } = await client(app.address).get("/articles");
    expect(body.articlesCount).toBe(2);
    expect(headers.has("conduit-incomplete")).toBe(false);
    expect((await client(app.address).get("/tags")).body.tags.sort()).toEqual(["tag-0", "tag-1"]);
  });

  /** Pages on which something belongs that is on the other shard, each as somebody sees it. */
  const pagesWithOthers = async (url: string): Promise<[string, Visitor][]> => {
    const [nobody, me] = [visitor(url), await signedIn(url, mine.name)];
    const open = ["/", `/profile/${mine.name}`, `/profile/${mine.name}/favorites`, `/article/${mine.slug}`];
    return [...open.map((path): [string, Visitor] => [path, nobody]), ["/", me], ["/?feed=following", me]];
  };

  it("says on no page that something is missing while both are up", async () => {
    for (const [path, who] of await pagesWithOthers(app.address)) {
      const { status, html, headers } = await who.get(path);
      expect({ path, status, notice: noticeIn(html) }).toEqual({ path, status: 200, notice: undefined });
      expect(headers.has("conduit-incomplete")).toBe(false);
    }
  });

  const others = async (url: string) => {
    const login = await client(url).post("/users/login", {
      user: { email: `${mine.name}@example.com`, password: "correct horse" },
    });
    expect(login.status).toBe(200);
    const me = client(url, login.body.user.token);
    // Reads and writes of one's own.
    expect((await me.get("/user")).status).toBe(200);
    expect((await me.get(`/articles/${mine.slug}`)).status).toBe(200);
    const title = `More ${Math.random()}`;
    const created = await me.post("/articles", { article: { title, description: "d", body: "b" } });
    expect(created.status).toBe(201);
    expect((await me.put(`/articles/${mine.slug}`, { article: { body: "changed" } })).status).toBe(200);
    expect((await me.post(`/articles/${mine.slug}/comments`, { comment: { body: "again" } })).status).toBe(200);
    // Lists show what there is, and say so to whoever might keep them.
    for (const [path, of] of [
      ["/articles", "articles"],
      ["/tags", "tags"],
    ] as const) {
      const { status, body, headers } = await client(url).get(path);
      expect({ path, status, incomplete: headers.get("conduit-incomplete") }).toEqual({
        ...{ path, status: 200 },
        incomplete: "true",
      });
      expect(headers.get("cache-control")).toMatch(/private|no-store/);
      expect(body[of].length).toBeGreaterThan(0);
      expect(JSON.stringify(body)).not.toMatch(/tag-1/);
    }
    const feed = await me.get("/articles/feed");
    expect([feed.status, feed.headers.get("conduit-incomplete")]).toEqual([200, "true"]);
    // Pages say so to their reader, and the CDN keeps none of them.
    for (const [path, who] of await pagesWithOthers(url)) {
      const { status, html, headers } = await who.get(path);
      expect({ path, status, notice: noticeIn(html) }).toEqual({
        ...{ path, status: 200 },
        notice: expect.stringContaining("Some of this page is missing."),
      });
      expect({ path, kept: headers.get("cache-control") }).toEqual({ path, kept: "private, no-store" });
      expect(headers.has("cdn-cache-control")).toBe(false);
    }
    const comments = await client(url).get(`/articles/${mine.slug}/comments`);
    expect(comments.status).toBe(200);
    expect(
      new Set(comments.body.comments.map((each: { author: { username: string } }) => each.author.username)),
    ).toEqual(new Set([mine.name]));
    expect((await me.get("/notifications")).status).toBe(200);
    // What needs the other shard is unavailable, not gone and not wrong.
    for (const path of [`/articles/${theirs.slug}`, `/profiles/${theirs.name}`]) {
      expect({ path, status: (await client(url).get(path)).status }).toEqual({ path, status: 503 });
    }
    expect((await theirs.client.get("/user")).status).toBe(503);
    const ready = await fetch(`${url}/readyz`);
    expect(ready.status).toBe(200);
    expect(await ready.json()).toEqual({ status: "ready", failing: ["shard 1"] });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^database_shard_used\{shard="0"\} 1$/m);
    expect(metrics).toMatch(/^database_shard_refusals\{shard="0"\} 0$/m);
  };

  it("starts while one hangs, and serves its people as soon as it goes on", async () => {
    const thaw = await freeze(servers[1]);
    try {
      const early = await start();
      expect((await mine.client.get(`/articles/${mine.slug}`)).status).toBe(200);
      const asked = performance.now();
      expect((await client(early.address).get(`/profiles/${theirs.name}`)).status).toBe(503);
      expect(performance.now() - asked).toBeLessThan(3_000);
      thaw();
      const found = async () => (await client(early.address).get(`/profiles/${theirs.name}`)).status;
      await expect.poll(found, { timeout: 20_000 }).toBe(200);
      await expect.poll(() => failingOf(early.address)).toEqual([]);
    } finally {
      thaw();
    }
  });

  it("serves the people of the other: sign-in, reading, writing, lists", async () => {
    await servers[1].stop();
    // What was cached while the shard was up may still be shown.
    await expect
      .poll(async () => (await client(app.address).get("/articles?limit=19")).headers.get("conduit-incomplete"), {
        timeout: 10_000,
      })
      .toBe("true");
    await app.context.cache.invalidate(["articles", `article:x`]);
    await expect.poll(() => failingOf(app.address)).toEqual(["shard 1"]);
    await others(app.address);
  });

  it("starts without it, too", async () => {
    const late = await start();
    await expect.poll(() => failingOf(late.address)).toEqual(["shard 1"]);
    await others(late.address);
  });

  it("does not start for the first time unless all shards are there", async () => {
    const fresh = await startTestPostgres();
    const dead = urls[1] as string;
    const environment = { ...process.env, DATABASE_URL: `${fresh.connectionString},${dead}` };
    const { topology } = resolveTopology({
      file: { name: "of the tests", content: calmWeb },
      environment,
      flags: { port: "0" },
    });
    await expect(startApp(conduit, { topology, environment, log: pino({ level: "silent" }) })).rejects.toMatchObject({
      code: "DATABASE_UNREACHABLE",
    });
    await fresh.stop();
  });
});
