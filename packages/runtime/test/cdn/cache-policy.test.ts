/** What answers say about who may keep them, on a real Fastify. */
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isAnonymous, privateCacheControl } from "../../src/cdn/cache-policy.ts";
import { fastifyCachePolicy } from "../../src/cdn/drivers/fastify-cache-policy.ts";
import { surrogateKey } from "../../src/cdn/surrogate-key.ts";

const cache = { sharedMaxAgeMs: 60_000, staleWhileRevalidateMs: 10_000, staleIfErrorMs: 3_600_000 };
let server: FastifyInstance;

beforeAll(async () => {
  server = Fastify();
  fastifyCachePolicy(server, { cdn: { keyHeader: "xkey", keySeparator: " " } });
  server.get("/shared", { config: { cache } }, async (_request, reply) => {
    reply.cacheTag("articles");
    reply.cacheTag("article:0192f0c1-0000-7000-8000-000000000001");
    return reply.type("text/plain").send("shared");
  });
  server.get("/plain", async () => "plain");
  server.get("/careless", async (_request, reply) =>
    reply.header("cache-control", "public, s-maxage=600, max-age=5").send("x"),
  );
  server.get("/cookie", { config: { cache } }, async (_request, reply) => reply.header("set-cookie", "a=b").send("x"));
  server.get(
    "/late-cookie",
    {
      config: { cache },
      onSend: async (_request, reply) => {
        reply.header("set-cookie", "late=1");
      },
    },
    async () => "x",
  );
  server.get("/private", { config: { cache } }, async (_request, reply) =>
    reply.header("cache-control", "private, no-store").send("x"),
  );
  server.get<{ Params: { status: string } }>("/status/:status", { config: { cache } }, async (request, reply) =>
    reply.code(Number(request.params.status)).send("x"),
  );
  server.get("/missing", { config: { cache: { ...cache, notFoundMaxAgeMs: 5_000 } } }, async (_request, reply) =>
    reply.code(404).header("cache-control", "no-store").send("x"),
  );
  server.get("/fails", { config: { cache } }, async () => {
    throw new Error("on our side");
  });
  server.post("/shared", { config: { cache } }, async () => "posted");
  server.get("/file", { config: { cache: { sharedMaxAgeMs: 60_000, isForEveryone: true } } }, async (_request, reply) =>
    reply.header("cache-control", "public, max-age=31536000, immutable").send("file"),
  );
  server.get(
    "/declared",
    { config: { cache: { ...cache, vary: ["Accept-Language"], surrogateKeys: ({ url }) => [`page:${url}`] } } },
    async () => "x",
  );
  server.get("/many", { config: { cache } }, async (_request, reply) => {
    for (let index = 0; index < 400; index++) reply.cacheTag(`article:${index}-of-a-very-long-list`);
    return reply.send("x");
  });
  server.get("/slow", { config: { cache } }, async () => {
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    return "x";
  });
  await server.ready();
});
afterAll(() => server.close());

const get = (url: string, headers: Record<string, string> = {}) => server.inject({ url, headers });

describe("a shared answer", () => {
  it("tells browsers to ask again and the CDN how long it may keep it, by which keys", async () => {
    const { headers, statusCode } = await get("/shared");
    expect(statusCode).toBe(200);
    expect(headers).toMatchObject({
      "cache-control": "public, max-age=0, must-revalidate",
      "cdn-cache-control": "max-age=60, stale-while-revalidate=10, stale-if-error=3600",
      xkey: `site articles ${surrogateKey("article:0192f0c1-0000-7000-8000-000000000001")}`,
      vary: "Cookie, Authorization",
    });
    expect(headers).not.toHaveProperty("x-not-shared");
  });

  it("answers 304 with the same headers to whoever has it", async () => {
    const { headers } = await get("/shared");
    const known = await get("/shared", { "if-none-match": `"other", ${String(headers["etag"]).replace("W/", "")}` });
    expect([known.statusCode, known.body]).toEqual([304, ""]);
    expect(known.headers).toMatchObject({ etag: headers["etag"], xkey: headers["xkey"], vary: headers["vary"] });
    expect((await get("/shared", { "if-none-match": '"other"' })).statusCode).toBe(200);
  });

  it("bears keys and Vary that its route declares", async () => {
    const { headers } = await get("/declared");
    expect(headers["xkey"]).toBe(`site ${surrogateKey("page:/declared")}`);
    expect(headers["vary"]).toBe("Cookie, Authorization, Accept-Language");
  });

  it("keeps a file's own time for browsers, also for signed-in visitors", async () => {
    const { headers } = await get("/file", { cookie: "session=x" });
    expect(headers).toMatchObject({
      "cache-control": "public, max-age=31536000, immutable",
      "cdn-cache-control": "max-age=60",
    });
    expect(headers).not.toHaveProperty("vary");
  });

  it("may be a 404 where the route says so", async () => {
    expect((await get("/missing")).headers["cdn-cache-control"]).toContain("max-age=5,");
    expect((await get("/missing", { cookie: "a=b" })).headers).toMatchObject({ "x-not-shared": "has-credentials" });
  });
});

describe("everything else is private", () => {
  it.each([
    ["of a route that did not opt in", "/plain", {}, "private, no-store"],
    ["that its handler would share without a policy", "/careless", {}, "private, max-age=5"],
    ["to a request with a cookie", "/shared", { cookie: "session=x" }, "private, no-store"],
    ["to a request with a token", "/shared", { authorization: "Token x" }, "private, no-store"],
    ["to a request with another scheme", "/shared", { authorization: "Basic eDp5" }, "private, no-store"],
    ["with a cookie", "/cookie", {}, "private, no-store"],
    ["with a cookie that a later hook set", "/late-cookie", {}, "private, no-store"],
    ["that its handler calls private", "/private", {}, "private, no-store"],
    ["with status 500", "/fails", {}, "private, no-store"],
    ["with status 303", "/status/303", {}, "private, no-store"],
    ["with status 401", "/status/401", {}, "private, no-store"],
    ["with status 404", "/status/404", {}, "private, no-store"],
    ["of an unknown address", "/nothing-here", {}, "private, no-store"],
    ["with more keys than fit", "/many", {}, "private, no-store"],
    ["that took so long that a purge may have come before it", "/slow", {}, "private, no-store"],
  ])("an answer %s", async (_what, url, headers, expected) => {
    const answer = await get(url, headers as Record<string, string>);
    expect(answer.headers["cache-control"]).toBe(expected);
    for (const name of ["cdn-cache-control", "xkey", "etag"]) expect(answer.headers).not.toHaveProperty(name);
  });

  it("an answer to a POST", async () => {
    const { headers } = await server.inject({ method: "POST", url: "/shared" });
    expect(headers["cache-control"]).toBe("private, no-store");
  });

  it("and varies where its route shares with others", async () => {
    expect((await get("/shared", { cookie: "session=x" })).headers).toMatchObject({
      vary: "Cookie, Authorization",
      "x-not-shared": "has-credentials",
    });
  });
});

describe("without a CDN", () => {
  it("browsers alone are told", async () => {
    const alone = Fastify();
    fastifyCachePolicy(alone);
    alone.get("/", { config: { cache } }, async () => "x");
    const { headers } = await alone.inject("/");
    expect(headers["cache-control"]).toBe("public, max-age=0, must-revalidate");
    for (const name of ["cdn-cache-control", "xkey", "cache-tag", "x-not-shared"])
      expect(headers).not.toHaveProperty(name);
    await alone.close();
  });
});

describe("rules by themselves", () => {
  it("only cookies of measuring scripts leave a request anonymous", () => {
    expect(isAnonymous({})).toBe(true);
    expect(isAnonymous({ cookie: "_ga=1; _gid=2; _ga_AB12=3;" })).toBe(true);
    for (const cookie of ["session=1", "_ga=1; session=2", "_gax", "x_ga=1", "__Host-session=1", "theme=dark"]) {
      expect(isAnonymous({ cookie })).toBe(false);
    }
    expect(isAnonymous({ authorization: "" })).toBe(false);
  });

  it("keys are short, plain, and the same for the same tag", () => {
    expect(surrogateKey("articles")).toBe("articles");
    const tags = [
      "article:0192f0c1-0000-7000-8000-000000000001",
      "a b",
      "naïve:tag",
      "x\r\ny",
      "x,y",
      `${"k".repeat(30)}:1`,
    ];
    for (const tag of tags) {
      expect(surrogateKey(tag)).toMatch(/^[A-Za-z0-9._:-]{1,33}$/);
      expect(surrogateKey(surrogateKey(tag))).toBe(surrogateKey(tag));
    }
    expect(new Set(tags.map(surrogateKey)).size).toBe(tags.length);
  });

  it("takes out of a Cache-Control whatever would let others keep the answer", () => {
    expect(privateCacheControl("public, max-age=60, immutable, stale-while-revalidate=5")).toBe("private, max-age=60");
    expect(privateCacheControl("no-cache")).toBe("private, no-cache");
    expect(privateCacheControl("no-store")).toBe("no-store");
    expect(privateCacheControl(" ")).toBe("private, no-store");
  });
});
