/** What calls promise, the same in one process and over HTTP: nothing that works in the one may fail in the other. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { type CallScope, inCallScope } from "../../src/call/call-scope.ts";
import { defineMethod } from "../../src/call/index.ts";
import { ConfigError, ConflictError, UnavailableError, UnsupportedError } from "../../src/kernel/errors.ts";
import { type CallSite, raised, startCallSite, until, ways } from "./support/call-site.ts";
import { SoldOutError, shop } from "./support/shop.ts";

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

describe.each(ways)("a call %s", (way) => {
  let site: CallSite;

  beforeAll(async () => {
    site = await startCallSite(way);
  });
  afterAll(() => site?.stop());
  beforeEach(() => {
    site.shop.events.length = 0;
    (site.lines as unknown[]).length = 0;
  });

  describe("its values", () => {
    it("gives what the method answers, without what the schema does not name", async () => {
      expect(await site.call(shop.quote, { amount: 200 })).toEqual({ fee: 10, total: 210 });
    });

    it("gives values the form of JSON both ways", async () => {
      const sent = {
        at: new Date(0),
        gone: undefined,
        list: [undefined, Number.NaN],
        set: new Set([1]),
        deep: { a: 1 },
      };
      const echoed = await site.call(shop.echo, sent);
      expect(echoed).toEqual({ at: "1970-01-01T00:00:00.000Z", list: [null, null], set: {}, deep: { a: 1 } });
      expect(Object.keys(echoed as object)).not.toContain("gone");
      expect((echoed as typeof sent).deep).not.toBe(sent.deep);
    });

    it("does not share the answer with the method", async () => {
      const text = "ä€😀\u2028\u0000\ud800";
      expect(await site.call(shop.echo, text)).toBe(text);
      expect(await site.call(shop.echo, JSON.parse('{"__proto__":{"x":1}}'))).toEqual(
        JSON.parse('{"__proto__":{"x":1}}'),
      );
    });

    it("knows nothing as an input and as an answer", async () => {
      expect(await site.call(shop.nothing, undefined)).toBeUndefined();
      expect(await site.call(shop.echo, null)).toBeNull();
      expect(await site.call(shop.echo, undefined)).toBeUndefined();
    });

    it("refuses what has no form as JSON, and what does not fit the schema, and names no value", async () => {
      const cycle: Record<string, unknown> = {};
      cycle["self"] = cycle;
      for (const input of [cycle, 1n]) {
        expect(await raised(site.call(shop.echo, input))).toMatchObject({ code: "CALL_INVALID" });
      }
      const error = await raised(site.call(shop.quote, { amount: "a secret" as never }));
      expect(error).toBeInstanceOf(ConfigError);
      expect(error).toMatchObject({ code: "CALL_INVALID" });
      expect(error.message).toContain("amount");
      expect(error.message).not.toContain("secret");
      expect(await raised(site.call(shop.quote, { amount: Number.NaN }))).toMatchObject({ code: "CALL_INVALID" });
      expect(site.shop.events).toEqual([]);
    });

    it("bounds inputs and answers by their bytes", async () => {
      const limit = 1_048_576;
      expect(await site.call(shop.echo, "x".repeat(limit - 2))).toHaveLength(limit - 2);
      expect(await raised(site.call(shop.echo, "ä".repeat(limit / 2)))).toMatchObject({ code: "CALL_INVALID" });
      expect(await site.call(shop.long, { characters: limit - 2 })).toHaveLength(limit - 2);
      expect(await raised(site.call(shop.long, { characters: limit }))).toMatchObject({ code: "CALL_FAILED" });
    });

    it("tolerates a caller and a method of different age", async () => {
      const newer = {
        input: z.object({ amount: z.int(), currency: z.string() }),
        output: z.object({ total: z.int() }),
      };
      const newQuote = defineMethod("shop.quote", { ...newer, isSafe: true });
      expect(await site.call(newQuote, { amount: 200, currency: "EUR" })).toEqual({ total: 210 });
      const wants = defineMethod("shop.quote", { ...newer, output: z.object({ rate: z.number() }), isSafe: true });
      expect(await raised(site.call(wants, { amount: 200, currency: "EUR" }))).toMatchObject({ code: "CALL_INVALID" });
    });
  });

  describe("its errors", () => {
    it("brings declared errors as what they are, and of them only what was declared", async () => {
      const error = await raised(site.call(shop.fail, { how: "declared" }));
      expect(error).toBeInstanceOf(SoldOutError);
      expect(error).toMatchObject({ left: 3, message: "Only 3 left." });
    });

    it("brings what a caller can act on by class, code and message", async () => {
      const conflict = await raised(site.call(shop.fail, { how: "conflict" }));
      expect(conflict).toBeInstanceOf(ConflictError);
      expect(conflict).toMatchObject({ code: "NAME_TAKEN", message: "The name is taken." });
      const unavailable = await raised(site.call(shop.fail, { how: "unavailable" }));
      expect(unavailable).toBeInstanceOf(UnavailableError);
      expect(unavailable).toMatchObject({ code: "POOL_EXHAUSTED", canRetry: true });
      expect(await raised(site.call(shop.fail, { how: "late" }))).toMatchObject({
        code: "STATEMENT_TIMEOUT",
        canRetry: false,
      });
    });

    it("does not take what one statement may do for what a method that changes things may", async () => {
      const error = await raised(site.call(shop.failOnce, {}));
      expect(error).toMatchObject({ code: "POOL_EXHAUSTED", canRetry: false });
    });

    it.each(["plain", "config", "nothing"] as const)(
      "tells nobody of an unexpected error (%s) but the log",
      async (how) => {
        const error = await raised(
          inCallScope({ deadlineAt: Infinity, traceparent }, () => site.call(shop.fail, { how })),
        );
        expect(error).toBeInstanceOf(UnavailableError);
        expect(error).toMatchObject({ code: "CALL_FAILED", canRetry: true });
        expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toMatch(/hunter2|select secret/);
        expect(error.message).toContain("4bf92f3577b34da6a3ce929d0e0e4736");
        expect(error["cause"]).toBeUndefined();
        expect(site.lines).toMatchObject([{ level: "error", fields: { method: "shop.fail", caller: "front" } }]);
        expect(site.lines[0]?.fields["trace"]).toBe("4bf92f3577b34da6a3ce929d0e0e4736");
      },
    );

    it("takes an answer that does not fit its schema for the method's fault", async () => {
      expect(await raised(site.call(shop.wrong, {}))).toMatchObject({ code: "CALL_FAILED" });
      expect(String(site.lines[0]?.fields["err"])).toContain("count");
    });

    it("says what nobody serves", async () => {
      const error = await raised(site.call(shop.unserved, {}));
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error).toMatchObject({ code: "CALL_UNKNOWN" });
      const elsewhere = defineMethod("nowhere.method", { input: z.object({}), output: z.object({}) });
      expect(await raised(site.call(elsewhere, {}))).toMatchObject({ code: "CALL_UNKNOWN" });
    });
  });

  describe("its time", () => {
    it("has some always, and tells the method how much is left", async () => {
      const { remainingMs } = await site.call(shop.describe, {});
      expect(remainingMs).toBeGreaterThan(1_000);
      expect(remainingMs).toBeLessThanOrEqual(2_000);
      expect((await site.call(shop.describe, {}, { deadlineMs: 500 })).remainingMs).toBeLessThanOrEqual(500);
    });

    it("ends in time, and the method hears of it", async () => {
      const since = performance.now();
      const error = await raised(site.call(shop.wait, { ms: 10_000 }, { deadlineMs: 60 }));
      expect(performance.now() - since).toBeLessThan(1_000);
      expect(error).toBeInstanceOf(UnavailableError);
      expect(error).toMatchObject({ code: "CALL_TIMEOUT", canRetry: true });
      await until(() => site.shop.events.includes("stopped"), "the method was told to stop");
    });

    it("ends in time though the method does not listen", async () => {
      const since = performance.now();
      expect(await raised(site.call(shop.deaf, { ms: 600 }, { deadlineMs: 50 }))).toMatchObject({
        code: "CALL_TIMEOUT",
      });
      expect(performance.now() - since).toBeLessThan(500);
    });

    it("leaves calls within it what it has itself, and no more", async () => {
      const { remainingMs } = await site.call(shop.nested, { afterMs: 100 }, { deadlineMs: 400 });
      expect(remainingMs).toBeLessThan(320);
      expect((await site.call(shop.nested, { afterMs: 0, deadlineMs: 50 })).remainingMs).toBeLessThanOrEqual(50);
      const tooMuch = await site.call(shop.nested, { afterMs: 0, deadlineMs: 10_000 }, { deadlineMs: 400 });
      expect(tooMuch.remainingMs).toBeLessThanOrEqual(400);
    });

    it("is that of the request it is made in, if that is less, and none is left after it", async () => {
      const soon = { deadlineAt: performance.now() + 120, traceparent: undefined };
      const { remainingMs } = await inCallScope(soon, () => site.call(shop.describe, {}));
      expect(remainingMs).toBeLessThanOrEqual(120);
      const past = { deadlineAt: performance.now() - 1, traceparent: undefined };
      const error = await raised(inCallScope(past, () => site.call(shop.quote, { amount: 1 })));
      expect(error).toMatchObject({ code: "CALL_TIMEOUT", canRetry: true });
      expect(site.shop.events).toEqual([]);
    });

    it("is its own for what a request leaves behind, and none for what goes on past its time", async () => {
      const scope: CallScope = { deadlineAt: performance.now() + 20, traceparent: undefined };
      const left = inCallScope(scope, async () => {
        await new Promise((resolve) => setTimeout(resolve, 40));
        const late = await raised(site.call(shop.describe, {}));
        scope.isOver = true;
        return { late, remainingMs: (await site.call(shop.describe, {})).remainingMs };
      });
      expect((await left).late).toMatchObject({ code: "CALL_TIMEOUT" });
      expect((await left).remainingMs).toBeGreaterThan(1_000);
      await site.call(shop.background, { afterMs: 60 }, { deadlineMs: 40 });
      await until(() => site.shop.events.includes("background: ok"), "what the method left behind has called");
    });

    it("ends when the caller gives it up, which the method hears", async () => {
      const controller = new AbortController();
      const reason = new Error("the reader has left");
      const call = raised(site.call(shop.wait, { ms: 10_000 }, { signal: controller.signal }));
      await until(() => site.shop.events.includes("wait"), "the method began");
      controller.abort(reason);
      expect(await call).toBe(reason);
      await until(() => site.shop.events.includes("stopped"), "the method was told to stop");
      expect(await raised(site.call(shop.quote, { amount: 1 }, { signal: controller.signal }))).toBe(reason);
      expect(site.lines).toEqual([]);
    });

    it.each([0, -1, 60_001, Number.NaN])("refuses a deadline of %s ms", async (deadlineMs) => {
      expect(await raised(site.call(shop.quote, { amount: 1 }, { deadlineMs }))).toMatchObject({
        code: "CALL_INVALID",
      });
    });
  });

  describe("what goes with it", () => {
    it("has a key of its own, or the one it was given", async () => {
      const keys = await Promise.all([site.call(shop.describe, {}), site.call(shop.describe, {})]);
      expect(new Set(keys.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(2);
      const idempotencyKey = 'a key"with,=;signs'.replaceAll(" ", "_");
      expect(await site.call(shop.describe, {}, { idempotencyKey })).toMatchObject({ idempotencyKey });
      for (const wrong of ["", "two words", "x".repeat(256), "line\n", "ä"]) {
        const error = await raised(site.call(shop.quote, { amount: 1 }, { idempotencyKey: wrong }));
        expect(error).toMatchObject({ code: "CALL_INVALID" });
      }
    });

    it("has one effect for one key where the method sees to it", async () => {
      const options = { idempotencyKey: `pay-${way.replaceAll(" ", "-")}` };
      expect(await site.call(shop.pay, { amount: 5 }, options)).toEqual({ paid: 5, replayed: false });
      expect(await site.call(shop.pay, { amount: 5 }, options)).toEqual({ paid: 5, replayed: true });
    });

    it("says who calls", async () => {
      expect(await site.call(shop.describe, {})).toMatchObject({ caller: "front" });
    });

    it("hands the trace on, and begins one for all calls of a request that has none", async () => {
      const scope = { deadlineAt: Infinity, traceparent };
      expect(await inCallScope(scope, () => site.call(shop.describe, {}))).toMatchObject({ traceparent });
      const nested = await inCallScope(scope, () => site.call(shop.nested, { afterMs: 0 }));
      expect(nested).toMatchObject({ traceparent, outerTraceparent: traceparent });
      const fresh = { deadlineAt: Infinity, traceparent: undefined };
      const made = await inCallScope(fresh, async () => [
        await site.call(shop.describe, {}),
        await site.call(shop.describe, {}),
      ]);
      const [one, other] = made.map((each) => each.traceparent);
      expect(one).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
      expect(other).toBe(one);
      expect((await site.call(shop.describe, {})).traceparent).not.toBe(one);
    });
  });
});

describe("a method's declaration", () => {
  it.each(["quote", "Shop.quote", "shop.Quote", "shop.quote.now", "shop/quote", "shop.", ".quote"])(
    "refuses the name %s",
    (name) => {
      expect(() => defineMethod(name, { input: z.object({}), output: z.object({}) })).toThrow(ConfigError);
    },
  );

  it("refuses a deadline out of bounds", () => {
    const declare = () => defineMethod("shop.late", { input: z.object({}), output: z.object({}), deadlineMs: 90_000 });
    expect(declare).toThrow(/shop.late.*90000/);
  });
});
