/** The generated VCL on a real Varnish: what it keeps, what it lets go of, and what it refuses. */
import { stat } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { pino } from "pino";
import { createPurger, varnishCdn } from "rungs/cdn";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { shared, startEdge, type TestEdge } from "./support/edge.ts";
import { until } from "./support/orders.ts";
import { sendRaw } from "./support/raw.ts";

let edge: TestEdge;
let number = 0;
/** An address that no other test has asked for. */
const fresh = (rest = "") => `/page-${++number}${rest}`;
const countOf = (path: string) => edge.seen.filter(({ url }) => url.startsWith(path)).length;

beforeAll(async () => {
  edge = await startEdge();
}, 30_000);
afterAll(() => edge?.stop(), 20_000);
beforeEach(() => {
  let version = 0;
  edge.answer = (asked, response) => {
    version++;
    response.writeHead(200, shared("articles article:1")).end(`version ${version} of ${asked.url}`);
  };
});

describe("what is kept", () => {
  it("asks the app once for an answer that it shares, and tells no client of keys and times", async () => {
    const path = fresh();
    const first = await edge.ask(path);
    const second = await edge.ask(path);
    expect([first.headers["x-cache"], second.headers["x-cache"]]).toEqual(["miss", "hit"]);
    expect(second.body).toBe(first.body);
    expect(countOf(path)).toBe(1);
    expect(second.headers).toMatchObject({ "cache-control": "public, max-age=0, must-revalidate" });
    expect(Number(second.headers["age"])).toBeGreaterThanOrEqual(0);
    for (const name of ["xkey", "cdn-cache-control", "x-edge-life", "x-edge-swr", "via", "x-varnish"]) {
      expect(second.headers).not.toHaveProperty(name);
    }
  });

  it.each([
    ["without CDN-Cache-Control", { "cache-control": "public, max-age=600" }],
    ["with a cookie", { ...shared("a"), "set-cookie": "session=of-somebody" }],
    ["that is private", { ...shared("a"), "cache-control": "private, no-store" }],
    ["that varies by everything", { ...shared("a"), vary: "*" }],
  ])("keeps no answer %s", async (_what, headers) => {
    const path = fresh();
    edge.answer = (_asked, response) => response.writeHead(200, headers).end("once");
    await edge.ask(path);
    expect((await edge.ask(path)).headers["x-cache"]).toBe("miss");
    expect(countOf(path)).toBe(2);
  });

  it("neither gives a kept answer to a request with credentials nor keeps the answer to one", async () => {
    const path = fresh();
    await edge.ask(path);
    const credentials = [
      { cookie: "session=alice" },
      { authorization: "Token alice" },
      { cookie: "_ga=1; theme=dark" },
    ];
    for (const headers of credentials) expect((await edge.ask(path, { headers })).headers["x-cache"]).toBe("pass");
    expect(countOf(path)).toBe(4);
    expect((await edge.ask(path)).body).toContain("version 1 ");
    const other = fresh();
    await edge.ask(other, { headers: { cookie: "session=alice" } });
    expect((await edge.ask(other)).headers["x-cache"]).toBe("miss");
  });

  it("takes the cookies of measuring scripts for none, and shows the app none of them", async () => {
    const path = fresh();
    await edge.ask(path, { headers: { cookie: "_ga=GA1.2.3; _gid=4;_fbp=5" } });
    expect(edge.seen.at(-1)?.headers.cookie).toBeUndefined();
    expect((await edge.ask(path)).headers["x-cache"]).toBe("hit");
    await edge.ask(path, { headers: { cookie: "session=x; _ga=1" } });
    expect(edge.seen.at(-1)?.headers.cookie).toBe("session=x; _ga=1");
    const twoLines = "Cookie: _ga=1\r\nCookie: session=y\r\n";
    await sendRaw(edge.port, `GET ${path} HTTP/1.1\r\nHost: x\r\n${twoLines}Connection: close\r\n\r\n`);
    expect(edge.seen.at(-1)?.headers.cookie).toBe("_ga=1; session=y");
  });

  it("keeps files for signed-in visitors too, without their cookie", async () => {
    const path = `/assets${fresh()}.css`;
    const first = await edge.ask(path, { headers: { cookie: "session=alice" } });
    expect(first.headers["x-cache"]).toBe("miss");
    expect(edge.seen.at(-1)?.headers.cookie).toBeUndefined();
    expect((await edge.ask(path, { headers: { authorization: "Token bob" } })).headers["x-cache"]).toBe("hit");
  });

  it("sends one request to the app when 100 want the same page at once", async () => {
    const path = fresh();
    edge.answer = (_asked, response) => {
      setTimeout(() => response.writeHead(200, shared("a")).end("slow"), 300);
    };
    const answers = await Promise.all(Array.from({ length: 100 }, () => edge.ask(path)));
    expect(new Set(answers.map(({ status, body }) => `${status} ${body}`))).toEqual(new Set(["200 slow"]));
    expect(countOf(path)).toBe(1);
  });

  it("lets requests for what is not shared through side by side", async () => {
    const path = fresh();
    edge.answer = (_asked, response) => {
      setTimeout(() => response.writeHead(200, { "cache-control": "private, no-store" }).end("own"), 200);
    };
    await edge.ask(path);
    const since = performance.now();
    await Promise.all(Array.from({ length: 20 }, () => edge.ask(path)));
    expect(performance.now() - since).toBeLessThan(2_000);
  });

  it("answers 304 to a client that has it, and asks the app by its entity tag", async () => {
    const path = fresh();
    edge.answer = (asked, response) => {
      const isKnown = asked.headers["if-none-match"] === 'W/"one"';
      response.writeHead(isKnown ? 304 : 200, { ...shared("tagged"), etag: 'W/"one"' });
      response.end(isKnown ? "" : "content");
    };
    await edge.ask(path);
    const known = await edge.ask(path, { headers: { "if-none-match": 'W/"one"' } });
    expect([known.status, known.body, known.headers["etag"]]).toEqual([304, "", 'W/"one"']);
    await edge.purge("tagged");
    expect(await edge.ask(path)).toMatchObject({ status: 200, body: "content" });
    expect(edge.seen.at(-1)?.headers["if-none-match"]).toBe('W/"one"');
  });

  it("gives parts of a file, cold, warm and from its end", async () => {
    const path = `/media${fresh()}.mp4`;
    const content = "0123456789".repeat(1_000);
    edge.answer = (_asked, response) =>
      response.writeHead(200, { ...shared("film"), "content-length": content.length }).end(content);
    const part = async (range: string) => {
      const { status, headers, body } = await edge.ask(path, { headers: { range } });
      return [status, headers["content-range"], body];
    };
    expect(await part("bytes=5-9")).toEqual([206, "bytes 5-9/10000", "56789"]);
    expect(await part("bytes=10-12")).toEqual([206, "bytes 10-12/10000", "012"]);
    expect(await part("bytes=-3")).toEqual([206, "bytes 9997-9999/10000", "789"]);
    expect((await part("bytes=20000-"))[0]).toBe(416);
    expect(countOf(path)).toBe(1);
  });

  it("passes files through that would fill its memory, parts of them as well", async () => {
    const path = `/media${fresh()}.mp4`;
    edge.answer = (asked, response) => {
      if (asked.headers.range === "bytes=0-3") {
        return response.writeHead(206, { ...shared("film"), "content-range": "bytes 0-3/9000000" }).end("part");
      }
      response.writeHead(200, { ...shared("film"), "content-length": "9000000" }).end(Buffer.alloc(9_000_000, "x"));
    };
    expect((await edge.ask(path)).body).toHaveLength(9_000_000);
    expect(await edge.ask(path, { headers: { range: "bytes=0-3" } })).toMatchObject({ status: 206, body: "part" });
    expect(countOf(path)).toBe(2);
  });
});

describe("purges", () => {
  it("let go of every answer with the key, and of no other", async () => {
    const [a, b, c] = [fresh(), fresh(), fresh()];
    edge.answer = (asked, response) => response.writeHead(200, shared(asked.url === c ? "user:2" : "user:1")).end("x");
    for (const path of [a, b, c]) await edge.ask(path);
    await edge.purge("user:1");
    for (const path of [a, b, c]) await edge.ask(path);
    expect([a, b, c].map(countOf)).toEqual([2, 2, 1]);
  });

  it("show no reader the old answer while the app answers, and ask the app once for all who wait", async () => {
    const path = fresh();
    let version = 1;
    edge.answer = (_asked, response) => {
      const body = `version ${version}`;
      setTimeout(() => response.writeHead(200, shared("counted")).end(body), 100);
    };
    await edge.ask(path);
    version = 2;
    await edge.purge("counted");
    const answers = await Promise.all(Array.from({ length: 50 }, () => edge.ask(path)));
    expect(new Set(answers.map(({ body }) => body))).toEqual(new Set(["version 2"]));
    expect(countOf(path)).toBe(2);
  });

  it("are taken by the purge socket alone, with the secret", async () => {
    const path = fresh();
    await edge.ask(path);
    const raw = async (port: number, headers: string) =>
      (await sendRaw(port, `PURGE / HTTP/1.1\r\nHost: x\r\n${headers}Connection: close\r\n\r\n`)).statuses;
    const asked = "xkey-purge: articles\r\n";
    expect(await raw(edge.port, `${asked}x-purge-secret: ${edge.secret}\r\n`)).toEqual([405]);
    expect(await raw(edge.purgePort, asked)).toEqual([403]);
    expect(await raw(edge.purgePort, `${asked}x-purge-secret: wrong\r\n`)).toEqual([403]);
    expect((await edge.ask(path)).headers["x-cache"]).toBe("hit");
    expect(await raw(edge.purgePort, `${asked}x-purge-secret: ${edge.secret}\r\n`)).toEqual([200]);
    expect((await edge.ask(path)).headers["x-cache"]).toBe("miss");
  });

  it("hides the secret: in no argument, and in no file that others can read", async () => {
    for (const path of ["varnish", "varnish/edge.vcl"]) {
      expect([path, (await stat(join(edge.folder, path))).mode & 0o007]).toEqual([path, 0]);
    }
  });
});

describe("the race of a purge with an answer that is being made", () => {
  it("is won by the purge that is sent again", async () => {
    const path = fresh();
    let value = "old";
    let delayMs = 400;
    edge.answer = (_asked, response) => {
      const read = value;
      setTimeout(() => response.writeHead(200, shared("raced")).end(read), delayMs);
    };
    const cdn = varnishCdn({ addresses: [`http://127.0.0.1:${edge.purgePort}`], secret: edge.secret });
    const purger = createPurger({ cdn, log: pino({ level: "silent" }), repeatAfterMs: [1_000] });
    const early = edge.ask(path);
    await until(() => countOf(path) === 1);
    value = "new";
    delayMs = 0;
    purger.changed(["raced"]);
    await until(() => purger.stats().purgedKeys === 1);
    expect((await early).body).toBe("old");
    // The first purge came too soon: the old answer has been kept after it.
    expect((await edge.ask(path)).body).toBe("old");
    await until(async () => (await edge.ask(path)).body === "new");
    await purger.close();
    expect(purger.stats().purgedKeys).toBe(2);
  });
});

describe("HTTP", () => {
  it("answers HEAD from what GET brought, and the other way round", async () => {
    const path = fresh();
    const got = await edge.ask(path);
    const head = await edge.ask(path, { method: "HEAD" });
    expect([head.status, head.body, head.headers["x-cache"]]).toEqual([200, "", "hit"]);
    expect(head.headers["content-type"]).toBe(got.headers["content-type"]);
    const other = fresh();
    await edge.ask(other, { method: "HEAD" });
    expect((await edge.ask(other)).headers["x-cache"]).toBe("hit");
    expect(edge.seen.at(-1)?.method).toBe("GET");
  });

  it("says how old an answer is, and when it was made", async () => {
    const path = fresh();
    await edge.ask(path);
    await sleep(1_100);
    const { headers } = await edge.ask(path);
    expect(Number(headers["age"])).toBeGreaterThanOrEqual(1);
    expect(Date.parse(String(headers["date"]))).toBeGreaterThan(Date.now() - 10_000);
  });

  it("keeps variants apart that the app names in Vary", async () => {
    const path = fresh();
    edge.answer = (asked, response) =>
      response
        .writeHead(200, { ...shared("a"), vary: "Cookie, Authorization, Accept-Language" })
        .end(String(asked.headers["accept-language"]));
    const german = { "accept-language": "de" };
    await edge.ask(path, { headers: german });
    expect((await edge.ask(path, { headers: { "accept-language": "en" } })).body).toBe("en");
    expect(await edge.ask(path, { headers: german })).toMatchObject({ body: "de", headers: { "x-cache": "hit" } });
  });

  it("gives the whole when the part asked for belongs to another version (If-Range)", async () => {
    const path = fresh();
    edge.answer = (_asked, response) =>
      response.writeHead(200, { ...shared("a"), etag: '"v2"', "content-length": 10 }).end("0123456789");
    await edge.ask(path);
    const range = { range: "bytes=0-1" };
    expect((await edge.ask(path, { headers: { ...range, "if-range": '"v1"' } })).status).toBe(200);
    expect((await edge.ask(path, { headers: { ...range, "if-range": '"v2"' } })).status).toBe(206);
  });

  it("compresses for those who want it, from one copy", async () => {
    const path = fresh();
    const text = "words and words ".repeat(200);
    edge.answer = (asked, response) => {
      const isZipped = String(asked.headers["accept-encoding"]).includes("gzip");
      response.writeHead(200, { ...shared("a"), ...(isZipped ? { "content-encoding": "gzip" } : {}) });
      response.end(isZipped ? gzipSync(text) : text);
    };
    const zipped = await edge.ask(path, { headers: { "accept-encoding": "gzip, br" } });
    expect(zipped.headers["content-encoding"]).toBe("gzip");
    const plain = await edge.ask(path);
    expect([plain.headers["x-cache"], plain.headers["content-encoding"], plain.body]).toEqual(["hit", undefined, text]);
  });
});

describe("an app in trouble", () => {
  it("keeps showing old answers when it fails, asks it seldom, and shows the new one soon after", async () => {
    const path = fresh();
    let isBroken = false;
    edge.answer = (_asked, response) => {
      if (isBroken) return response.writeHead(503, { "cache-control": "no-store" }).end("broken");
      response.writeHead(200, shared("frail")).end("fine");
    };
    await edge.ask(path);
    isBroken = true;
    await edge.purge("frail");
    const answers = await Promise.all(Array.from({ length: 60 }, () => edge.ask(path)));
    expect(new Set(answers.map(({ status, body }) => `${status} ${body}`))).toEqual(new Set(["200 fine"]));
    expect(answers[0]?.headers["x-cache"]).toBe("stale");
    // The one that failed, and those in the background that were under way with it.
    expect(countOf(path)).toBeLessThanOrEqual(5);
    isBroken = false;
    edge.answer = (_asked, response) => response.writeHead(200, shared("frail")).end("mended");
    await sleep(1_100);
    expect((await edge.ask(path)).body).toBe("mended");
  });

  it("shows nobody half an answer that broke off, and keeps the old one", async () => {
    const path = fresh();
    await edge.ask(path);
    await edge.purge("articles");
    const half = (response: ServerResponse) => {
      response.writeHead(200, { ...shared("articles"), "content-length": 1_000 }).write("half of it");
      setTimeout(() => response.destroy(), 50);
    };
    edge.answer = (_asked, response) => half(response);
    expect(await edge.ask(path)).toMatchObject({ status: 200, headers: { "x-cache": "stale" } });
    const nothing = await edge.ask(fresh());
    expect([nothing.status, nothing.body.includes("half")]).toEqual([503, false]);
  });

  it("tells a failure when it has nothing old, and does not keep it", async () => {
    const path = fresh();
    edge.answer = (_asked, response) => response.writeHead(500, shared("a")).end("broken");
    expect(await edge.ask(path)).toMatchObject({ status: 500, body: "broken" });
    edge.answer = (_asked, response) => response.writeHead(200, shared("a")).end("fine");
    expect((await edge.ask(path)).body).toBe("fine");
  });

  it("shows old answers while it is gone, purged ones too, and asks others to come back", async () => {
    const path = fresh();
    await edge.ask(path);
    await edge.stopOrigin();
    await edge.purge("articles");
    expect(await edge.ask(path)).toMatchObject({ status: 200, headers: { "x-cache": "stale" } });
    const nothing = await edge.ask(fresh(), { headers: { accept: "text/html" } });
    expect(nothing).toMatchObject({ status: 503, headers: { "retry-after": "2", "cache-control": "no-store" } });
    expect(nothing.body).toContain("Back in a moment");
    expect(JSON.parse((await edge.ask(fresh())).body)).toHaveProperty("errors");
    await edge.untilHealthy(false);
    expect(await edge.ask(path)).toMatchObject({ status: 200, headers: { "x-cache": "stale" } });
    expect((await edge.ask(path, { headers: { cookie: "session=a" } })).status).toBe(503);
    await edge.startOrigin();
    await edge.untilHealthy(true);
    // An address whose refresh failed rests for a second.
    await sleep(1_100);
    expect((await edge.ask(path)).headers["x-cache"]).toBe("miss");
  }, 30_000);
});

describe("poisoning", () => {
  const lies = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-scheme": "nothttps",
    "x-forwarded-prefix": "/evil",
    "x-forwarded-port": "444",
    "x-original-url": "/admin",
    "x-rewrite-url": "/admin",
    "x-http-method-override": "POST",
    "x-host": "evil.example",
    forwarded: "host=evil.example",
    "x-edge-mode": "stale",
    "x-edge-inspect": "1",
  };

  it("shows the app no header that could change an answer without being part of its key", async () => {
    const path = fresh();
    const { headers } = await edge.ask(path, { headers: lies });
    const reached = edge.seen.at(-1)?.headers ?? {};
    for (const name of Object.keys(lies).filter((name) => !name.startsWith("x-edge"))) {
      expect(reached).not.toHaveProperty(name);
    }
    expect(headers).not.toHaveProperty("xkey");
    expect((await edge.ask(path)).headers["x-cache"]).toBe("hit");
  });

  it("says itself who asks, and by which scheme", async () => {
    await edge.ask(fresh(), { headers: { "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https" } });
    expect(edge.seen.at(-1)?.headers).toMatchObject({ "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http" });
  });

  it("keeps answers of another Host apart, and refuses one that is none", async () => {
    const path = fresh();
    await edge.ask(path, { headers: { host: "evil.example" } });
    expect((await edge.ask(path, { headers: { host: "good.example" } })).headers["x-cache"]).toBe("miss");
    expect((await edge.ask(path, { headers: { host: "GOOD.example" } })).headers["x-cache"]).toBe("hit");
    for (const host of ["a b", "a/../b", "x@evil.example", "<script>"]) {
      expect((await edge.ask(path, { headers: { host } })).status).toBe(400);
    }
    const two = await sendRaw(
      edge.port,
      `GET ${path} HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\nConnection: close\r\n\r\n`,
    );
    expect(two.statuses).toEqual([400]);
  });

  it("keeps one answer for a query in any order, without what advertisers add", async () => {
    const path = fresh();
    await edge.ask(`${path}?b=2&a=1&utm_source=mail&fbclid=x`);
    expect(edge.seen.at(-1)?.url).toBe(`${path}?a=1&b=2`);
    expect((await edge.ask(`${path}?a=1&b=2`)).headers["x-cache"]).toBe("hit");
    expect((await edge.ask(`${path}?gclid=y&a=1&b=2&`)).headers["x-cache"]).toBe("hit");
    expect((await edge.ask(`${path}?a=2&b=2`)).headers["x-cache"]).toBe("miss");
  });

  it("keeps nothing for a parameter that comes twice, and for a long address", async () => {
    const path = fresh();
    for (const query of ["?tag=a&tag=b", "?x&a=1&x", "?tag=a&b&tag", `?long=${"x".repeat(7_000)}`]) {
      expect((await edge.ask(`${path}${query}`)).headers["x-cache"]).toBe("pass");
      expect(edge.seen.at(-1)?.url).toBe(`${path}${query}`);
    }
    expect((await edge.ask(`${path}?tags=a&tag=b`)).headers["x-cache"]).toBe("miss");
  });

  it("takes no body with a GET into account", async () => {
    const path = fresh();
    const { text } = await sendRaw(
      edge.port,
      `GET ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil`,
    );
    expect(text).toContain("200 OK");
    expect(edge.seen.at(-1)?.headers["content-length"]).toBeUndefined();
  });
});

describe("deception", () => {
  it.each([
    "/../settings",
    "/a/..",
    "/a/%2e%2e/b",
    "/a/.%2E/b",
    "/a\\b",
    "/a%5cb",
    "/a%00.css",
    "/a%0d%0aSet-Cookie:x",
    "/a/..%2fb",
  ])("refuses %s", async (path) => {
    const before = edge.seen.length;
    expect((await edge.ask(path)).status).toBe(400);
    expect(edge.seen).toHaveLength(before);
  });

  it.each([";x.css", "%3bx.css", "%2fx.css", "//x.css", "%252e%252e%252fx.css"])(
    "keeps nothing under %s",
    async (end) => {
      const path = fresh(end);
      await edge.ask(path);
      expect((await edge.ask(path)).headers["x-cache"]).toBe("pass");
    },
  );

  it("keeps by what the app says, and not by how an address ends", async () => {
    const path = `${fresh()}/x.css`;
    edge.answer = (_asked, response) => response.writeHead(200, { "content-type": "text/css" }).end("mail of alice");
    await edge.ask(path, { headers: { cookie: "session=alice" } });
    edge.answer = (_asked, response) => response.writeHead(200, { "content-type": "text/css" }).end("nothing");
    expect((await edge.ask(path)).body).toBe("nothing");
  });

  it.each([
    ["two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n", "abcd"],
    [
      "a length and chunks",
      "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
      "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ["an odd coding", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"],
    [
      "a space before the colon",
      "Transfer-Encoding : chunked\r\n",
      "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ["a length with a sign", "Content-Length: +4\r\n", "abcd"],
  ])("smuggles no request by %s", async (_what, headers, body) => {
    const before = edge.seen.length;
    const { statuses } = await sendRaw(edge.port, `POST /x HTTP/1.1\r\nHost: x\r\n${headers}\r\n${body}`);
    expect(edge.seen.slice(before).map(({ url }) => url)).not.toContain("/smuggled");
    expect(statuses.every((status) => status >= 400)).toBe(true);
  });

  it("lets nothing through unread: other methods and upgrades", async () => {
    expect((await edge.ask("/x", { method: "TRACE" })).status).toBe(405);
    expect((await edge.ask("/x", { method: "PROPFIND" })).status).toBe(405);
    await edge.ask(fresh(), { headers: { connection: "upgrade", upgrade: "h2c" } });
    expect(edge.seen.at(-1)?.headers.upgrade).toBeUndefined();
    expect((await edge.ask("/metrics")).status).toBe(404);
    expect((await edge.ask("/metrics/x")).status).toBe(404);
  });
});

describe("behind a proxy that is trusted, for TLS", () => {
  let trusting: TestEdge;
  beforeAll(async () => {
    trusting = await startEdge({ trusted: ["127.0.0.0/8", "::1/128"] });
    trusting.answer = (asked, response) =>
      response.writeHead(200, shared("a")).end(String(asked.headers["x-forwarded-proto"]));
  }, 30_000);
  afterAll(() => trusting?.stop(), 20_000);

  it("believes what that says of client and scheme, and keeps the schemes apart", async () => {
    const said = { "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https" };
    expect((await trusting.ask("/", { headers: said })).body).toBe("https");
    expect(trusting.seen.at(-1)?.headers["x-forwarded-for"]).toBe("203.0.113.7, 127.0.0.1");
    expect((await trusting.ask("/")).body).toBe("http");
    expect(await trusting.ask("/", { headers: said })).toMatchObject({ body: "https", headers: { "x-cache": "hit" } });
    const odd = await trusting.ask("/", { headers: { "x-forwarded-proto": "gopher" } });
    expect([odd.body, odd.headers["x-cache"]]).toEqual(["http", "hit"]);
  });
});
