/** Clients that lie, smuggle, dawdle or send too much, against nginx as rungs up configures it. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RawAnswer, sendRaw } from "./support/raw.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

let stack: RunningStack;
/** Under way while other tests go on. */
let slow: Promise<readonly RawAnswer[]> | undefined;
beforeAll(async () => {
  stack = await startStackApp(["--rung", "2", "--processes", "2"]);
}, 60_000);
afterAll(() => stack?.dispose(), 30_000);

interface Mirror {
  readonly ip: string;
  readonly host: string;
  readonly protocol: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly helper: string | null;
}
const mirror = async (headers: Record<string, string> = {}) =>
  (await (await fetch(`${stack.app}/mirror`, { headers })).json()) as Mirror;

describe("forwarded headers", () => {
  it("are the balancer's own words, whatever the client claims", async () => {
    const lies = {
      "x-forwarded-for": "6.6.6.6, 7.7.7.7",
      "x-forwarded-host": "evil.example",
      "x-forwarded-proto": "https",
      "x-real-ip": "6.6.6.6",
      forwarded: "for=6.6.6.6;host=evil.example",
      "x-original-url": "/admin",
      "x-rewrite-url": "/admin",
      "x-forwarded-prefix": "/evil",
      "x-request-id": "chosen-by-the-client",
    };
    const seen = await mirror(lies);
    expect(seen).toMatchObject({ ip: "127.0.0.1", host: `127.0.0.1:${stack.port}`, protocol: "http" });
    expect(seen.headers).toMatchObject({
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-host": `127.0.0.1:${stack.port}`,
      "x-forwarded-proto": "http",
      "x-real-ip": "127.0.0.1",
    });
    expect(JSON.stringify(seen)).not.toMatch(/6\.6\.6\.6|evil|admin|chosen/);
  });

  it("carry an id that the answer and the access log show too", async () => {
    const response = await fetch(`${stack.app}/read`);
    const id = response.headers.get("x-request-id") ?? "";
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    await sleep(1_200);
    const { stdout } = await stack.run("logs", "balancer-access", "--lines", "50");
    expect(stdout).toContain(id);
  });

  it("do not hand an upgrade on that is no websocket", async () => {
    const { headers } = await mirror({ "x-other": "1" });
    expect(headers["upgrade"]).toBeUndefined();
    const raw = await sendRaw(
      stack.port,
      "GET /mirror HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    );
    expect(raw.statuses).toEqual([200]);
    expect(raw.text.toLowerCase()).not.toContain('"upgrade"');
  });
});

/** What a smuggler wants to be taken for a request of its own. */
const hidden = "GET /read?smuggled=1 HTTP/1.1\r\nHost: a\r\n\r\n";

describe("request smuggling", () => {
  it.each([
    [
      "CL.TE",
      `POST /write?id=s1 HTTP/1.1\r\nHost: a\r\nContent-Length: ${5 + hidden.length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    ],
    [
      "TE.CL",
      `POST /write?id=s2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`,
    ],
    [
      "two lengths",
      `POST /write?id=s3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
    ],
    [
      "two encodings",
      `POST /write?id=s4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${hidden}`,
    ],
    [
      "an encoding that is none",
      `POST /write?id=s5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
    ],
    [
      "a blank before the colon",
      `POST /write?id=s6 HTTP/1.1\r\nHost: a\r\nContent-Length : ${hidden.length}\r\n\r\n${hidden}`,
    ],
    [
      "a folded header",
      `POST /write?id=s7 HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n${hidden}`,
    ],
    [
      "a length with a sign",
      `POST /write?id=s8 HTTP/1.1\r\nHost: a\r\nContent-Length: +${hidden.length}\r\n\r\n${hidden}`,
    ],
    ["no host", "GET /read HTTP/1.1\r\n\r\n"],
    ["two hosts", "GET /read HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"],
    ["a control character in the line", "GET /read\x01 HTTP/1.1\r\nHost: a\r\n\r\n"],
  ])("%s is refused, and the connection closed", async (_name, bytes) => {
    const { statuses, closedMs } = await sendRaw(stack.port, bytes);
    expect(statuses).toHaveLength(1);
    expect([400, 501]).toContain(statuses[0]);
    expect(closedMs).toBeDefined();
  });

  it("sees a pipelined request as what it is: the probe would show a second answer", async () => {
    const { statuses } = await sendRaw(stack.port, `GET /read HTTP/1.1\r\nHost: a\r\n\r\n${hidden}`);
    expect(statuses).toEqual([200, 200]);
  });

  it("leaves no trace for the next client", async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => fetch(`${stack.app}/mirror`)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  });
});

describe("clients that send too much, or too slowly", () => {
  it("a header that is too long is refused, one within the limit is not", async () => {
    const request = (bytes: number) => `GET /read HTTP/1.1\r\nHost: a\r\nX-Long: ${"x".repeat(bytes)}\r\n\r\n`;
    expect((await sendRaw(stack.port, request(7_000))).statuses).toEqual([200]);
    expect((await sendRaw(stack.port, request(9_000))).statuses).toEqual([400]);
    const many = Array.from({ length: 6 }, (_, index) => `X-${index}: ${"x".repeat(7_000)}\r\n`).join("");
    expect((await sendRaw(stack.port, `GET /read HTTP/1.1\r\nHost: a\r\n${many}\r\n`)).statuses).toEqual([400]);
    expect((await sendRaw(stack.port, `GET /${"a".repeat(9_000)} HTTP/1.1\r\nHost: a\r\n\r\n`)).statuses).toEqual([
      414,
    ]);
  });

  it("a body over the limit is refused before it is sent, and uploads have a limit of their own", async () => {
    const head = (path: string, bytes: number) =>
      `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes}\r\n\r\n`;
    expect((await sendRaw(stack.port, head("/write?id=big", 1_100_000))).statuses).toEqual([413]);
    expect((await sendRaw(stack.port, head("/uploads", 2_200_000))).statuses).toEqual([413]);
    const upload = await fetch(`${stack.app}/uploads`, {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: new Uint8Array(1_900_000),
    });
    expect(await upload.json()).toMatchObject({ bytes: 1_900_000 });
  });

  it("says that a connection ends whose upload the app refused before it was whole", async () => {
    const body = new Uint8Array(1_900_000);
    for (let round = 0; round < 5; round++) {
      const refused = await fetch(`${stack.app}/uploads/closed`, {
        method: "POST",
        headers: { "content-type": "application/octet-stream" },
        body,
      });
      expect([refused.status, refused.headers.get("connection")]).toEqual([403, "close"]);
      // A POST is not sent again by any client: over a connection that the balancer closes, it would fail.
      const next = await fetch(`${stack.app}/write?id=after-refusal-${round}`, { method: "POST" });
      expect(next.ok).toBe(true);
    }
    expect((await fetch(`${stack.app}/uploads/closed`)).headers.get("connection")).not.toBe("close");
  });

  it("streams an upload to the app while the client still sends it", async () => {
    const body = "x".repeat(10);
    const head =
      "POST /uploads HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/octet-stream\r\nContent-Length: 40\r\n\r\n";
    const { text } = await sendRaw(stack.port, head + body, { drip: body, everyMs: 200, withinMs: 5_000 });
    const { bytes, spreadMs } = JSON.parse(text.slice(text.indexOf("{"))) as { bytes: number; spreadMs: number };
    expect(bytes).toBe(40);
    expect(spreadMs).toBeGreaterThan(300);
  });

  it("ones that send their headers byte by byte cost others nothing", async () => {
    slow = Promise.all(
      Array.from({ length: 100 }, () =>
        sendRaw(stack.port, "GET /read HTTP/1.1\r\nHost: a\r\nX-Slow: ", { drip: "x", withinMs: 20_000 }),
      ),
    );
    const since = performance.now();
    for (let round = 0; round < 20; round++) expect((await fetch(`${stack.app}/read`)).status).toBe(200);
    expect(performance.now() - since).toBeLessThan(5_000);
  }, 25_000);
});

describe("addresses that are not for the outside", () => {
  it.each(["/metrics", "/metrics/", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?a=1", "/internal/secret"])(
    "%s is not found",
    async (path) => {
      const { statuses, text } = await sendRaw(
        stack.port,
        `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
      );
      expect(statuses).toEqual([404]);
      expect(text).not.toMatch(/process_cpu|"secret"/);
    },
  );

  it("the pages for outages cannot be asked for", async () => {
    expect((await fetch(`${stack.app}/unavailable.html`)).status).toBe(404);
  });
});

describe("what goes out", () => {
  it("is compressed when it was not, with its length told by chunks, and tells no version", async () => {
    const response = await fetch(`${stack.app}/large`, { headers: { "accept-encoding": "gzip" } });
    expect(response.headers.get("content-encoding")).toBe("gzip");
    expect(response.headers.get("server")).toBe("nginx");
    expect(((await response.json()) as { text: string }).text).toHaveLength(20_000);
  });

  it("of a live stream arrives at once, and the stream ends when its process drains", async () => {
    const response = await fetch(`${stack.app}/stream`);
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const reader = response.body?.getReader();
    const first = await reader?.read();
    expect(new TextDecoder().decode(first?.value as Uint8Array)).toContain("retry:");
    const restarted = stack.run("restart", "web", "--json");
    let isDone = false;
    while (!isDone) isDone = (await reader?.read())?.done ?? true;
    const again = await fetch(`${stack.app}/stream`);
    expect(again.status).toBe(200);
    await again.body?.cancel();
    expect((await restarted).code).toBe(0);
  }, 60_000);
});

describe("clients that sent their headers byte by byte meanwhile", () => {
  it("were cut off after 10 s", async () => {
    const answers = (await slow) ?? [];
    expect(answers).toHaveLength(100);
    for (const { closedMs } of answers) {
      expect(closedMs).toBeGreaterThan(9_000);
      expect(closedMs).toBeLessThan(16_000);
    }
  }, 25_000);
});
