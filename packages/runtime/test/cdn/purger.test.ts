/** Purges on their way to a CDN, over HTTP to a server that behaves as the test says. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cloudflareCdn } from "../../src/cdn/drivers/cloudflare-cdn.ts";
import { varnishCdn } from "../../src/cdn/drivers/varnish-cdn.ts";
import { createPurger, type Purger } from "../../src/cdn/purger.ts";
import { silentLogger } from "../../src/kernel/log.ts";

interface Call {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  readonly at: number;
}

let server: Server;
let url: string;
let calls: Call[];
let answer: (call: Call, response: ServerResponse) => void;
const purgers: Purger[] = [];

beforeEach(async () => {
  calls = [];
  answer = (_call, response) => response.end();
  server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request.setEncoding("utf8")) body += part;
    const call = {
      method: request.method ?? "",
      url: request.url ?? "",
      headers: request.headers,
      body,
      at: performance.now(),
    };
    calls.push(call);
    answer(call, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  await Promise.all(purgers.splice(0).map((purger) => purger.close(0)));
  server.closeAllConnections();
  server.close();
});

const varnish = () => varnishCdn({ addresses: [url], secret: "s3cret" });
const keysOf = (call: Call) => String(call.headers["xkey-purge"]).split(" ");
const purgerOf = (options: Partial<Parameters<typeof createPurger>[0]> = {}) => {
  const purger = createPurger({ cdn: varnish(), log: silentLogger, repeatAfterMs: [], ...options });
  purgers.push(purger);
  return purger;
};
const until = async (condition: () => boolean) => {
  for (let tries = 0; tries < 400; tries++) {
    if (condition()) return;
    await sleep(10);
  }
  throw new Error(`not within 4 s; calls: ${JSON.stringify(calls)}`);
};

describe("the purger", () => {
  it("sends what changed within a few ms as one call, each key once", async () => {
    const purger = purgerOf();
    purger.changed(["articles", "user:1"]);
    purger.changed(["articles"]);
    await until(() => calls.length > 0);
    await sleep(50);
    expect(calls).toHaveLength(1);
    expect(keysOf(calls[0] as Call)).toEqual(["articles", "user:1"]);
    expect(calls[0]).toMatchObject({ method: "PURGE", headers: { "x-purge-secret": "s3cret", "xkey-soft": "1" } });
    expect(purger.stats()).toMatchObject({ purgedKeys: 2, calls: 1, failures: 0, pending: 0 });
  });

  it("cuts many keys into calls that the CDN takes", async () => {
    const purger = purgerOf();
    purger.changed(Array.from({ length: 450 }, (_, index) => `k${index}`));
    await until(() => purger.stats().purgedKeys === 450);
    expect(calls.map((call) => keysOf(call).length)).toEqual([200, 200, 50]);
  });

  it("tries again after a failure, in longer and longer turns, and loses nothing", async () => {
    answer = (_call, response) => {
      response.statusCode = calls.length < 4 ? 503 : 200;
      response.end();
    };
    const purger = purgerOf();
    purger.changed(["articles"]);
    await until(() => calls.length === 1);
    purger.changed(["user:1"]);
    await until(() => purger.stats().purgedKeys === 2);
    const gaps = calls.slice(1).map(({ at }, index) => at - (calls[index] as Call).at);
    expect(gaps.length).toBe(3);
    expect(gaps[2]).toBeGreaterThan(gaps[0] as number);
    expect(new Set(keysOf(calls[3] as Call))).toEqual(new Set(["articles", "user:1"]));
    expect(purger.stats()).toMatchObject({ failures: 3, pending: 0 });
  }, 10_000);

  it("reaches a CDN that was away", async () => {
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    const purger = purgerOf();
    purger.changed(["articles"]);
    await until(() => purger.stats().failures > 0);
    expect(purger.stats().pending).toBe(1);
    server.listen(port, "127.0.0.1");
    await until(() => purger.stats().purgedKeys === 1);
  });

  it("gives a key up when nothing that old is left at the CDN", async () => {
    answer = (_call, response) => {
      response.statusCode = 503;
      response.end();
    };
    const purger = purgerOf({ retryForMs: 150 });
    purger.changed(["articles"]);
    await until(() => purger.stats().givenUpKeys === 1);
    expect(purger.stats().pending).toBe(0);
  });

  it("purges the site in place of more keys than it keeps", async () => {
    let isDown = true;
    answer = (_call, response) => {
      response.statusCode = isDown ? 503 : 200;
      response.end();
    };
    const purger = purgerOf({ pendingMax: 100 });
    purger.changed(["first"]);
    await until(() => purger.stats().failures > 0);
    for (let index = 0; index < 150; index++) purger.changed([`k${index}`]);
    expect(purger.stats().pending).toBeLessThanOrEqual(100);
    isDown = false;
    await until(() => purger.stats().pending === 0);
    expect(
      calls.some((call) => (call.headers["xkey-purge"] === undefined ? false : keysOf(call).includes("site"))),
    ).toBe(true);
  });

  it("purges again, for answers that were being made when the commit came", async () => {
    const purger = purgerOf({ repeatAfterMs: [80, 240] });
    purger.changed(["articles"]);
    await until(() => calls.length === 3);
    const [first, second, third] = calls.map(({ at }) => at) as [number, number, number];
    expect(second - first).toBeGreaterThanOrEqual(75);
    expect(third - first).toBeGreaterThanOrEqual(230);
    await sleep(300);
    expect(calls).toHaveLength(3);
  });

  it("is not held up by a repeat that is due later", async () => {
    const purger = purgerOf({ repeatAfterMs: [2_000] });
    purger.changed(["articles"]);
    await until(() => calls.length === 1);
    const since = performance.now();
    purger.changed(["user:1"]);
    await until(() => calls.length === 2);
    expect(performance.now() - since).toBeLessThan(500);
  });

  it("sends what is left when it closes, repeats too, and waits no longer than told", async () => {
    const purger = purgerOf({ batchMs: 60_000, repeatAfterMs: [60_000] });
    purger.changed(["articles"]);
    await purger.close();
    expect(calls.map(keysOf)).toEqual([["articles"]]);
    answer = () => {};
    const stuck = purgerOf({ batchMs: 60_000 });
    stuck.changed(["user:1"]);
    const since = performance.now();
    await stuck.close(200);
    expect(performance.now() - since).toBeLessThan(1_500);
  });
});

describe("Varnish", () => {
  it("must confirm at every address", async () => {
    const cdn = varnishCdn({ addresses: [url, "http://127.0.0.1:9"], secret: "x" });
    await expect(cdn.purge(["a"])).rejects.toMatchObject({ code: "CDN_UNREACHABLE", canRetry: true });
  });

  it("that refuses is a matter for people", async () => {
    answer = (_call, response) => {
      response.statusCode = 403;
      response.end();
    };
    await expect(varnish().purge(["a"])).rejects.toMatchObject({ code: "CDN_REFUSED" });
  });

  it("is waited for no longer than told", async () => {
    answer = () => {};
    await expect(varnish().purge(["a"], { signal: AbortSignal.timeout(100) })).rejects.toMatchObject({
      code: "CDN_UNREACHABLE",
    });
  });

  it("purges for good when asked to", async () => {
    await varnish().purge(["a"], { soft: false });
    expect(calls[0]?.headers).not.toHaveProperty("xkey-soft");
  });
});

/** A stand-in for Cloudflare's API, after its documentation; this driver has not been run against Cloudflare. */
describe("Cloudflare, by a stand-in of its documented API", () => {
  const cdn = () =>
    cloudflareCdn({ zone: "023e105f4ecef8ad9ca31a8372d0c353", token: "t0ken", endpoint: `${url}/client/v4` });
  const reply = (status: number, success: boolean, errors: object[] = []) => {
    answer = (_call, response) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify({ success, errors, messages: [], result: success ? { id: "023e" } : null }));
    };
  };

  it("is asked by tags, with the token, at most 30 a call", async () => {
    reply(200, true);
    const purger = purgerOf({ cdn: cdn() });
    purger.changed(Array.from({ length: 65 }, (_, index) => `k${index}`));
    await until(() => purger.stats().purgedKeys === 65);
    expect(calls.map(({ body }) => JSON.parse(body).tags.length)).toEqual([30, 30, 5]);
    expect(calls[0]).toMatchObject({
      method: "POST",
      url: "/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/purge_cache",
      headers: { authorization: "Bearer t0ken", "content-type": "application/json" },
    });
  });

  it("that is over its rate, or in trouble, is tried again", async () => {
    for (const status of [429, 500, 502]) {
      reply(status, false, [{ code: 10000, message: "later" }]);
      await expect(cdn().purge(["a"])).rejects.toMatchObject({ code: "CDN_UNREACHABLE", canRetry: true });
    }
  });

  it("that refuses the token says so, without telling it", async () => {
    reply(403, false, [{ code: 9109, message: "Unauthorized to access requested resource" }]);
    const error = await cdn()
      .purge(["a"])
      .catch((caught: Error) => caught);
    expect(error).toMatchObject({ code: "CDN_REFUSED" });
    expect((error as Error).message).toContain("Unauthorized");
    expect((error as Error).message).not.toContain("t0ken");
  });

  it("that answers 200 without success has not purged", async () => {
    reply(200, false);
    await expect(cdn().purge(["a"])).rejects.toMatchObject({ code: "CDN_REFUSED" });
  });
});
