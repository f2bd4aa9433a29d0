/** Requests as units of reads, on a real Fastify and a real session store; the servers read from are positions that tests set. */
import { randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { readUnits } from "../../src/app/reads/read-units.ts";
import { fastifyCachePolicy } from "../../src/cdn/drivers/fastify-cache-policy.ts";
import { encodePosition, readContext } from "../../src/database/index.ts";
import { UnavailableError } from "../../src/kernel/errors.ts";
import { beginSessionReads, settleSessionReads } from "../../src/session/drivers/fastify-session-reads.ts";
import { fastifySessions } from "../../src/session/drivers/fastify-sessions.ts";
import { type SessionReads, sessionReads } from "../../src/session/session-reads.ts";
import type { SessionStore } from "../../src/session/session-store.ts";
import { createSessions, hashToken, type Sessions } from "../../src/session/sessions.ts";
import { seenSigner, sessionName } from "../../src/session/signed-seen.ts";
import { openSessionDatabase } from "./session-database.ts";

/** A server that says how far it has got. */
class Server {
  lsn = 0n;
  isGone = false;
  async positionNow() {
    if (this.isGone) throw new UnavailableError("DATABASE_UNREACHABLE", "The leader is gone.", { canRetry: true });
    return { timeline: 1, lsn: this.lsn };
  }
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly header: string | null;
  readonly cookies: readonly string[];
  readonly cacheControl: string | undefined;
}

const signer = seenSigner(Buffer.alloc(32, 3));
const at = (lsn: number) => encodePosition({ timeline: 1, lsn: BigInt(lsn) });
const positionCookies = ({ cookies }: Answer) => cookies.filter((cookie) => cookie.startsWith("position="));

describe("requests as units of reads", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  let sessions: Sessions;
  let reads: SessionReads;
  let leader: Server;
  let follower: Server;
  let app: FastifyInstance;
  let address: string;
  /** What the last read was told it must see: the position, "leader", or "outside". */
  let demands: string[];
  /** Revisions that reads of sessions were good with; undefined for the newest there is. */
  let asked: (number | undefined)[];

  beforeAll(async () => {
    database = await openSessionDatabase();
  });
  afterAll(() => database?.close());
  beforeEach(async () => {
    leader = new Server();
    follower = new Server();
    demands = [];
    asked = [];
    await open({ hasRevisions: false });
  });
  afterEach(() => app.close());

  async function open({ hasRevisions }: { readonly hasRevisions: boolean }): Promise<void> {
    reads = sessionReads({ units: readUnits(), signer, hasRevisions });
    const read: SessionStore["read"] = (tokenHash, options = {}) => {
      asked.push(options.leastRevision);
      return database.store.read(tokenHash);
    };
    sessions = createSessions({ store: { ...database.store, read }, seen: reads });
    app = Fastify() as unknown as FastifyInstance;
    beginSessionReads(app, { reads });
    fastifyCachePolicy(app);
    fastifySessions(app, { sessions });
    settleSessionReads(app, { sessions });
    addRoutes(app);
    await app.listen({ host: "127.0.0.1", port: 0 });
    address = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  }

  /** The same with processes that read sessions from copies. */
  async function reopenWithRevisions(): Promise<void> {
    await app.close();
    await open({ hasRevisions: true });
  }

  /** As the database tier would: notes the read, and remembers what it had to see. */
  function read(): string {
    const context = readContext();
    if (context === undefined) demands.push("outside");
    else if (context.needsLeader(0)) {
      context.noteRead(0, leader);
      demands.push("leader");
    } else {
      context.noteRead(0, follower);
      const required = context.requiredOf(0);
      demands.push(required === undefined ? "any" : encodePosition(required));
    }
    return demands.at(-1) as string;
  }

  function addRoutes(fastify: FastifyInstance): void {
    const write = () => readContext()?.noteWrite(0, leader);
    fastify.get("/plain", async () => read());
    fastify.get("/idle", async () => "nothing was read");
    fastify.get("/mine", async (request) => {
      await request.session();
      return read();
    });
    fastify.get("/late", async (request) => {
      await sleep(5);
      await request.session();
      await new Promise((resolve) => setImmediate(resolve));
      return read();
    });
    fastify.get("/shared", { config: { cache: { sharedMaxAgeMs: 60_000 } } }, async () => read());
    fastify.get("/file", { config: { cache: { sharedMaxAgeMs: 60_000, isForEveryone: true } } }, async () => read());
    fastify.post("/write", async (request) => {
      await request.session();
      read();
      write();
      return { body: request.body, demand: demands.at(-1) };
    });
    fastify.post("/fail", async (request) => {
      await request.session();
      write();
      throw new Error("The handler failed after it wrote.");
    });
    fastify.post<{ Body: { user: string } }>("/token", async ({ body }) => {
      const { token } = await sessions.start(body.user);
      write();
      return token;
    });
    fastify.post("/cookie", async (_request, reply) => {
      write();
      await reply.startSession(randomUUID());
      return "in";
    });
    fastify.post("/out", async (_request, reply) => {
      await reply.endSession();
      return "out";
    });
    fastify.get("/confirm", { config: { region: "leader" } }, async (request) => {
      await request.session();
      return read();
    });
    fastify.post("/data", async (request) => {
      await request.session();
      return sessions.update(String(request.carriedToken()?.token), { a: 1 });
    });
    fastify.get("/stream", async (request, reply) => {
      await request.session();
      read();
      const chunks = async function* () {
        yield "first ";
        await sleep(10);
        yield read();
      };
      return reply.type("text/plain").send(Readable.from(chunks()));
    });
  }

  /** Node's own client: fetch would say `Sec-Fetch-Mode: cors` of each request. */
  function ask(method: string, path: string, headers: Record<string, string> = {}, body?: unknown): Promise<Answer> {
    const type = body === undefined ? {} : { "content-type": "application/json" };
    return new Promise((resolve, reject) => {
      const options = { method, headers: { origin: address, ...type, ...headers }, agent: false };
      const outgoing = httpRequest(address + path, options, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () => {
          const header = response.headers["rungs-position"];
          resolve({
            status: response.statusCode ?? 0,
            body: text,
            header: header === undefined ? null : String(header),
            cookies: response.headers["set-cookie"] ?? [],
            cacheControl: response.headers["cache-control"],
          });
        });
      });
      outgoing.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  const seenBy = async (token: string) => (await database.store.read(hashToken(token)))?.seen;

  it("are held to nothing without a session, and noted nowhere", async () => {
    const answer = await ask("GET", "/plain");
    expect([answer.body, answer.header, answer.cookies]).toEqual(["any", null, []]);
    expect(reads.stats()).toMatchObject({ requests: 1, notedInSession: 0, notedByClient: 0 });
  });

  it("read from leaders until their session is known, and from then on what it has seen", async () => {
    const { token } = await sessions.start(randomUUID());
    await sessions.noteSeen(token, { 0: at(70) });
    expect((await ask("GET", "/plain", bearer(token))).body).toBe("leader");
    expect((await ask("GET", "/mine", bearer(token))).body).toBe(at(70));
    expect((await ask("GET", "/late", bearer(token))).body).toBe(at(70));
  });

  it("note what they wrote in the session before they are answered, and read from leaders all along", async () => {
    const { token } = await sessions.start(randomUUID());
    leader.lsn = 500n;
    const answer = await ask("POST", "/write", bearer(token), { some: "body" });
    expect(JSON.parse(answer.body)).toEqual({ body: { some: "body" }, demand: "leader" });
    expect(await seenBy(token)).toEqual({ 0: at(500) });
    expect((await ask("GET", "/mine", bearer(token))).body).toBe(at(500));
  });

  it("note what they read in the session of a client that carries nothing, when it rose", async () => {
    const { token } = await sessions.start(randomUUID());
    follower.lsn = 30n;
    await ask("GET", "/mine", bearer(token));
    expect(await seenBy(token)).toEqual({ 0: at(30) });
    const { notedInSession } = reads.stats();
    await ask("GET", "/mine", bearer(token));
    expect(reads.stats().notedInSession).toBe(notedInSession);
  });

  it("leave what they read to a client that sends its note back, and believe it", async () => {
    const { token } = await sessions.start(randomUUID());
    leader.lsn = 40n;
    follower.lsn = 60n;
    const first = await ask("POST", "/write", bearer(token), {});
    expect(signer.read(String(first.header))).toEqual({ seen: { 0: at(40) } });
    const second = await ask("GET", "/mine", { ...bearer(token), "rungs-position": String(first.header) });
    expect([second.body, signer.read(String(second.header))]).toEqual([at(40), { seen: { 0: at(60) } }]);
    expect(await seenBy(token)).toEqual({ 0: at(40) });
    const notes = `${second.header}, ${first.header}`;
    expect((await ask("GET", "/mine", { ...bearer(token), "rungs-position": notes })).body).toBe(at(60));
    expect((await ask("GET", "/plain", { "rungs-position": String(second.header) })).body).toBe(at(60));
  });

  it("cost the session store nothing when they read nothing new", async () => {
    const { token } = await sessions.start(randomUUID());
    follower.lsn = 60n;
    const note = String((await ask("GET", "/mine", bearer(token))).header);
    const queries = database.queries.length;
    const again = await ask("GET", "/idle", { ...bearer(token), "rungs-position": note });
    expect([again.header, database.queries.length]).toEqual([note, queries]);
    expect((await ask("GET", "/mine", { ...bearer(token), "rungs-position": note })).header).toBe(note);
    expect(database.queries.slice(queries)).toEqual(["rungs_session_read"]);
  });

  it("ignore and count a note that was not signed here", async () => {
    const { token } = await sessions.start(randomUUID());
    const forged = String(seenSigner(Buffer.alloc(32, 9)).sign({ seen: { 0: at(1e9) } }));
    const headers = { ...bearer(token), "rungs-position": forged };
    expect((await ask("GET", "/mine", headers)).body).toBe("any");
    expect((await ask("GET", "/plain", { cookie: `position=${forged}` })).body).toBe("any");
    expect(reads.stats()).toMatchObject({ notesTaken: 0, notesRefused: 2 });
  });

  it("give browsers their note as a cookie, which is enough while they load pages", async () => {
    const signIn = await ask("POST", "/cookie", {}, {});
    const session = String(signIn.cookies.find((cookie) => cookie.startsWith("session="))).split(";")[0] as string;
    leader.lsn = 10n;
    follower.lsn = 20n;
    const first = await ask("GET", "/mine", { cookie: session });
    const [set = ""] = positionCookies(first);
    expect(set).toMatch(/^position=[\w.-]+; Path=\/; Max-Age=86400; HttpOnly; SameSite=Lax$/);
    expect(first.header).toBeNull();
    const cookie = `${session}; ${set.split(";")[0]}`;
    const token = session.slice("session=".length);
    expect(await seenBy(token)).toEqual({ 0: at(20) });
    follower.lsn = 25n;
    expect((await ask("GET", "/mine", { cookie, "sec-fetch-mode": "navigate" })).body).toBe(at(20));
    expect(await seenBy(token)).toEqual({ 0: at(20) });
    // Of answers to requests at the same time the last one's cookie wins: scripts' requests are noted in the session too.
    await ask("GET", "/mine", { cookie, "sec-fetch-mode": "cors" });
    expect(await seenBy(token)).toEqual({ 0: at(25) });
    const out = await ask("POST", "/out", { cookie }, {});
    expect(positionCookies(out)).toEqual(["position=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    expect(positionCookies(await ask("GET", "/mine", { cookie: "session=gone; position=x" }))).toHaveLength(1);
    expect(positionCookies(await ask("GET", "/mine", { cookie: "session=gone" }))).toEqual([]);
  });

  it("are given no note with an answer that others may keep", async () => {
    const { token } = await sessions.start(randomUUID());
    const note = String(signer.sign({ seen: { 0: at(5) } }));
    follower.lsn = 9n;
    for (const [path, headers] of [
      ["/shared", { "rungs-position": note }],
      ["/shared", {}],
      ["/file", bearer(token)],
      ["/file", { cookie: `session=${token}` }],
    ] as const) {
      const answer = await ask("GET", path, headers);
      expect(answer.cacheControl, path).toContain("public");
      expect([answer.header, answer.cookies], path).toEqual([null, []]);
    }
    expect((await ask("GET", "/shared", bearer(token))).header).not.toBeNull();
  });

  it("note what they wrote in a session that began with them, by whatever way", async () => {
    leader.lsn = 90n;
    const { body: token } = await ask("POST", "/token", {}, { user: randomUUID() });
    expect(await seenBy(token)).toEqual({ 0: at(90) });
    const [cookie = ""] = (await ask("POST", "/cookie", {}, {})).cookies;
    expect(await seenBy(cookie.slice("session=".length).split(";")[0] as string)).toEqual({ 0: at(90) });
  });

  it("note what was written before the handler failed, and keep its answer", async () => {
    const { token } = await sessions.start(randomUUID());
    leader.lsn = 11n;
    expect((await ask("POST", "/fail", bearer(token), {})).status).toBe(500);
    expect(await seenBy(token)).toEqual({ 0: at(11) });
    leader.isGone = true;
    expect((await ask("POST", "/fail", bearer(token), {})).body).toContain("failed after it wrote");
  });

  it("are not answered as done when what they wrote cannot be noted", async () => {
    const { token } = await sessions.start(randomUUID());
    leader.isGone = true;
    const answer = await ask("POST", "/write", bearer(token), {});
    expect([answer.status, answer.body]).toEqual([500, expect.stringContaining("The leader is gone.")]);
    expect(reads.stats().failures).toBe(1);
  });

  it("are over when the answer goes out: a stream reads from leaders", async () => {
    const { token } = await sessions.start(randomUUID());
    expect((await ask("GET", "/stream", bearer(token))).body).toBe("first outside");
    expect(demands).toEqual(["any", "outside"]);
  });

  it("prove the revision their client was told of last, and nothing that may be older", async () => {
    await reopenWithRevisions();
    const { token } = await sessions.start(randomUUID());
    const mine = async (headers: Record<string, string>) => {
      asked = [];
      return ask("GET", "/mine", { ...bearer(token), ...headers });
    };
    const first = String((await mine({})).header);
    expect([asked, signer.read(first)?.record?.session]).toEqual([[undefined], sessionName(token)]);
    const note = String((await ask("POST", "/data", bearer(token), {})).header);
    const revision = (await database.store.read(hashToken(token)))?.revision;
    expect(signer.read(note)?.record).toEqual({ session: sessionName(token), revision });
    await mine({ "rungs-position": note });
    expect(asked).toEqual([revision]);
    await mine({ "rungs-position": `${first}, ${note}` });
    expect(asked).toEqual([revision]);
    asked = [];
    await ask("POST", "/write", { ...bearer(token), "rungs-position": note }, {});
    expect(asked).toEqual([undefined]);
    const { token: other } = await sessions.start(randomUUID());
    const foreign = signer.sign({ seen: { 0: at(1) }, record: { session: sessionName(other), revision: 0 } });
    const unrevised = signer.sign({ seen: { 0: at(1) } });
    for (const notes of [foreign, unrevised, `${note}, ${unrevised}`, `${foreign}, ${note}`]) {
      await mine({ "rungs-position": String(notes) });
      expect(asked).toEqual([undefined]);
    }
    // Whoever knows of no copies gives notes that name no revision, and believes the rest of those that do.
    await app.close();
    await open({ hasRevisions: false });
    const plain = await mine({ "rungs-position": String(signer.sign({ ...signer.read(note), seen: { 0: at(3) } })) });
    expect([asked, plain.body, signer.read(String(plain.header))]).toEqual([
      [undefined],
      at(3),
      { seen: { 0: at(3) } },
    ]);
  });

  it("may write by a safe method too, where their route says that it belongs to the leader", async () => {
    await reopenWithRevisions();
    const { token } = await sessions.start(randomUUID());
    const note = String((await ask("POST", "/data", bearer(token), {})).header);
    asked = [];
    expect((await ask("GET", "/confirm", { ...bearer(token), "rungs-position": note })).body).toBe("leader");
    expect(asked).toEqual([undefined]);
  });

  it("of browsers that were told of a new revision lately prove nothing, whichever cookie came last", async () => {
    await reopenWithRevisions();
    const signIn = await ask("POST", "/cookie", {}, {});
    const session = String(signIn.cookies.find((cookie) => cookie.startsWith("session="))).split(";")[0] as string;
    const textOf = (answer: Answer, name: string) => answer.cookies.find((cookie) => cookie.startsWith(`${name}=`));
    const first = await ask("GET", "/mine", { cookie: session });
    expect(textOf(first, "changed")).toBe("changed=1; Path=/; Max-Age=5; HttpOnly; SameSite=Lax");
    const position = String(textOf(first, "position")).split(";")[0];
    const cookie = `${session}; ${position}`;
    asked = [];
    const again = await ask("GET", "/idle", { cookie });
    expect([again.cookies, (await ask("GET", "/mine", { cookie })).cookies]).toEqual([[], []]);
    expect(asked).toEqual([signer.read(String(position).slice("position=".length))?.record?.revision]);
    const written = await ask("POST", "/data", { cookie }, {});
    expect(textOf(written, "changed")).toBeDefined();
    asked = [];
    await ask("GET", "/mine", { cookie: `${cookie}; changed=1` });
    expect(asked).toEqual([undefined]);
    // A page's script keeps the header; the pages that it loads bring the cookie.
    const byScript = await ask("POST", "/data", { cookie, "rungs-position": "x" }, {});
    expect([byScript.header === null, textOf(byScript, "changed") === undefined]).toEqual([false, false]);
    const renewed = await ask("POST", "/cookie", { cookie }, {});
    const token = String(textOf(renewed, "session")).split(";")[0]?.slice("session=".length) as string;
    const note = String(textOf(renewed, "position")).split(";")[0]?.slice("position=".length) as string;
    expect([signer.read(note)?.record?.session, textOf(renewed, "changed") === undefined]).toEqual([
      sessionName(token),
      false,
    ]);
  });

  it("say the revision alone when there are more shards than a note may name", async () => {
    await reopenWithRevisions();
    const { token } = await sessions.start(randomUUID());
    await sessions.noteSeen(token, Object.fromEntries(Array.from({ length: 300 }, (_, shard) => [shard, at(5)])));
    const { header } = await ask("GET", "/mine", bearer(token));
    expect(signer.read(String(header))).toEqual({ seen: {}, record: { session: sessionName(token), revision: 1 } });
    follower.lsn = 50n;
    await ask("GET", "/mine", { ...bearer(token), "rungs-position": String(header) });
    expect((await seenBy(token))?.["0"]).toBe(at(50));
  });

  it("stay in their unit while bodies of any size arrive, many at once", async () => {
    const { token } = await sessions.start(randomUUID());
    const sizes = Array.from({ length: 30 }, (_, index) => index * 20_000);
    const answers = await Promise.all(
      sizes.map((size) => ask("POST", "/write", bearer(token), { text: "x".repeat(size) })),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(demands)).toEqual(new Set(["leader"]));
  });
});
