/**
 * Conduit at rung 3, behind a real Varnish: what visitors may get from the CDN, when they get what was written, and that nobody gets
 * what is somebody else's.
 */
import { setTimeout as sleep } from "node:timers/promises";
import Fastify from "fastify";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import conduit from "../src/app.ts";
import { type Client, registered } from "./support/client.ts";
import { picture, untilState, upload } from "./support/media.ts";
import { inspectSecret, type PublicStack, type RawAnswer, startPublicStack } from "./support/public-stack.ts";

let stack: PublicStack;
let secret: string;
let alice: Client;
let slug: string;
const cookies: Record<string, string> = {};

/** From a commit until the CDN shows it: a batch of purges and a page. */
const boundMs = 2_000;

beforeAll(async () => {
  stack = await startPublicStack(["--rung", "3", "--processes", "2"]);
  secret = await inspectSecret(stack);
  alice = await registered(stack.url, "alice");
  await registered(stack.url, "bob");
  for (const name of ["alice", "bob"]) cookies[name] = await signIn(`${name}@example.com`);
  slug = await newArticle("First words");
}, 60_000);
afterAll(() => stack?.stop(), 30_000);

async function signIn(email: string): Promise<string> {
  const form = new URLSearchParams({ email, password: "correct horse" }).toString();
  const headers = {
    "content-type": "application/x-www-form-urlencoded",
    origin: stack.url,
    "sec-fetch-site": "same-origin",
  };
  const answer = await stack.ask("/login", headers, "POST", form);
  expect(answer.status).toBe(303);
  expect(answer.headers["cache-control"]).toBe("private, no-store");
  return String(answer.headers["set-cookie"]).split(";")[0] as string;
}

async function newArticle(title: string): Promise<string> {
  const answer = await alice.post("/articles", { article: { title, description: "d", body: "b", tagList: ["words"] } });
  expect(answer.status).toBe(201);
  return answer.body.article.slug;
}

const inspect = (path: string) => stack.ask(path, { "x-edge-secret": secret });

/** Asks until the body fits; gives how long that took. */
async function until(path: string, fits: (body: string) => boolean): Promise<number> {
  const since = performance.now();
  while (performance.now() - since < boundMs) {
    if (fits((await stack.ask(path)).body)) return performance.now() - since;
    await sleep(5);
  }
  throw new Error(`${path} does not show the write after ${boundMs} ms`);
}

/** Asks until it comes from the CDN: a purge of an earlier write, sent again, may come between. */
async function warm(path: string): Promise<RawAnswer> {
  for (let tries = 0; tries < 5; tries++) {
    const answer = await stack.ask(path);
    if (answer.headers["x-cache"] === "hit") return answer;
  }
  throw new Error(`${path} is not kept by the CDN`);
}

describe("public pages and API answers", () => {
  it("come from the CDN, with keys of what they show", async () => {
    const paths = ["/", "/?tag=words", `/article/${slug}`, "/profile/alice", "/profile/alice/favorites"];
    const api = [
      "/api/articles",
      `/api/articles/${slug}`,
      `/api/articles/${slug}/comments`,
      "/api/profiles/alice",
      "/api/tags",
    ];
    for (const path of [...paths, ...api]) {
      await warm(path);
      const { headers } = await inspect(path);
      expect([path, headers["cdn-cache-control"]]).toEqual([
        path,
        "max-age=60, stale-while-revalidate=10, stale-if-error=3600",
      ]);
      expect([path, headers["xkey"]]).toEqual([path, expect.stringMatching(/^site (articles|user:|favorites:)/)]);
    }
    const { headers } = await inspect(`/article/${slug}`);
    for (const kind of ["article:", "comments:", "user:"]) expect(headers["xkey"]).toContain(` ${kind}`);
  });

  it("are 304 to whoever has them", async () => {
    const { headers } = await warm("/");
    expect((await stack.ask("/", { "if-none-match": String(headers["etag"]) })).status).toBe(304);
  });

  it("keep static files for everybody", async () => {
    const { body } = await stack.ask("/");
    const asset = /\/assets\/app\.[0-9a-f]+\.css/.exec(body)?.[0] as string;
    await stack.ask(asset);
    expect((await stack.ask(asset, { cookie: cookies["alice"] as string })).headers).toMatchObject({
      "x-cache": "hit",
      "cache-control": expect.stringContaining("immutable"),
    });
  });
});

describe("uploads", () => {
  it("come from the CDN in whole and in parts, for everybody, and are gone once they are deleted", async () => {
    const sent = await upload(stack.url, alice, "image", await picture(800, 600));
    const { media } = await untilState(alice, sent.body.upload.id, "ready", "failed");
    const path = media as string;
    const whole = await warm(path);
    expect((await stack.ask(path, { cookie: cookies["bob"] as string })).headers["x-cache"]).toBe("hit");
    const part = await stack.ask(path, { range: "bytes=0-99" });
    const bytes = Number(whole.headers["content-length"]);
    expect([part.status, part.headers["content-range"]]).toEqual([206, `bytes 0-99/${bytes}`]);
    expect((await stack.ask(path, { range: "bytes=-5" })).headers["content-range"]).toBe(
      `bytes ${bytes - 5}-${bytes - 1}/${bytes}`,
    );
    expect((await alice.delete(`/uploads/${sent.body.upload.id}`)).status).toBe(204);
    await expect.poll(async () => (await stack.ask(path)).status, { timeout: 10_000 }).toBe(404);
  }, 30_000);
});

describe("private uploads", () => {
  it("come by their signed address only, and the CDN keeps none", async () => {
    const sent = await upload(stack.url, alice, "image", await picture(800, 600), "diary.jpg", "private");
    const { media } = await untilState(alice, sent.body.upload.id, "ready", "failed");
    for (let time = 0; time < 3; time++) {
      const answer = await stack.ask(media as string);
      expect([answer.status, answer.headers["x-cache"]]).not.toContain("hit");
      expect(answer.status).toBe(200);
      expect(answer.headers["cache-control"]).toMatch(/^private, /);
    }
    for (const path of [media?.split("?")[0], `${media}&x=.css`, media?.replace("/private/", "/media/")])
      expect((await stack.ask(path as string)).status, path).toBe(404);
  }, 30_000);
});

describe("writes", () => {
  it("of an article are seen on its page, the lists and the API", async () => {
    for (const path of ["/", `/article/${slug}`, `/api/articles/${slug}`]) await warm(path);
    await alice.put(`/articles/${slug}`, {
      article: { description: "changed by a write", body: "changed by a write" },
    });
    for (const path of ["/", `/article/${slug}`, `/api/articles/${slug}`]) {
      await until(path, (body) => body.includes("changed by a write"));
    }
    await until("/", (body) => body.includes("changed by a write"));
  });

  it("of a new and a deleted article are seen on the lists", async () => {
    await warm("/");
    const added = await newArticle("Short lived");
    await until("/", (body) => body.includes("Short lived"));
    await warm(`/article/${added}`);
    await alice.delete(`/articles/${added}`);
    await until("/", (body) => !body.includes("Short lived"));
    expect((await stack.ask(`/article/${added}`)).status).toBe(404);
  });

  it("of comments and favourites are seen", async () => {
    await warm(`/article/${slug}`);
    const { body } = await alice.post(`/articles/${slug}/comments`, { comment: { body: "a comment to see" } });
    await until(`/article/${slug}`, (page) => page.includes("a comment to see"));
    await alice.delete(`/articles/${slug}/comments/${body.comment.id}`);
    await until(`/article/${slug}`, (page) => !page.includes("a comment to see"));
    await warm("/profile/alice/favorites");
    await alice.post(`/articles/${slug}/favorite`);
    await until("/profile/alice/favorites", (page) => page.includes("First words"));
    await until(`/api/articles/${slug}`, (text) => text.includes('"favoritesCount":1'));
  });

  it("of a profile are seen wherever it shows", async () => {
    for (const path of ["/", "/profile/alice", `/article/${slug}`]) await warm(path);
    await alice.put("/user", { user: { bio: "writes by night", image: "https://example.com/alice.png" } });
    await until("/profile/alice", (page) => page.includes("writes by night"));
    for (const path of ["/", `/article/${slug}`]) await until(path, (page) => page.includes("example.com/alice.png"));
  });

  it("are seen by their writer at once, whatever the CDN holds", async () => {
    for (let round = 0; round < 20; round++) {
      await warm("/api/articles");
      await alice.put(`/articles/${slug}`, { article: { description: `round ${round}` } });
      expect((await alice.get(`/articles/${slug}`)).body.article.description).toBe(`round ${round}`);
    }
  });

  it("under many readers leave nothing old behind", async () => {
    let stop = false;
    const readers = Array.from({ length: 20 }, async () => {
      while (!stop) await stack.ask(`/api/articles/${slug}`);
    });
    for (let round = 0; round < 30; round++) {
      await alice.put(`/articles/${slug}`, { article: { description: `busy ${round}` } });
      await until(`/api/articles/${slug}`, (body) => body.includes(`"busy ${round}"`));
    }
    stop = true;
    await Promise.all(readers);
    // No answer that was being made meanwhile comes back later.
    for (let look = 0; look < 10; look++) {
      expect((await stack.ask(`/api/articles/${slug}`)).body).toContain('"busy 29"');
      await sleep(20);
    }
  }, 40_000);
});

describe("nothing private is shared", () => {
  /** What stands in for each parameter. */
  const values: Readonly<Record<string, string>> = {
    ":username": "alice",
    ":id": "1",
    ":ownerId": "0192f0c1-0000-7000-8000-000000000001",
    ":uploadId": "0192f0c1-0000-7000-8000-000000000002",
    ":name": "w640.webp",
  };
  const tricks = [
    "",
    "/",
    "/x.css",
    ";x.css",
    "%3bx.css",
    "%2fx.css",
    "/..%2fx.css",
    "?x.css",
    "?a=1&a=2",
    "//x.css",
    "%2e%2e%2fx.css",
    "/%2e%2e/settings",
  ];

  /** Every GET route of the app, from Fastify's own list. */
  async function routes(): Promise<string[]> {
    const found = new Set<string>();
    const fastify = Fastify();
    fastify.addHook("onRoute", ({ method, url }) => {
      if ([method].flat().includes("GET")) found.add(url);
    });
    // Registering asks its context for little, and nothing of it is used here.
    const context: unknown = new Proxy(() => context, {
      get(_target, name) {
        if (name === "then") return undefined;
        if (name === "environment") return {};
        return name === Symbol.toPrimitive ? () => "" : context;
      },
      apply: () => context,
    });
    for (const { routes } of conduit.services) {
      await fastify.register(async (scope) => {
        const { fastifySessions } = await import("rungs/session/fastify");
        if (!scope.hasRequestDecorator("session")) fastifySessions(scope, { sessions: context as never });
        await routes?.(scope, context as never);
      });
    }
    await fastify.ready();
    await fastify.close();
    return [...found, "/healthz", "/readyz", "/metrics"].map((url) =>
      url
        .replace(/:[a-zA-Z]+/g, (name) => (name === ":slug" ? slug : (values[name] as string)))
        .replace(/\*$/, "unknown"),
    );
  }

  it("on any GET route, as Alice, then as Bob, then as nobody, by any trick of the path", async () => {
    const paths = await routes();
    expect(paths.length).toBeGreaterThan(25);
    expect(paths).toEqual(
      expect.arrayContaining(["/settings", "/notifications", "/tips", "/api/user", `/editor/${slug}`]),
    );
    const settings = await stack.ask("/settings", { cookie: cookies["alice"] as string });
    const csrf = /name="_csrf" value="([^"]+)"/.exec(settings.body)?.[1] as string;
    expect(settings.body).toContain("alice@example.com");
    const marks = [
      "alice@example.com",
      csrf,
      alice.token as string,
      (cookies["alice"] as string).split("=")[1] as string,
    ];
    const leaks: string[] = [];
    for (const path of paths.flatMap((path) => tricks.map((trick) => `${path}${trick}`))) {
      const asAlice = await stack.ask(path, { cookie: cookies["alice"] as string });
      await stack.ask(path, { authorization: `Token ${alice.token}` });
      const asBob = await stack.ask(path, { cookie: cookies["bob"] as string });
      const asNobody = await inspect(path);
      const again = await inspect(path);
      const isFile = /^\/(assets|media)\//.test(path);
      const isRefused = asAlice.status === 400 || asAlice.status === 404;
      const control = String(asAlice.headers["cache-control"]);
      if (!isFile && !isRefused && !/private|no-store/.test(control)) leaks.push(`${path}: Alice's is ${control}`);
      if (!isFile && asAlice.headers["x-cache"] === "hit") leaks.push(`${path}: Alice got a kept answer`);
      for (const [who, answer] of [
        ["Bob", asBob],
        ["nobody", asNobody],
        ["nobody, again", again],
      ] as const) {
        for (const mark of marks) if (answer.body.includes(mark)) leaks.push(`${path}: ${who} sees ${mark}`);
      }
      for (const answer of [asNobody, again]) {
        const isShared = answer.headers["cdn-cache-control"] !== undefined;
        if (isShared && answer.headers["set-cookie"] !== undefined) leaks.push(`${path}: a shared cookie`);
        if (isShared && /name="_csrf" value="[^"]/.test(answer.body)) leaks.push(`${path}: a shared token`);
        if (isShared && answer.status !== 200) leaks.push(`${path}: a shared ${answer.status}`);
        if (answer.headers["x-cache"] === "hit" && !isShared) leaks.push(`${path}: kept without leave`);
      }
    }
    expect(leaks).toEqual([]);
  }, 60_000);

  it("and forms of visitors carry no token of a session", async () => {
    for (const path of ["/login", "/register"]) {
      const answer = await inspect(path);
      expect(answer.headers["cdn-cache-control"]).toBeUndefined();
      expect(answer.headers["x-not-shared"]).toBe("route-not-shared");
    }
  });
});
