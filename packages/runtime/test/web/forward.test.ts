/** Writes that arrive in one region and are carried out in another: over real connections, both ways as they come. */
import { createHash, randomBytes } from "node:crypto";
import { type ClientRequest, createServer as createHttpServer, type IncomingMessage, request } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "@rungs/contract/until";
import type { FastifyInstance } from "fastify";
import { afterEach, describe, expect, it } from "vitest";
import { forwardSigner } from "../../src/web/forward-signature.ts";
import { startRegion, type TestRegion, testKeys } from "./support/two-regions.ts";

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** What reached the handlers of a region. */
interface Seen {
  readonly requests: Record<string, unknown>[];
  bytes: number;
  aborted: number;
  readonly release: (() => void)[];
}

function routesOf(seen: Seen, name: string): (fastify: FastifyInstance) => void {
  return (fastify) => {
    fastify.addContentTypeParser("application/octet-stream", (_request, payload, done) => done(null, payload));
    fastify.route({
      method: ["GET", "POST", "PUT", "DELETE"],
      url: "/show",
      handler: async (request, reply) => {
        const { ip, protocol, host, hostname, port, id, headers, body } = request;
        seen.requests.push({ ip, protocol, host, hostname, port, id, headers, body });
        reply.header("set-cookie", "a=1").header("set-cookie", "b=2").header("x-odd", "caf\u00e9");
        return { region: name, ip, protocol, host, body: body ?? null };
      },
    });
    fastify.post("/here", { config: { region: "here" } }, async () => name);
    fastify.get("/leader", { config: { region: "leader" } }, async () => name);
    fastify.post("/long", { bodyLimit: 1e9 }, async (request) => {
      const hash = createHash("sha256");
      request.raw.once("close", () => {
        if (!request.raw.complete) seen.aborted++;
      });
      for await (const chunk of request.body as AsyncIterable<Buffer>) {
        seen.bytes += chunk.length;
        hash.update(chunk);
      }
      return { region: name, bytes: seen.bytes, hash: hash.digest("hex") };
    });
    fastify.post("/events", async (_request, reply) => {
      reply.hijack();
      reply.raw.writeHead(200, { "content-type": "text/event-stream" });
      reply.raw.flushHeaders();
      for (let number = 0; number < 3; number++) {
        await new Promise<void>((resolve) => seen.release.push(resolve));
        reply.raw.write(`data: ${number}\n\n`);
      }
      reply.raw.end();
    });
    fastify.post("/download", async (_request, reply) => {
      reply.hijack();
      reply.raw.writeHead(200, { "content-type": "application/octet-stream" });
      reply.raw.once("close", () => {
        if (!reply.raw.writableFinished) seen.aborted++;
      });
      const chunk = Buffer.alloc(65_536, 1);
      while (seen.bytes < 200 * 1_048_576 && !reply.raw.destroyed) {
        seen.bytes += chunk.length;
        reply.raw.write(chunk);
        while (reply.raw.writableNeedDrain && !reply.raw.destroyed) await sleep(5);
      }
      reply.raw.end();
    });
  };
}

const newSeen = (): Seen => ({ requests: [], bytes: 0, aborted: 0, release: [] });

/** A region with the leader, and a far one. */
async function startPair(options: { readonly addressPerMinute?: number; readonly answerMs?: number } = {}) {
  const near = newSeen();
  const far = newSeen();
  const eu = await startRegion({
    name: "eu",
    leader: "eu",
    others: new Map(),
    routes: routesOf(near, "eu"),
    ...options,
  });
  closers.push(() => eu.close());
  const us = await startFar(eu.url, far, options);
  return { eu, us, near, far };
}

async function startFar(
  url: string,
  seen = newSeen(),
  options: Partial<Parameters<typeof startRegion>[0]> = {},
): Promise<TestRegion> {
  const others = new Map([["eu", url]]);
  const us = await startRegion({
    ...{ name: "us", leader: "eu", others, routes: routesOf(seen, "us"), trustProxy: ["127.0.0.1"] },
    ...options,
  });
  closers.push(() => us.close());
  return us;
}

/** What clients behind a balancer that ends TLS send. */
const outside = {
  "x-forwarded-for": "203.0.113.7",
  "x-forwarded-proto": "https",
  "x-forwarded-host": "shop.example:8443",
  "content-type": "application/json",
};

function open(url: string, headers: Record<string, string>): { sent: ClientRequest; answer: Promise<IncomingMessage> } {
  const sent = request(url, { method: "POST", headers, agent: false });
  const answer = new Promise<IncomingMessage>((resolve, reject) =>
    sent.once("response", resolve).once("error", reject),
  );
  answer.catch(() => {});
  sent.on("error", () => {});
  return { sent, answer };
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of answer.setEncoding("utf8")) text += chunk;
  return text;
}

/** A server at which the test does as it likes; gives its address and the connections that were made. */
async function listen(server: Server): Promise<{ readonly url: string; readonly sockets: Socket[] }> {
  const sockets: Socket[] = [];
  server.on("connection", (socket) => sockets.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

describe("a write in the far region", () => {
  it("is carried out at the leader's, where everything is as the client said it", async () => {
    const { eu, us, near, far } = await startPair();
    const answer = await fetch(`${us.url}/show?draft=1`, {
      method: "POST",
      headers: { ...outside, cookie: "session=1", "x-request-id": "from-balancer", "rungs-position": "n1" },
      body: '{"a":1}',
    });
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual({
      ...{ region: "eu", ip: "203.0.113.7", protocol: "https", host: "shop.example:8443", body: { a: 1 } },
    });
    expect(answer.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
    const direct = await fetch(`${eu.url}/show`, { method: "POST" });
    expect(answer.headers.get("x-odd")).toBe(direct.headers.get("x-odd"));
    expect(answer.headers.get("x-request-id")).toBe("from-balancer");
    expect(answer.headers.get("strict-transport-security")).toContain("max-age");
    expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
    expect(far.requests).toEqual([]);
    const [{ headers, ...seen } = {}] = near.requests;
    expect(seen).toEqual({
      ...{ ip: "203.0.113.7", protocol: "https", host: "shop.example:8443", hostname: "shop.example", port: 8443 },
      ...{ id: "from-balancer", body: { a: 1 } },
    });
    expect(headers).toMatchObject({ cookie: "session=1", "rungs-position": "n1", host: "shop.example:8443" });
    expect(headers).not.toHaveProperty("rungs-forwarded");
    expect(us.outcomes).toEqual({ answered: 1 });
  });

  it("of any unsafe method goes there, with and without a body; safe ones stay", async () => {
    const { us } = await startPair();
    const regionOf = async (method: string) =>
      ((await (await fetch(`${us.url}/show`, { method })).json()) as { region: string }).region;
    expect(await regionOf("GET")).toBe("us");
    expect(await regionOf("POST")).toBe("eu");
    expect(await regionOf("DELETE")).toBe("eu");
    expect(await regionOf("PUT")).toBe("eu");
  });

  it("stays where its route says so, and a read goes where its route says so", async () => {
    const { us } = await startPair();
    expect(await (await fetch(`${us.url}/here`, { method: "POST" })).text()).toBe("us");
    expect(await (await fetch(`${us.url}/leader`)).text()).toBe("eu");
  });

  it("goes over connections that stay open", async () => {
    const seen: string[] = [];
    const server = createHttpServer((incoming, response) => {
      seen.push(incoming.url ?? "");
      incoming.resume().once("end", () => response.end("there"));
    });
    const { url, sockets } = await listen(server);
    const us = await startFar(url);
    for (let number = 0; number < 20; number++) {
      const answer = await fetch(`${us.url}/show`, {
        method: "POST",
        body: "{}",
        headers: { "content-type": "application/json" },
      });
      expect(await answer.text()).toBe("there");
    }
    expect(seen).toHaveLength(20);
    expect(sockets.length).toBe(1);
  });

  it("tells of itself before its answer goes back", async () => {
    const { eu } = await startPair();
    const order: string[] = [];
    let go = () => {};
    const us = await startFar(eu.url, newSeen(), {
      async onForward() {
        order.push("told");
        await new Promise<void>((resolve) => {
          go = resolve;
        });
        order.push("noted");
      },
    });
    const answered = fetch(`${us.url}/show`, { method: "POST" }).then(() => order.push("answered"));
    await until("the request is told of", async () => order.length === 1);
    await sleep(50);
    go();
    await answered;
    expect(order).toEqual(["told", "noted", "answered"]);
  });
});

describe("bodies", () => {
  it("stream up as they come, and are neither kept nor parsed on the way", async () => {
    const { us, near } = await startPair();
    const { sent, answer } = open(`${us.url}/long`, { ...outside, "content-type": "application/octet-stream" });
    const hash = createHash("sha256");
    let bytes = 0;
    for (let number = 0; number < 5; number++) {
      const chunk = randomBytes(100_000);
      hash.update(chunk);
      bytes += chunk.length;
      sent.write(chunk);
      // The next part is sent only when this one is there.
      await until("the part has arrived", async () => near.bytes === bytes);
    }
    for (let number = 0; number < 64; number++) {
      const chunk = randomBytes(1_048_576);
      hash.update(chunk);
      bytes += chunk.length;
      if (!sent.write(chunk)) await new Promise((resolve) => sent.once("drain", resolve));
    }
    sent.end();
    expect(JSON.parse(await textOf(await answer))).toEqual({ region: "eu", bytes, hash: hash.digest("hex") });
  });

  it("of a declared length keep it", async () => {
    const { us } = await startPair();
    const body = randomBytes(3_000_000);
    const answer = await fetch(`${us.url}/long`, {
      ...{ method: "POST", body, headers: { "content-type": "application/octet-stream" } },
    });
    const hash = createHash("sha256").update(body).digest("hex");
    expect(await answer.json()).toEqual({ region: "eu", bytes: body.length, hash });
  });

  it("wait for 100 Continue no longer than anywhere else", async () => {
    const { us } = await startPair();
    const { sent, answer } = open(`${us.url}/long`, {
      ...{ expect: "100-continue", "content-length": "5", "content-type": "application/octet-stream" },
    });
    await new Promise((resolve) => sent.once("continue", resolve).flushHeaders());
    sent.end("12345");
    expect(JSON.parse(await textOf(await answer))).toMatchObject({ region: "eu", bytes: 5 });
  });

  it("of answers come down as they are made", async () => {
    const { us, near } = await startPair();
    const { sent, answer } = open(`${us.url}/events`, outside);
    sent.end("{}");
    const events = await answer;
    expect(events.headers["content-type"]).toBe("text/event-stream");
    let text = "";
    const ended = new Promise((resolve) => events.once("end", resolve));
    events.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
    for (let number = 0; number < 3; number++) {
      await until("the next event is due", async () => near.release.length === number + 1);
      near.release[number]?.();
      await until("the event has come", async () => text.endsWith(`data: ${number}\n\n`));
    }
    await ended;
  });

  it("of answers wait for a client that reads slowly, and end with it", async () => {
    const { us, near } = await startPair();
    const { sent, answer } = open(`${us.url}/download`, outside);
    sent.end("{}");
    const incoming = await answer;
    incoming.pause();
    let before = -1;
    await until("nothing more is made", async () => {
      const isStill = near.bytes === before;
      before = near.bytes;
      await sleep(200);
      return isStill;
    });
    expect(near.bytes).toBeLessThan(64 * 1_048_576);
    sent.destroy();
    await until("the maker hears of it", async () => near.aborted === 1);
    await until("it is counted", async () => us.outcomes["abandoned"] === 1);
  });

  it("that their client breaks off are broken off there", async () => {
    const { us, near } = await startPair();
    const { sent } = open(`${us.url}/long`, { "content-type": "application/octet-stream" });
    sent.write(randomBytes(100_000));
    await until("the beginning has arrived", async () => near.bytes === 100_000);
    sent.destroy();
    await until("the end is heard of", async () => near.aborted === 1);
    await until("it is counted", async () => us.outcomes["abandoned"] === 1);
  });

  it("that are refused halfway are answered, and cost no connection of others", async () => {
    const { us } = await startPair();
    const body = Buffer.alloc(5_000_000, 32);
    const answer = await fetch(`${us.url}/show`, { method: "POST", body, headers: outside });
    expect(answer.status).toBe(413);
    expect(await answer.json()).toEqual({ errors: { body: ["is too large"] } });
    expect((await fetch(`${us.url}/show`, { method: "POST", body: "{}", headers: outside })).status).toBe(200);
  });
});

describe("a region that is away", () => {
  it("has its writes refused with a time to come back, and gets none of them", async () => {
    const { eu, us } = await startPair();
    await eu.close();
    const answer = await fetch(`${us.url}/show`, { method: "POST", body: "{}", headers: outside });
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(await answer.json()).toEqual({ errors: { body: ["temporarily unavailable; please try again"] } });
    expect((await fetch(`${us.url}/show`)).status).toBe(200);
    expect(us.outcomes).toEqual({ undelivered: 1 });
  });

  it("loses them to where the leader is now, body and all, within the same request", async () => {
    const { eu, us } = await startPair();
    await eu.close();
    us.foundByAsking = "us";
    const answer = await fetch(`${us.url}/show`, { method: "POST", body: '{"a":1}', headers: outside });
    expect(await answer.json()).toMatchObject({ region: "us", body: { a: 1 } });
    // From then on without the detour.
    await fetch(`${us.url}/show`, { method: "POST", body: "{}", headers: outside });
    expect(us.outcomes).toEqual({ undelivered: 1 });
  });

  it("is spared what would be refused anyhow, once it has failed often", async () => {
    const { eu, us } = await startPair();
    await eu.close();
    const asked = async () => (await fetch(`${us.url}/show`, { method: "POST", body: "{}", headers: outside })).status;
    for (let number = 0; number < 30; number++) expect(await asked()).toBe(503);
    expect(us.outcomes).toEqual({ undelivered: 30 });
    expect(["open", "halfOpen"]).toContain(us.breakerState("eu"));
  });

  it("that answers nothing is given up, and nobody sends the request twice", async () => {
    let requests = 0;
    const { url, sockets } = await listen(createServer((socket) => socket.on("data", () => requests++)));
    const us = await startFar(url, newSeen(), { answerMs: 300 });
    us.foundByAsking = "us";
    const answer = await fetch(`${us.url}/show`, { method: "POST" });
    expect(answer.status).toBe(503);
    expect(us.outcomes).toEqual({ unknown: 1 });
    expect([requests, sockets.length]).toEqual([1, 1]);
  });

  it("that breaks the connection once the request was sent may have done it: said, and not sent twice", async () => {
    let requests = 0;
    const { url } = await listen(
      createServer((socket) => {
        socket.on("data", () => {
          requests++;
          socket.destroy();
        });
      }),
    );
    const us = await startFar(url);
    us.foundByAsking = "us";
    expect((await fetch(`${us.url}/show`, { method: "POST" })).status).toBe(503);
    expect(us.outcomes).toEqual({ unknown: 1 });
    expect(requests).toBe(1);
  });

  it("that breaks off its answer has it broken off for the client too", async () => {
    const { url } = await listen(
      createServer((socket) => {
        socket.on("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
      }),
    );
    const us = await startFar(url);
    const answer = await fetch(`${us.url}/show`, { method: "POST" });
    await expect(answer.text()).rejects.toThrow();
    await until("it is counted", async () => us.outcomes["unknown"] === 1);
  });
});

describe("whoever says that a request was forwarded", () => {
  const facts = { from: "us", requestId: "r", address: "10.0.0.1", protocol: "https", host: "evil" } as const;
  const show = { method: "POST", url: "/show" };
  const ask = (url: string, header: string) =>
    fetch(`${url}/show`, { method: "POST", headers: { "rungs-forwarded": header } });

  it("and cannot sign it is refused, in every region", async () => {
    const { eu, us, near, far } = await startPair();
    const forged = forwardSigner({ keys: { newest: () => ({ id: "regions", secret: Buffer.alloc(32, 1) }) } });
    for (const { url } of [eu, us]) {
      for (const header of ["", "us", forged(show, facts, "eu")]) {
        const answer = await ask(url, header);
        expect(answer.status).toBe(401);
        expect(answer.headers.get("rungs-forwarded")).toBe("denied");
      }
    }
    expect([...near.requests, ...far.requests]).toEqual([]);
    expect(eu.refusals.get("forged")).toBe(1);
  });

  it("by what was signed for another request, region or time is refused", async () => {
    const { eu, near } = await startPair();
    const sign = forwardSigner({ keys: testKeys });
    const header = sign(show, facts, "eu");
    expect((await ask(eu.url, header)).status).toBe(200);
    expect((await ask(eu.url, header)).status).toBe(401);
    expect((await ask(eu.url, sign({ ...show, url: "/other" }, facts, "eu"))).status).toBe(401);
    expect((await ask(eu.url, sign(show, facts, "us"))).status).toBe(401);
    const past = { now: () => Date.now() - 60_000, monotonic: () => 0 };
    expect((await ask(eu.url, forwardSigner({ keys: testKeys, clock: past })(show, facts, "eu"))).status).toBe(401);
    expect(near.requests).toHaveLength(1);
    expect(Object.fromEntries(eu.refusals)).toEqual({ replayed: 1, forged: 1, "another region": 1, expired: 1 });
  });

  it("and is no member of the app's network gets no answer that looks like one", async () => {
    const denying = createHttpServer((_request, response) =>
      response.writeHead(401, { "rungs-forwarded": "denied" }).end(),
    );
    const { url } = await listen(denying);
    const us = await startFar(url);
    const answer = await fetch(`${us.url}/show`, { method: "POST" });
    expect(answer.status).toBe(503);
    expect(answer.headers.get("rungs-forwarded")).toBeNull();
    expect(us.outcomes).toEqual({ denied: 1 });
  });
});

it("two regions that each take the other for the leader's carry out what they are handed, and go in no circle", async () => {
  const seen = { eu: newSeen(), us: newSeen() };
  // Each needs the other's address before it starts: the first is told of a relay.
  let target = "";
  const relay = createHttpServer((incoming, response) => {
    const { method, rawHeaders } = incoming;
    const onward = request(`${target}${incoming.url}`, { method, headers: rawHeaders as never }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.rawHeaders as never);
      answer.pipe(response);
    });
    incoming.pipe(onward);
  });
  const { url } = await listen(relay);
  const eu = await startRegion({
    name: "eu",
    leader: "us",
    others: new Map([["us", url]]),
    routes: routesOf(seen.eu, "eu"),
  });
  closers.push(() => eu.close());
  const us = await startFar(eu.url, seen.us);
  target = us.url;
  const ask = async (at: string) =>
    await (await fetch(`${at}/show`, { method: "POST", body: "{}", headers: outside })).json();
  expect(await ask(us.url)).toMatchObject({ region: "eu" });
  expect(await ask(eu.url)).toMatchObject({ region: "us" });
  expect([seen.eu.requests.length, seen.us.requests.length]).toEqual([1, 1]);
});

it("limits of the client are those of the region where it arrives, and count once", async () => {
  const { eu, us } = await startPair({ addressPerMinute: 4 });
  const ask = (url: string, from: string) =>
    fetch(`${url}/show`, { method: "POST", body: "{}", headers: { ...outside, "x-forwarded-for": from } });
  const statuses: number[] = [];
  for (let number = 0; number < 6; number++) statuses.push((await ask(us.url, "203.0.113.7")).status);
  expect(statuses).toEqual([200, 200, 200, 200, 429, 429]);
  const another = await ask(us.url, "203.0.113.8");
  expect(another.status).toBe(200);
  expect(another.headers.get("ratelimit")).toMatch(/^"address";r=3/);
  // Nothing was counted against the far region's process.
  for (let number = 0; number < 4; number++) expect((await ask(eu.url, "")).status).toBe(200);
  expect((await ask(eu.url, "")).status).toBe(429);
});

it("a region that drains ends the connections of the answers it hands on", async () => {
  const { us, near } = await startPair();
  const { sent, answer } = open(`${us.url}/events`, { ...outside, connection: "keep-alive" });
  sent.end("{}");
  await until("the answer has begun there", async () => near.release.length === 1);
  const upload = { "content-type": "application/octet-stream", connection: "keep-alive" };
  const other = open(`${us.url}/long`, upload);
  other.sent.write("1");
  await until("the other request has arrived there", async () => near.bytes === 1);
  void us.web.refuse();
  other.sent.end("2");
  expect((await other.answer).headers.connection).toBe("close");
  for (let number = 0; number < 3; number++) {
    await until("the next event is due", async () => near.release.length === number + 1);
    near.release[number]?.();
  }
  expect(await textOf(await answer)).toContain("data: 2");
});
