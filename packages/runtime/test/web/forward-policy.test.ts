/** What is said of a forwarded request, who may say it, and what of its headers goes along. */
import { describe, expect, it } from "vitest";
import { answerHeaders, NotForwarded, regionOfWrite, requestHeaders, toldOf } from "../../src/web/forward.ts";
import { type ForwardKey, forwardSigner, forwardVerifier } from "../../src/web/forward-signature.ts";

class TestClock {
  at = 1_700_000_000_000;
  now = () => this.at;
  monotonic = () => this.at;
}

const key: ForwardKey = { id: "regions", secret: Buffer.alloc(32, 7) };
const keysOf = (...keys: readonly ForwardKey[]) => ({
  newest: () => keys.at(-1) as ForwardKey,
  find: async (id: string) => keys.find((each) => each.id === id),
});
const request = { method: "POST", url: "/api/articles?draft=1" };
const facts = {
  from: "us",
  requestId: "r-1",
  address: "203.0.113.7",
  protocol: "https",
  host: "shop.example:8443",
} as const;

describe("the signature of a forwarded request", () => {
  const start = (here = "eu") => {
    const clock = new TestClock();
    const sign = forwardSigner({ keys: keysOf(key), clock });
    return { clock, sign, verify: forwardVerifier({ keys: keysOf(key), here, clock }) };
  };

  it("says who the client is", async () => {
    const { sign, verify } = start();
    expect(await verify(sign(request, facts, "eu"), request)).toEqual({ facts });
    const odd = { ...facts, host: 'a,b"=\u00e9\n', address: "fe80::1%eth0" };
    expect(await verify(sign(request, odd, "eu"), request)).toEqual({ facts: odd });
  });

  it("is good for its request alone", async () => {
    const { sign, verify } = start();
    expect(await verify(sign(request, facts, "eu"), { ...request, method: "PUT" })).toEqual({ refusal: "forged" });
    expect(await verify(sign(request, facts, "eu"), { ...request, url: "/api/articles" })).toEqual({
      refusal: "forged",
    });
    expect(await verify(sign(request, facts, "asia"), request)).toEqual({ refusal: "another region" });
  });

  it.each([
    [/mac=.{4}/, "mac=AAAA"],
    [/facts=.{8}/, `facts=${Buffer.from('["as').toString("base64url").padEnd(8, "A").slice(0, 8)}`],
  ])("does not survive a change of %s", async (found, changed) => {
    const { sign, verify } = start();
    const header = sign(request, facts, "eu");
    expect(header).toMatch(found);
    expect(await verify(header.replace(found, changed), request)).toEqual({ refusal: "forged" });
  });

  it("is believed once, and for seconds", async () => {
    const { clock, sign, verify } = start();
    const header = sign(request, facts, "eu");
    expect(await verify(header, request)).toEqual({ facts });
    expect(await verify(header, request)).toEqual({ refusal: "replayed" });
    const late = sign(request, facts, "eu");
    clock.at += 16_000;
    expect(await verify(late, request)).toEqual({ refusal: "expired" });
    clock.at -= 60_000;
    expect(await verify(late, request)).toEqual({ refusal: "expired" });
  });

  it("needs a key of the app, whichever generation", async () => {
    const { clock, sign, verify } = start();
    const second: ForwardKey = { id: "regions.2", secret: Buffer.alloc(32, 8) };
    const anew = forwardSigner({ keys: keysOf(key, second), clock });
    expect(await verify(anew(request, facts, "eu"), request)).toEqual({ refusal: "unknown key" });
    const both = forwardVerifier({ keys: keysOf(key, second), here: "eu", clock });
    expect(await both(anew(request, facts, "eu"), request)).toEqual({ facts });
    expect(await both(sign(request, facts, "eu"), request)).toEqual({ facts });
    const stolenName = forwardSigner({ keys: keysOf({ ...key, secret: Buffer.alloc(32, 9) }), clock });
    expect(await both(stolenName(request, facts, "eu"), request)).toEqual({ refusal: "forged" });
  });

  it("has a form of its own", async () => {
    const { sign, verify } = start();
    const header = sign(request, facts, "eu");
    for (const wrong of ["", "us", header.slice(0, -1), `${header},x=1`, `${header}, ${header}`]) {
      expect(await verify(wrong, request)).toEqual({ refusal: "unsigned" });
    }
  });
});

describe("headers of a forwarded request", () => {
  const said = { host: "10.1.0.1:8081", forwarded: "signed", requestId: "r-1", hasBody: true };

  it("are the client's as they came, doubles and odd letters too", () => {
    const raw = [
      "Cookie",
      "a=1",
      "X-Odd",
      "caf\u00e9",
      "cookie",
      "b=2",
      "Content-Length",
      "5",
      "Authorization",
      "Bearer t",
    ];
    expect(requestHeaders(raw, said)).toEqual([
      ...raw,
      ...["Host", "10.1.0.1:8081", "X-Request-Id", "r-1", "Rungs-Forwarded", "signed"],
    ]);
  });

  it("leave out what is of the connection, and what the client says of its way", () => {
    const raw = [
      ...[
        "Host",
        "shop.example",
        "Connection",
        "close, X-Own",
        "X-Own",
        "1",
        "Keep-Alive",
        "timeout=5",
        "TE",
        "trailers",
      ],
      ...["Upgrade", "h2c", "Expect", "100-continue", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https"],
      ...["X-Forwarded-Host", "evil", "Forwarded", "for=6.6.6.6", "X-Real-IP", "6.6.6.6", "X-Request-Id", "mine"],
      ...["Rungs-Forwarded", "mine", "Proxy-Authorization", "x", "Accept", "*/*", "traceparent", "00-old"],
    ];
    expect(requestHeaders(raw, { ...said, hasBody: false, traceparent: "00-new" })).toEqual([
      ...["Accept", "*/*", "Host", "10.1.0.1:8081", "X-Request-Id", "r-1", "Rungs-Forwarded", "signed"],
      ...["traceparent", "00-new", "Content-Length", "0"],
    ]);
  });

  it("say the length in one way only", () => {
    const chunked = requestHeaders(["Transfer-Encoding", "chunked", "Content-Length", "3"], said);
    expect(chunked.slice(-2)).toEqual(["Transfer-Encoding", "chunked"]);
    expect(chunked).not.toContain("Content-Length");
  });

  it("of the answer are the other region's, with what this one says besides", () => {
    const raw = [
      ...["Set-Cookie", "a=1", "Set-Cookie", "b=2", "Connection", "keep-alive", "Keep-Alive", "timeout=5"],
      ...["Transfer-Encoding", "chunked", "X-Request-Id", "theirs", "Cache-Control", "no-store"],
    ];
    const own = {
      "x-request-id": "r-1",
      "cache-control": "public",
      ratelimit: '"address";r=3',
      vary: ["a", "b"],
      connection: "close",
    };
    expect(answerHeaders(raw, own)).toEqual([
      ...["Set-Cookie", "a=1", "Set-Cookie", "b=2", "Cache-Control", "no-store"],
      ...["x-request-id", "r-1", "ratelimit", '"address";r=3', "vary", "a", "vary", "b"],
    ]);
  });
});

describe("the region of a write", () => {
  const places = (regions: readonly string[]) => ({
    regionOf: (shard: number) => regions[shard] as string,
    common: () => (regions.every((region) => region === regions[0]) ? regions[0] : undefined),
  });

  it("is that of all leaders, without a question about the user", () => {
    const userShard = () => Promise.reject(new Error("asked"));
    expect(regionOfWrite(places(["eu", "eu"]), { homeShard: 0, userShard })).toBe("eu");
  });

  it("is that of the user's shard while leaders are apart, and of the home database for nobody", async () => {
    const of = (shard: number | undefined) =>
      regionOfWrite(places(["eu", "us"]), { homeShard: 0, userShard: async () => shard });
    expect(await of(1)).toBe("us");
    expect(await of(0)).toBe("eu");
    expect(await of(undefined)).toBe("eu");
  });
});

it("a failure says whether the request may be sent again", () => {
  const none = new NotForwarded("there is no connection to h (ECONNREFUSED).", {
    reach: "none",
    reason: "unreachable",
  });
  expect(toldOf(none, "POST /a", "eu")).toMatchObject({
    code: "REGION_UNREACHABLE",
    canRetry: true,
    message: "POST /a belongs to region eu: there is no connection to h (ECONNREFUSED). Nothing was done; try again.",
  });
  const unknown = new NotForwarded("the connection to h was lost.", { reach: "unknown", reason: "unreachable" });
  expect(toldOf(unknown, "POST /a", "eu")).toMatchObject({ canRetry: false, cause: unknown });
});
