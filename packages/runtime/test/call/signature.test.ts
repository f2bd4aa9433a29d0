/** Who may call: only what a process of the app signed, for this very call, just now, and once. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callContentType, callHeaders } from "../../src/call/call-request.ts";
import { type CallKey, callSigner, callVerifier, storedCallKeys } from "../../src/call/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { ConfigError } from "../../src/kernel/errors.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { type Callee, fixedKeys, raised, startCallee, startCaller, testKey } from "./support/call-site.ts";
import { shop } from "./support/shop.ts";

class TestClock {
  at = 1_700_000_000_000;
  now = () => this.at;
  monotonic = () => this.at;
}

const parts = {
  path: "/internal/call/shop/order",
  deadlineMs: "800",
  idempotencyKey: "key-1",
  traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  reads: "",
  body: '{"item":"egg"}',
};
const other: CallKey = { id: "calls", secret: Buffer.alloc(32, 8) };

describe("a signature", () => {
  const start = () => {
    const clock = new TestClock();
    const keys = fixedKeys(testKey);
    return { clock, sign: callSigner({ keys, caller: "web", clock }), verify: callVerifier({ keys, clock }) };
  };

  it("says who calls", async () => {
    const { sign, verify } = start();
    expect(await verify(sign(parts), parts)).toEqual({ caller: "web" });
    expect(await verify(sign(parts), { ...parts, body: Buffer.from(parts.body) })).toEqual({ caller: "web" });
  });

  it.each([
    ["path", "/internal/call/shop/pay"],
    ["deadlineMs", "60000"],
    ["idempotencyKey", "key-2"],
    ["traceparent", ""],
    ["reads", "or12;"],
    ["body", '{"item":"hen"}'],
  ])("does not hold for another %s", async (part, value) => {
    const { sign, verify } = start();
    expect(await verify(sign(parts), { ...parts, [part]: value })).toEqual({ refusal: "forged" });
  });

  it.each([
    [/caller=web/, "caller=payments"],
    [/expires=1/, "expires=2"],
    [/nonce=./, "nonce=-"],
    [/mac=.{4}/, "mac=AAAA"],
  ])("does not survive a change of %s", async (found, changed) => {
    const { sign, verify } = start();
    const header = sign(parts);
    expect(header).toMatch(found);
    expect(await verify(header.replace(found, changed), parts)).toEqual({ refusal: "forged" });
  });

  it("is of a form of its own", async () => {
    const { sign, verify } = start();
    const header = sign(parts);
    for (const wrong of [
      undefined,
      "",
      "Bearer x",
      header.slice(0, -1),
      `${header},more=1`,
      header.replace("Rungs", "rungs"),
    ]) {
      expect(await verify(wrong, parts)).toEqual({ refusal: "unsigned" });
    }
  });

  it("does not move between fields that stand beside each other", async () => {
    const { sign, verify } = start();
    const header = sign({ ...parts, idempotencyKey: "a\nb", traceparent: "c" });
    expect(await verify(header, { ...parts, idempotencyKey: "a", traceparent: "b\nc" })).not.toEqual({ caller: "web" });
  });

  it("is good once in a process", async () => {
    const { clock, sign, verify } = start();
    const header = sign(parts);
    expect(await verify(header, parts)).toEqual({ caller: "web" });
    expect(await verify(header, parts)).toEqual({ refusal: "replayed" });
    clock.at += 5_700;
    expect(await verify(header, parts)).toEqual({ refusal: "replayed" });
    clock.at += 200;
    expect(await verify(header, parts)).toEqual({ refusal: "expired" });
    clock.at += 100_000;
    expect(await verify(header, parts)).toEqual({ refusal: "expired" });
    // A process that checks it first accepts it: a balancer may send a call on to another one.
    const again = sign(parts);
    expect(await verify(again, parts)).toEqual({ caller: "web" });
    const elsewhere = callVerifier({ keys: fixedKeys(testKey), clock });
    expect(await elsewhere(again, parts)).toEqual({ caller: "web" });
  });

  it("bears clocks that differ by seconds, and none that differ by more", async () => {
    const { clock, sign, verify } = start();
    const header = sign(parts);
    clock.at += 5_000;
    expect(await verify(header, parts)).toEqual({ caller: "web" });
    const late = sign(parts);
    clock.at += 6_000;
    expect(await verify(late, parts)).toEqual({ refusal: "expired" });
    const early = sign(parts);
    clock.at -= 80_000;
    expect(await verify(early, parts)).toEqual({ refusal: "expired" });
  });

  it("is not believed under another app's key", async () => {
    const { clock, verify } = start();
    const foreign = callSigner({ keys: fixedKeys(other), caller: "web", clock });
    expect(await verify(foreign(parts), parts)).toEqual({ refusal: "forged" });
    const unknown = callSigner({ keys: fixedKeys({ ...other, id: "theirs" }), caller: "web", clock });
    expect(await verify(unknown(parts), parts)).toEqual({ refusal: "unknown key" });
  });
});

describe("keys that change", () => {
  it("are believed at once, signed by within a minute, and forgotten when they are gone", async () => {
    const clock = new TestClock();
    let stored: CallKey[] = [testKey];
    let reads = 0;
    const open = () =>
      storedCallKeys({
        clock,
        log: silentLogger,
        read: async () => {
          reads++;
          return stored;
        },
      });
    const [first, second] = [await open(), await open()];
    const newer: CallKey = { id: "calls.2", secret: Buffer.alloc(32, 9) };
    stored = [testKey, newer];
    clock.at += 2_000;
    const third = await open();
    expect(third.newest()).toBe(newer);
    expect(await first.find("calls.2")).toBe(newer);
    expect(second.newest()).toBe(testKey);
    clock.at += 61_000;
    second.newest();
    await new Promise((resolve) => setImmediate(resolve));
    expect(second.newest()).toBe(newer);
    stored = [newer];
    clock.at += 61_000;
    expect(await first.find("calls")).toBe(testKey);
    await new Promise((resolve) => setImmediate(resolve));
    expect(await first.find("calls")).toBeUndefined();
    const before = reads;
    for (let index = 0; index < 100; index++) expect(await first.find(`made-up-${index}`)).toBeUndefined();
    expect(reads - before).toBeLessThanOrEqual(1);
  });

  it("stay while they cannot be read", async () => {
    const clock = new TestClock();
    let isGone = false;
    const read = async () => {
      if (isGone) throw new Error("no database");
      return [testKey];
    };
    const keys = await storedCallKeys({ clock, log: silentLogger, read });
    isGone = true;
    clock.at += 120_000;
    expect(keys.newest()).toBe(testKey);
    expect(await keys.find("calls.2")).toBeUndefined();
    expect(await keys.find("calls")).toBe(testKey);
  });
});

describe("the route of calls", () => {
  let callee: Callee;
  const sign = callSigner({ keys: fixedKeys(testKey), caller: "web", clock: systemClock });

  beforeAll(async () => {
    callee = await startCallee();
  });
  afterAll(() => callee?.stop());

  const post = (headers: Record<string, string>, body: string = parts.body) =>
    fetch(`${callee.url}${parts.path}`, {
      method: "POST",
      body,
      headers: { "content-type": callContentType, ...headers },
    });
  const signedHeaders = (authorization: string) => ({
    authorization,
    [callHeaders.deadline]: parts.deadlineMs,
    [callHeaders.key]: parts.idempotencyKey,
    traceparent: parts.traceparent,
  });

  it("does what is signed, once", async () => {
    const headers = signedHeaders(sign(parts));
    const answer = await post(headers);
    expect([answer.status, await answer.json()]).toEqual([200, { count: 1 }]);
    const replayed = await post(headers);
    expect([replayed.status, replayed.headers.get(callHeaders.kind), await replayed.text()]).toEqual([
      401,
      "denied",
      "",
    ]);
    expect(callee.shop.events).toEqual(["order"]);
  });

  it("does nothing for whoever does not sign, and counts it", async () => {
    const before = callee.shop.events.length;
    expect((await post({})).status).toBe(401);
    expect((await post(signedHeaders("Bearer token"))).status).toBe(401);
    expect((await post(signedHeaders(sign(parts)), '{"item":"hen"}')).status).toBe(401);
    const json = await fetch(`${callee.url}${parts.path}`, {
      method: "POST",
      body: "{}",
      headers: { "content-type": "application/json" },
    });
    expect(json.status).toBe(401);
    expect((await fetch(`${callee.url}${parts.path}`)).status).toBe(404);
    expect(callee.shop.events).toHaveLength(before);
    expect(callee.refusals.get("unsigned")).toBeGreaterThanOrEqual(3);
    expect(callee.refusals.get("forged")).toBe(1);
    // One line, however many there are.
    expect(callee.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });

  it("tells a caller that it is not believed, and why that may be", async () => {
    const stranger = startCaller({ urls: [callee.url], keys: fixedKeys(other) });
    const error = await raised(stranger.call(shop.order, { item: "egg" }));
    await stranger.stop();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ code: "CALL_DENIED" });
    expect(error.message).toContain("home database");
    expect(stranger.target.stats().retries).toBe(0);
  });
});
