/** The web server under clients that are broken, slow, hostile or many: on Fastify and around a plain handler. */
import { createServer } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { afterEach, describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/kernel/errors.ts";
import { createMetrics } from "../../src/monitor/index.ts";
import { createWebServer } from "../../src/web/drivers/fastify-web.ts";
import { serveNode } from "../../src/web/drivers/node-web.ts";

interface Running {
  readonly url: string;
  readonly port: number;
  close(options?: { readonly readinessDelayMs?: number }): Promise<void>;
}

const silent = pino({ level: "silent" });
/** Requests to /fine that reached the handler. */
let takenUp = 0;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

interface Setup {
  readonly check?: () => Promise<unknown>;
  readonly requestTimeoutMs?: number;
}

const settings = ({ check, requestTimeoutMs = 30_000 }: Setup) => {
  const metrics = createMetrics();
  closers.push(async () => metrics.close());
  return {
    host: "127.0.0.1",
    port: 0,
    bodyLimitBytes: 1_000,
    requestTimeoutMs,
    log: silent,
    metrics,
    ...(check === undefined ? {} : { checks: [{ name: "database", check }] }),
  };
};

/** The same small app on both adapters: fine, slow, failing, unavailable, and an echo of JSON. */
const adapters: Record<string, (setup?: Setup) => Promise<Running>> = {
  fastify: async (setup = {}) => {
    const web = createWebServer(settings(setup));
    web.fastify.get("/fine", async () => {
      takenUp++;
      return { fine: true };
    });
    web.fastify.get("/slow", async () => sleep(300).then(() => ({ fine: true })));
    web.fastify.get("/broken", async () => {
      throw new Error("secret detail");
    });
    web.fastify.get("/full", async () => {
      throw new UnavailableError("POOL_EXHAUSTED", "secret detail", { canRetry: true });
    });
    web.fastify.post("/echo", async (request) => ({ body: request.body ?? null }));
    const url = await web.listen();
    return { url, port: Number(new URL(url).port), close: (options) => web.close(options) };
  },
  node: async (setup = {}) => {
    const web = serveNode(async (request, response) => {
      if (request.url === "/fine") takenUp++;
      if (request.url === "/slow") await sleep(300);
      if (request.url === "/broken") throw new Error("secret detail");
      if (request.url === "/full") throw new UnavailableError("POOL_EXHAUSTED", "secret detail", { canRetry: true });
      if (request.url !== "/fine" && request.url !== "/slow" && request.url !== "/echo")
        throw Object.assign(new Error(), { statusCode: 404 });
      request.resume().on("end", () => response.end('{"fine":true}'));
    }, settings(setup));
    const url = await web.listen();
    return { url, port: Number(new URL(url).port), close: (options) => web.close(options) };
  },
};

const start = async (make: (setup?: Setup) => Promise<Running>, setup?: Setup) => {
  const running = await make(setup);
  closers.push(() => running.close());
  return running;
};

/** Sends raw bytes and gives all that comes back until the server closes or `forMs` pass. */
async function raw(port: number, bytes: string | Buffer, forMs = 1_000): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  socket.on("error", () => {});
  socket.write(bytes);
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  await Promise.race([closed, sleep(forMs)]);
  socket.destroy();
  return text;
}

describe.each(Object.entries(adapters))("the web server on %s", (name, make) => {
  it("puts its headers and a request id on every kind of answer", async () => {
    const { url, port } = await start(make);
    for (const path of ["/fine", "/broken", "/full", "/nowhere", "/healthz", "/metrics"]) {
      const { headers } = await fetch(url + path);
      expect([path, headers.get("x-content-type-options"), headers.get("x-frame-options")]).toEqual([
        path,
        "nosniff",
        "DENY",
      ]);
      expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
      expect(headers.get("x-request-id")).toMatch(/^[\w.-]{1,64}$/);
    }
    expect(await raw(port, "NONSENSE\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [\s\S]*nosniff/i);
  });

  it("believes no request id or forwarded address of a stranger", async () => {
    const { url } = await start(make);
    const { headers } = await fetch(`${url}/fine`, {
      headers: { "x-request-id": "chosen", "x-forwarded-proto": "https" },
    });
    expect(headers.get("x-request-id")).not.toBe("chosen");
    expect(headers.get("strict-transport-security")).toBeNull();
  });

  it("tells the client nothing of a fault, and when to come back if that may help", async () => {
    const { url } = await start(make);
    const broken = await fetch(`${url}/broken`);
    expect([broken.status, await broken.text()]).toEqual([
      500,
      '{"errors":{"body":["something went wrong on our side"]}}',
    ]);
    const full = await fetch(`${url}/full`);
    expect([full.status, full.headers.get("retry-after"), (await full.text()).includes("secret")]).toEqual([
      503,
      "1",
      false,
    ]);
  });

  it("tells liveness from readiness, and names what fails", async () => {
    let isUp = true;
    const { url } = await start(make, { check: async () => (isUp ? 1 : Promise.reject(new Error("secret host"))) });
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    isUp = false;
    await sleep(550);
    const ready = await fetch(`${url}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([503, { status: "not ready", failing: ["database"] }]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it("does not wait for a check that hangs", async () => {
    const { url } = await start(make, { check: () => new Promise(() => {}) });
    const since = performance.now();
    expect((await fetch(`${url}/readyz`)).status).toBe(503);
    expect(performance.now() - since).toBeLessThan(2_000);
  });

  it("shows metrics to this machine only, and not through a proxy", async () => {
    const { url } = await start(make);
    await fetch(`${url}/fine`);
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(text).toMatch(/http_request_duration_seconds_count\{method="GET",route="[^"]+",status="200"\} 1/);
    for (const header of ["x-forwarded-for", "forwarded"]) {
      expect((await fetch(`${url}/metrics`, { headers: { [header]: "for=203.0.113.9" } })).status).toBe(404);
    }
  });

  it("refuses a body over the limit before it is sent", async () => {
    const { url } = await start(make);
    const response = await fetch(`${url}/echo`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify("x".repeat(5_000)),
    });
    expect(response.status).toBe(413);
  });

  it("lets a client that is still sending see why its body is refused", async () => {
    const { port } = await start(make);
    const bodyBytes = 400_000;
    for (let round = 0; round < 5; round++) {
      const socket = connect({ port, host: "127.0.0.1" });
      const broken = new Promise<never>((_, reject) => socket.once("error", reject));
      broken.catch(() => {});
      socket.write(
        `POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${bodyBytes}\r\n\r\n`,
      );
      // As a proxy does: all of it first, and only then a look at what came.
      for (let sent = 0; sent < bodyBytes; sent += 40_000) {
        await sleep(5);
        socket.write("x".repeat(40_000));
      }
      await sleep(20);
      const first = new Promise<string>((resolve) => socket.once("data", (part) => resolve(part.toString("latin1"))));
      expect((await Promise.race([first, broken])).slice(0, 12)).toBe("HTTP/1.1 413");
      socket.destroy();
    }
  });

  it.each([
    [
      "both lengths",
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ["two lengths", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"],
    ["a length that is no number", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4x\r\n\r\nabcd"],
    ["space before the colon", "GET /fine HTTP/1.1\r\nHost : x\r\n\r\n"],
    ["a folded header", "GET /fine HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"],
    [
      "headers without end",
      `GET /fine HTTP/1.1\r\nHost: x\r\n${"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1_000)}\r\n`,
    ],
    ["a NUL in a header", "GET /fine HTTP/1.1\r\nHost: x\r\nA: \u0000\r\n\r\n"],
  ])("refuses what could smuggle a second request: %s", async (_what, bytes) => {
    const { port } = await start(make);
    const answer = await raw(port, `${bytes}GET /fine HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
  });

  it("cuts off a client that sends its request byte by byte, while others are served", async () => {
    const { url, port } = await start(make, { requestTimeoutMs: 700 });
    const slow = raw(port, "GET /fine HTTP/1.1\r\nHost: x\r\nX-Slow: ", 5_000);
    expect((await fetch(`${url}/fine`)).status).toBe(200);
    expect(await slow).toMatch(/^HTTP\/1\.1 408 /);
  });

  it("finishes what is under way when it stops, tells the connection to close, and takes no new one", async () => {
    const running = await make();
    const slow = fetch(`${running.url}/slow`);
    await sleep(100);
    const since = performance.now();
    const closing = running.close();
    const response = await slow;
    expect([response.status, response.headers.get("connection")]).toEqual([200, "close"]);
    await closing;
    // And not only when the time for it is over.
    expect(performance.now() - since).toBeLessThan(8_000);
    await expect(fetch(`${running.url}/fine`)).rejects.toThrow();
  });

  it("answers every request it takes up while it stops, however many clients keep asking", async () => {
    const running = await make();
    const statuses: number[] = [];
    takenUp = 0;
    const clients = Array.from({ length: 8 }, async () => {
      for (let asked = 0; asked < 20_000; asked++) {
        // Fails once nobody listens; what was not taken up may be asked of another process.
        const response = await fetch(`${running.url}/fine`).catch(() => undefined);
        if (response === undefined) return;
        statuses.push(response.status);
        await response.text();
      }
    });
    await sleep(200);
    await running.close({ readinessDelayMs: 300 });
    await Promise.all(clients);
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(statuses.length).toBe(takenUp);
  });

  it("says in plain words that a port is taken", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => other.once("listening", resolve));
    const { port } = other.address() as { port: number };
    const base = settings({});
    const web = name === "fastify" ? createWebServer({ ...base, port }) : serveNode(() => {}, { ...base, port });
    await expect(web.listen()).rejects.toThrow(
      `Port ${port} on 127.0.0.1 is in use by another program. Choose another with PORT=<number>`,
    );
    other.close();
  });
});

describe("JSON bodies on fastify", () => {
  const post = (url: string, body: string | Uint8Array<ArrayBuffer>, type = "application/json") =>
    fetch(`${url}/echo`, { method: "POST", headers: { "content-type": type }, body });

  it("must be JSON, in UTF-8, without prototype tricks; an empty one is none", async () => {
    const { url } = await start(adapters["fastify"] as (setup?: Setup) => Promise<Running>);
    expect(await (await post(url, '{"a":"ä"}')).json()).toEqual({ body: { a: "ä" } });
    expect(await (await post(url, "")).json()).toEqual({ body: null });
    for (const body of [
      "{",
      "{'a':1}",
      '{"__proto__":{"x":1}}',
      '{"constructor":{"prototype":{"x":1}}}',
      new Uint8Array([34, 255, 34]),
    ]) {
      const response = await post(url, body);
      expect([body, response.status]).toEqual([body, 400]);
    }
    expect((await post(url, "a=b", "text/csv")).status).toBe(415);
    expect((await fetch(`${url}/%ff`)).status).toBe(400);
    expect((await fetch(`${url}/${"a".repeat(20_000)}`)).status).toBe(431);
  });
});

describe("behind a proxy, a server that stops", () => {
  const behindProxy = async () => {
    const web = createWebServer({ ...settings({}), trustProxy: ["loopback"] });
    web.fastify.get("/fine", async () => ({ fine: true }));
    web.fastify.get("/slow", async () => sleep(300).then(() => ({ fine: true })));
    return { web, port: Number(new URL(await web.listen()).port) };
  };

  /** One keep-alive connection, as a proxy holds it in its pool. */
  async function pooled(port: number) {
    const socket = connect({ port, host: "127.0.0.1" });
    let text = "";
    let endedMs: number | undefined;
    socket.setEncoding("latin1").on("data", (part) => {
      text += part;
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      endedMs = performance.now();
    });
    const ask = async (path: string) => {
      text = "";
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
      for (let tries = 0; !text.includes('{"fine":true}'); tries++) {
        if (endedMs !== undefined || tries > 500) throw new Error(`no answer: ${text}`);
        await sleep(10);
      }
      return text.toLowerCase();
    };
    return { ask, endedMs: () => endedMs, destroy: () => socket.destroy() };
  }

  it("refuses new connections at once and answers on those there are, each for the last time", async () => {
    const { web, port } = await behindProxy();
    const [idle, busy, unused] = [await pooled(port), await pooled(port), await pooled(port)];
    for (const connection of [idle, busy, unused]) expect(await connection.ask("/fine")).toContain("keep-alive");
    const slow = busy.ask("/slow");
    await sleep(50);
    const since = performance.now();
    const closing = web.close();
    await sleep(10);
    await expect(fetch(`http://127.0.0.1:${port}/fine`)).rejects.toThrow();
    // Under way since before the drain: its connection must not go back to the pool either.
    expect(await slow).toContain("connection: close");
    // A request that comes on an idle connection long after the drain began is still answered.
    await sleep(1_500);
    expect(await idle.ask("/fine")).toContain("connection: close");
    await closing;
    const tookMs = performance.now() - since;
    expect(tookMs).toBeGreaterThan(2_400);
    expect(tookMs).toBeLessThan(4_000);
    // The one that stayed idle was closed only when its proxy would have done so.
    await sleep(20);
    expect((unused.endedMs() ?? 0) - since).toBeGreaterThan(2_400);
  });

  it("does not wait when nobody is connected", async () => {
    const { web } = await behindProxy();
    const since = performance.now();
    await web.refuse();
    await web.close();
    expect(performance.now() - since).toBeLessThan(1_000);
  });
});
