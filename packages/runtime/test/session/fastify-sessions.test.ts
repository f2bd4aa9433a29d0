import { randomUUID } from "node:crypto";
import { request as httpRequest, type OutgoingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import Fastify, { type FastifyInstance, type FastifyServerOptions } from "fastify";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/kernel/errors.ts";
import { csrfToken } from "../../src/session/csrf.ts";
import {
  type FastifySessionsOptions,
  fastifySessions,
  requireUser,
} from "../../src/session/drivers/fastify-sessions.ts";
import { createSessions, type Sessions } from "../../src/session/sessions.ts";
import { openSessionDatabase } from "./session-database.ts";

interface Answer {
  readonly status: number;
  readonly cookies: readonly string[];
  readonly cacheControl: string | undefined;
  readonly body: Record<string, unknown>;
}

type Send = (method: string, path: string, headers?: OutgoingHttpHeaders, body?: string) => Promise<Answer>;

/** Node's own client: unlike fetch it adds no header and withholds none. */
function clientOf(port: number): Send {
  return (method, path, headers = {}, body) =>
    new Promise((resolve, reject) => {
      const outgoing = httpRequest({ host: "127.0.0.1", port, method, path, headers, agent: false }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            cookies: response.headers["set-cookie"] ?? [],
            cacheControl: response.headers["cache-control"],
            body: text === "" ? {} : (JSON.parse(text) as Record<string, unknown>),
          }),
        );
      });
      outgoing.on("error", reject).end(body);
    });
}

describe("sessions on Fastify", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  let sessions: Sessions;
  const apps: FastifyInstance[] = [];
  beforeAll(async () => {
    database = await openSessionDatabase();
    sessions = createSessions({ store: database.store });
  });
  afterEach(async () => {
    await Promise.all(apps.splice(0).map((app) => app.close()));
  });
  afterAll(() => database?.close());

  async function serve(
    options: { readonly fastify?: FastifyServerOptions } & Partial<FastifySessionsOptions> = {},
  ): Promise<{ send: Send; port: number; bodiesRead: () => number }> {
    const { fastify, ...rest } = options;
    const app = Fastify({ ...fastify });
    apps.push(app);
    let bodies = 0;
    app.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string" }, (_request, body, done) => {
      bodies++;
      done(null, Object.fromEntries(new URLSearchParams(String(body))));
    });
    app.setErrorHandler((error, _request, reply) => {
      const { statusCode = 500, message } = error as { statusCode?: number; message: string };
      return reply.code(error instanceof UnavailableError ? 503 : statusCode).send({ message });
    });
    fastifySessions(app, { sessions, ...rest });
    app.get("/anyone", async () => ({ ok: true }));
    app.get("/who", async (request) => {
      const [first, second] = await Promise.all([request.session(), request.session()]);
      return { userId: first?.userId ?? null, isSame: first === second, csrf: request.csrfToken() };
    });
    app.get("/mine", async (request) => ({ userId: (await requireUser(request)).userId }));
    app.post("/sign-in", { config: { csrf: "always" } }, async (request, reply) => {
      const { userId } = request.body as { userId: string };
      const session = await reply.startSession(userId);
      return { now: (await request.session())?.userId, token: session.token };
    });
    app.post("/sign-out", async (request, reply) => {
      await reply.endSession();
      return { now: (await request.session())?.userId ?? null };
    });
    app.post("/write", async () => ({ ok: true }));
    app.post("/hook", { config: { csrf: "off" } }, async () => ({ ok: true }));
    await app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = app.server.address() as AddressInfo;
    return { send: clientOf(port), port, bodiesRead: () => bodies };
  }

  const form = { "content-type": "application/x-www-form-urlencoded" };
  const tokenOf = ({ cookies }: Answer) => /^(?:__Host-)?session=([^;]*)/.exec(cookies[0] ?? "")?.[1] ?? "";

  it("ask the store once a request, and not at all when nobody asks or nothing was brought", async () => {
    const { send } = await serve();
    const { token } = await sessions.start(randomUUID());
    database.queries.length = 0;
    await send("GET", "/anyone", { cookie: `session=${token}`, authorization: `Bearer ${token}` });
    await send("GET", "/who");
    expect(database.queries).toEqual([]);
    expect((await send("GET", "/who", { cookie: `session=${token}` })).body["isSame"]).toBe(true);
    expect(database.queries).toEqual(["rungs_session_read"]);
  });

  it.each([
    ["Token", "authorization"],
    ["Bearer", "authorization"],
  ])("are opened by %s tokens", async (scheme) => {
    const { send } = await serve();
    const userId = randomUUID();
    const { token } = await sessions.start(userId);
    expect((await send("GET", "/who", { authorization: `${scheme} ${token}` })).body).toMatchObject({
      userId,
      csrf: "",
    });
  });

  it("belong to the bearer token when a cookie comes along, and a dead bearer token is not helped by it", async () => {
    const { send } = await serve();
    const [ann, bob] = [await sessions.start(randomUUID()), await sessions.start(randomUUID())];
    const cookie = `session=${bob.token}`;
    expect((await send("GET", "/who", { authorization: `Token ${ann.token}`, cookie })).body["userId"]).toBe(
      ann.userId,
    );
    await sessions.revoke(ann.token);
    expect((await send("GET", "/who", { authorization: `Token ${ann.token}`, cookie })).body["userId"]).toBeNull();
  });

  it("sign in by a cookie over plain http, and out again", async () => {
    const { send } = await serve();
    const userId = randomUUID();
    const signedIn = await send("POST", "/sign-in", form, `userId=${userId}`);
    expect(signedIn).toMatchObject({ status: 200, cacheControl: "no-store", body: { now: userId } });
    expect(signedIn.cookies).toEqual([
      `session=${signedIn.body["token"]}; Path=/; Max-Age=${90 * 86_400}; HttpOnly; SameSite=Lax`,
    ]);
    const cookie = `session=${tokenOf(signedIn)}`;
    expect((await send("GET", "/mine", { cookie })).body).toEqual({ userId });

    const signedOut = await send("POST", "/sign-out", { cookie, "sec-fetch-site": "same-origin" });
    expect(signedOut).toMatchObject({ status: 200, body: { now: null } });
    expect(signedOut.cookies).toEqual(["session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    expect((await send("GET", "/mine", { cookie })).status).toBe(401);
    expect(await sessions.load(tokenOf(signedIn))).toBeUndefined();
  });

  it("kill a planted cookie at sign-in (fixation)", async () => {
    const { send } = await serve();
    const planted = await sessions.start(null);
    const headers = { ...form, cookie: `session=${planted.token}`, "sec-fetch-site": "same-origin" };
    const signedIn = await send("POST", "/sign-in", headers, `userId=${randomUUID()}`);
    expect(tokenOf(signedIn)).not.toBe(planted.token);
    expect(await sessions.load(planted.token)).toBeUndefined();
    expect(await sessions.load(tokenOf(signedIn))).toBeDefined();
  });

  it("use the __Host- cookie by the word of a trusted proxy only", async () => {
    const proxied = { ...form, "x-forwarded-proto": "https" };
    const trusting = await serve({ fastify: { trustProxy: "127.0.0.1" } });
    const [secure = ""] = (await trusting.send("POST", "/sign-in", proxied, `userId=${randomUUID()}`)).cookies;
    expect(secure).toMatch(/^__Host-session=[\w-]{43}; Path=\/; Max-Age=7776000; HttpOnly; SameSite=Lax; Secure$/);
    const who = await trusting.send("GET", "/who", { ...proxied, cookie: secure.split(";")[0] });
    expect(who.body["userId"]).not.toBeNull();
    // The same token under the other scheme's name opens nothing.
    const renamed = secure.split(";")[0]?.replace("__Host-", "");
    expect((await trusting.send("GET", "/who", { ...proxied, cookie: renamed })).body["userId"]).toBeNull();

    const wary = await serve();
    const [plain] = (await wary.send("POST", "/sign-in", proxied, `userId=${randomUUID()}`)).cookies;
    expect(plain).toMatch(/^session=/);

    const forced = await serve({ secure: true });
    const [always] = (await forced.send("POST", "/sign-in", form, `userId=${randomUUID()}`)).cookies;
    expect(always).toMatch(/^__Host-session=.*; Secure$/);
  });

  it("give 401 for a user's page without one, be the session absent, unknown or anonymous", async () => {
    const { send } = await serve();
    const anonymous = await sessions.start(null);
    for (const headers of [
      {},
      { authorization: "Token" },
      { cookie: `session=${"A".repeat(43)}` },
      { cookie: `session=${anonymous.token}` },
    ]) {
      expect((await send("GET", "/mine", headers)).status).toBe(401);
    }
  });

  describe("guard writes by cookie", () => {
    it.each([
      ["same origin", { "sec-fetch-site": "same-origin" }, 200],
      ["typed", { "sec-fetch-site": "none" }, 200],
      ["sister domain", { "sec-fetch-site": "same-site" }, 403],
      ["foreign page", { "sec-fetch-site": "cross-site" }, 403],
      ["foreign page without fetch metadata", { origin: "https://evil.example" }, 403],
      ["foreign referer only", { referer: "https://evil.example/page" }, 403],
      ["sandboxed frame", { origin: "null" }, 403],
      ["nothing said, no token", {}, 403],
    ])("%s", async (_, headers, status) => {
      const { send } = await serve();
      const { token } = await sessions.start(randomUUID());
      expect((await send("POST", "/write", { ...headers, cookie: `session=${token}` })).status).toBe(status);
      // The guard is what refuses: without it the same request passes.
      expect((await send("POST", "/hook", { ...headers, cookie: `session=${token}` })).status).toBe(200);
      // No cookie, nothing to abuse; a bearer token no page can send by itself.
      expect((await send("POST", "/write", headers)).status).toBe(200);
      expect((await send("POST", "/write", { ...headers, authorization: `Token ${token}` })).status).toBe(200);
    });

    it("by the host that was asked", async () => {
      const { send, port } = await serve();
      const { token } = await sessions.start(randomUUID());
      const cookie = `session=${token}`;
      expect((await send("POST", "/write", { cookie, origin: `http://127.0.0.1:${port}` })).status).toBe(200);
      expect((await send("POST", "/write", { cookie, origin: `http://127.0.0.1:${port + 1}` })).status).toBe(403);
      // A forwarded host from nobody we trust does not count.
      const forwarded = { cookie, origin: "http://evil.example", "x-forwarded-host": "evil.example" };
      expect((await send("POST", "/write", forwarded)).status).toBe(403);
    });

    it("by the form's or header's token when nothing else tells", async () => {
      const { send } = await serve();
      const { token } = await sessions.start(randomUUID());
      const cookie = `session=${token}`;
      const { csrf } = (await send("GET", "/who", { cookie })).body;
      expect(csrf).toBe(csrfToken(token));
      expect((await send("POST", "/write", { ...form, cookie }, `_csrf=${csrf}`)).status).toBe(200);
      expect((await send("POST", "/write", { cookie, "x-csrf-token": String(csrf) })).status).toBe(200);
      expect((await send("POST", "/write", { ...form, cookie }, "_csrf=wrong")).status).toBe(403);
      expect((await send("POST", "/write", { ...form, cookie }, `_csrf=${csrf}&_csrf=x`)).status).toBe(403);
      const json = { "content-type": "application/json", cookie };
      for (const body of ["null", "[]", '"x"', '{"_csrf":1}', '{"_csrf":["x"]}']) {
        expect((await send("POST", "/write", json, body)).status).toBe(403);
      }
    });

    it("before the body of a foreign request is read", async () => {
      const { send, bodiesRead } = await serve();
      const { token } = await sessions.start(randomUUID());
      const headers = { ...form, cookie: `session=${token}`, "sec-fetch-site": "cross-site" };
      expect((await send("POST", "/write", headers, "a=1")).status).toBe(403);
      expect(bodiesRead()).toBe(0);
    });

    it("and sign-in forms even without one (login CSRF)", async () => {
      const { send } = await serve();
      const body = `userId=${randomUUID()}`;
      for (const headers of [
        { "sec-fetch-site": "cross-site" },
        { origin: "https://evil.example" },
        { origin: "null" },
      ]) {
        const answer = await send("POST", "/sign-in", { ...form, ...headers }, body);
        expect(answer).toMatchObject({ status: 403, cookies: [] });
      }
      expect((await send("POST", "/sign-in", form, body)).status).toBe(200);
    });
  });

  it("work as a registered plugin too", async () => {
    const app = Fastify();
    apps.push(app);
    await app.register(fastifySessions, { sessions });
    app.get("/who", async (request) => ({ userId: (await request.session())?.userId ?? null }));
    app.post("/write", async () => ({ ok: true }));
    await app.listen({ host: "127.0.0.1", port: 0 });
    const send = clientOf((app.server.address() as AddressInfo).port);
    const { token, userId } = await sessions.start(randomUUID());
    expect((await send("GET", "/who", { cookie: `session=${token}` })).body).toEqual({ userId });
    expect((await send("POST", "/write", { cookie: `session=${token}` })).status).toBe(403);
  });
});

describe("sessions on Fastify during an outage of the store", () => {
  it("answer 503 and leave the cookie alone", async () => {
    const database = await openSessionDatabase();
    const app = Fastify();
    try {
      const sessions = createSessions({ store: database.store });
      const { token } = await sessions.start(randomUUID());
      app.setErrorHandler((error, _request, reply) =>
        reply.code(error instanceof UnavailableError ? 503 : 500).send({}),
      );
      fastifySessions(app, { sessions });
      app.get("/mine", async (request) => requireUser(request));
      await app.listen({ host: "127.0.0.1", port: 0 });
      await database.stopServer();
      const send = clientOf((app.server.address() as AddressInfo).port);
      expect(await send("GET", "/mine", { cookie: `session=${token}` })).toMatchObject({ status: 503, cookies: [] });
    } finally {
      await app.close();
      await database.close();
    }
  });
});
