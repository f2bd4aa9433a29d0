/** Calls over a network and to processes that fail: what is sent again and what is not, and what protects both sides. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { defineMethod, serve } from "../../src/call/index.ts";
import { type Callee, type Caller, raised, startCallee, startCaller, until } from "./support/call-site.ts";
import { servedShop, shop } from "./support/shop.ts";

/** The same, but not said to be harmless. */
const unsafeWait = { ...shop.wait, isSafe: false };
const idempotentWait = { ...unsafeWait, isIdempotent: true };
const calm = { breaker: { callsMin: 1_000_000 } };

let callee: Callee;
const stops: (() => Promise<unknown>)[] = [];
const callerOf = (options: Parameters<typeof startCaller>[0]): Caller => {
  const caller = startCaller(options);
  stops.push(caller.stop);
  return caller;
};

beforeEach(async () => {
  callee = await startCallee();
  stops.push(() => callee.stop());
});
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop();
});

describe("a connection that breaks", () => {
  let way: UnreliableWay;
  let caller: Caller;

  beforeEach(async () => {
    way = await openUnreliableWay({ port: Number(new URL(callee.url).port) });
    stops.push(() => way.cut());
    caller = callerOf({ urls: [`http://127.0.0.1:${way.port}`] });
  });

  /** Breaks it once the method has begun. */
  async function breakWhileUnderWay(): Promise<void> {
    await until(() => callee.shop.events.includes("wait"), "the method began");
    await way.cut();
    await way.open();
  }

  it.each([
    ["safe", shop.wait],
    ["idempotent by its key", idempotentWait],
  ])("has a method called again that is %s, with the same key", async (_kind, method) => {
    const call = caller.call(method, { ms: 150 });
    await breakWhileUnderWay();
    expect(await call).toEqual({});
    expect(callee.shop.events.filter((event) => event === "wait")).toHaveLength(2);
    expect(caller.target.stats()).toMatchObject({ retries: 1, underWay: 0, waiting: 0 });
    // Whoever was cut off is not worked for any more.
    expect(callee.shop.events).toContain("stopped");
  });

  it("has no other method called again, and says that it may have taken effect", async () => {
    const call = raised(caller.call(unsafeWait, { ms: 150 }));
    await breakWhileUnderWay();
    const error = await call;
    expect(error).toMatchObject({ code: "CALL_UNREACHABLE", canRetry: false });
    expect(error.message).toContain("may have taken effect");
    expect(callee.shop.events.filter((event) => event === "wait")).toHaveLength(1);
    expect(caller.target.stats().retries).toBe(0);
  });

  it("has any method called again that cannot have begun, because there was no connection", async () => {
    await way.cut();
    const call = caller.call(shop.order, { item: "egg" });
    await until(() => caller.target.stats().retries > 0, "a second try");
    await way.open();
    expect(await call).toEqual({ count: 1 });
    expect(callee.shop.events).toEqual(["order"]);
  });

  it("ends at the deadline when nothing comes back at all", async () => {
    expect(await caller.call(shop.quote, { amount: 20 })).toEqual({ fee: 1, total: 21 });
    way.silence(true);
    const since = performance.now();
    const error = await raised(caller.call(shop.quote, { amount: 20 }, { deadlineMs: 150 }));
    expect(error).toMatchObject({ code: "CALL_TIMEOUT" });
    expect(performance.now() - since).toBeLessThan(1_000);
    expect(caller.target.stats().underWay).toBe(0);
    way.silence(false);
    expect(await caller.call(shop.quote, { amount: 20 })).toEqual({ fee: 1, total: 21 });
  });
});

describe("what stands between", () => {
  /** Answers the next requests in place of the app, as a balancer or a process that is full does. */
  function intercept(statuses: number[]): Record<string, unknown>[] {
    const headers: Record<string, unknown>[] = [];
    callee.web.fastify.server.prependListener("request", () => {});
    const [listener] = callee.web.fastify.server.listeners("request").slice(1) as ((...parameters: never[]) => void)[];
    callee.web.fastify.server.removeAllListeners("request");
    callee.web.fastify.server.on("request", (request, response) => {
      headers.push(request.headers);
      const status = statuses.shift();
      if (status === undefined) listener?.(request as never, response as never);
      else response.writeHead(status, { "retry-after": "1" }).end("<html>not the app</html>");
    });
    return headers;
  }

  it("refuses before the method begins: any method is called again", async () => {
    intercept([503]);
    const caller = callerOf({ urls: [callee.url] });
    expect(await caller.call(shop.order, { item: "egg" })).toEqual({ count: 1 });
    expect(caller.target.stats().retries).toBe(1);
  });

  it("goes on refusing: the caller is told that nothing has begun", async () => {
    intercept([503, 503, 503]);
    const caller = callerOf({ urls: [callee.url] });
    const error = await raised(caller.call(shop.order, { item: "egg" }));
    expect(error).toMatchObject({ code: "CALL_REFUSED", canRetry: true });
    expect(callee.shop.events).toEqual([]);
  });

  it("lost the app on the way: only what is harmless is called again", async () => {
    intercept([502, 502]);
    const caller = callerOf({ urls: [callee.url] });
    expect(await raised(caller.call(shop.order, { item: "egg" }))).toMatchObject({
      code: "CALL_UNREACHABLE",
      canRetry: false,
    });
    expect(await caller.call(shop.quote, { amount: 20 })).toEqual({ fee: 1, total: 21 });
  });

  it("is told by the header Idempotency-Key what it may send again itself", async () => {
    const headers = intercept([]);
    const caller = callerOf({ urls: [callee.url] });
    await caller.call(shop.order, { item: "egg" }, { idempotencyKey: "the-key" });
    await caller.call(shop.pay, { amount: 1 }, { idempotencyKey: "the-key" });
    await caller.call(shop.quote, { amount: 1 }, { idempotencyKey: "the-key" });
    expect(headers.map((each) => each["idempotency-key"])).toEqual([undefined, "the-key", "the-key"]);
  });

  it("knows no calls: the address is wrong, or the roll-out is not there yet", async () => {
    intercept([404]);
    const caller = callerOf({ urls: [callee.url] });
    expect(await raised(caller.call(shop.quote, { amount: 1 }))).toMatchObject({ code: "CALL_UNKNOWN" });
  });
});

describe("a target that fails", () => {
  it("is asked again for a tenth of the calls, and ten times more", async () => {
    await callee.stop();
    const caller = callerOf({ urls: [callee.url], limits: calm });
    for (let round = 0; round < 10; round++) {
      const calls = Array.from({ length: 10 }, () => raised(caller.call(shop.quote, { amount: 1 })));
      for (const error of await Promise.all(calls)) {
        expect(error).toMatchObject({ code: "CALL_UNREACHABLE", canRetry: true });
      }
    }
    const { retries, retriesDenied } = caller.target.stats();
    expect(retries).toBeGreaterThan(10);
    expect(retries).toBeLessThanOrEqual(20);
    expect(retriesDenied).toBeGreaterThan(50);
  });

  it("is asked no more once most calls have failed, and again when it is back", async () => {
    const breaker = { callsMin: 10, openMs: 2_000 };
    const caller = callerOf({ urls: [callee.url], limits: { breaker } });
    const slow = () => raised(caller.call(shop.deaf, { ms: 2_000 }, { deadlineMs: 700 }));
    const errors = await Promise.all(Array.from({ length: 10 }, slow));
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["CALL_TIMEOUT"]));
    expect(caller.target.stats().breakers).toMatchObject([{ state: "open" }]);

    const since = performance.now();
    const refused = await Promise.all(Array.from({ length: 50 }, () => raised(caller.call(shop.quote, { amount: 1 }))));
    expect(performance.now() - since).toBeLessThan(1_000);
    for (const error of refused) expect(error).toMatchObject({ code: "CALL_REFUSED", canRetry: true });
    expect(callee.shop.events).not.toContain("quote");

    await until(() => caller.target.stats().breakers[0]?.state === "halfOpen", "it may be tried");
    for (let call = 0; call < 5; call++) await caller.call(shop.quote, { amount: 1 });
    expect(caller.target.stats()).toMatchObject({ breakers: [{ state: "closed" }], refusedOpen: 50 });
  });

  it("is not blamed for what callers get wrong, nor for the errors its methods declare", async () => {
    const caller = callerOf({ urls: [callee.url], limits: { breaker: { callsMin: 3 } } });
    for (let call = 0; call < 10; call++) {
      await raised(caller.call(shop.quote, { amount: -1 }));
      await raised(caller.call(shop.fail, { how: "declared" }));
      await raised(caller.call(shop.fail, { how: "conflict" }));
      await raised(caller.call(shop.wait, { ms: 1_000 }, { deadlineMs: 5 }));
    }
    expect(caller.target.stats().breakers).toMatchObject([{ state: "closed" }]);
    for (let call = 0; call < 50; call++) await raised(caller.call(shop.fail, { how: "plain" }));
    expect(caller.target.stats().breakers).toMatchObject([{ state: "open" }]);
  });

  it("that hangs takes so many calls and no more of its caller", async () => {
    const caller = callerOf({ urls: [callee.url], limits: { ...calm, bulkhead: { underWayMax: 2, waitingMax: 1 } } });
    const controller = new AbortController();
    const hang = () =>
      raised(caller.call(shop.wait, { ms: 20_000 }, { deadlineMs: 20_000, signal: controller.signal }));
    const hanging = [hang(), hang()];
    await until(() => callee.shop.events.length === 2, "both are under way");

    const late = await raised(caller.call(shop.quote, { amount: 1 }, { deadlineMs: 50 }));
    expect(late).toMatchObject({ code: "CALL_TIMEOUT" });
    const waiting = caller.call(shop.quote, { amount: 1 }, { deadlineMs: 20_000 });
    await until(() => caller.target.stats().waiting === 1, "one waits");
    const error = await raised(caller.call(shop.order, { item: "egg" }));
    expect(error).toMatchObject({ code: "CALL_REFUSED", canRetry: true });
    expect(error.message).toContain("2 calls");
    expect(callee.shop.events).toEqual(["wait", "wait"]);

    controller.abort(new Error("no longer"));
    expect((await Promise.all(hanging)).map(({ message }) => message)).toEqual(["no longer", "no longer"]);
    expect(await waiting).toEqual({ fee: 0, total: 1 });
    expect(caller.target.stats()).toMatchObject({ underWay: 0, waiting: 0, refusedFull: 1 });
  });

  it("at one of several addresses costs no call", async () => {
    const second = await startCallee();
    stops.push(() => second.stop());
    const caller = callerOf({ urls: [callee.url, second.url] });
    for (let call = 0; call < 10; call++) await caller.call(shop.order, { item: "egg" });
    expect([callee.shop.events.length, second.shop.events.length]).toEqual([5, 5]);
    await callee.stop();
    const calls = Array.from({ length: 100 }, () => caller.call(shop.order, { item: "egg" }));
    await Promise.all(calls);
    expect(second.shop.events).toHaveLength(105);
    expect(caller.target.stats().retriesDenied).toBe(0);
  });
});

describe("two versions side by side", () => {
  const added = defineMethod("shop.added", { input: z.object({}), output: z.object({}), isSafe: true });
  /** Knows one more input field, and gives one more back. */
  const newQuote = defineMethod("shop.quote", {
    input: z.object({ amount: z.int(), percent: z.int().default(5) }),
    output: z.object({ fee: z.int(), total: z.int(), percent: z.int().optional() }),
    isSafe: true,
  });

  it("answer each other's callers as long as methods change by the rules", async () => {
    const methods = [
      serve(added, async () => ({})),
      serve(newQuote, async ({ amount, percent }) => {
        const fee = Math.floor((amount * percent) / 100);
        return { fee, total: amount + fee, percent };
      }),
      ...servedShop.filter(({ method }) => method.name !== "shop.quote"),
    ];
    const newer = await startCallee({ methods: methods as typeof servedShop });
    stops.push(() => newer.stop());
    const caller = callerOf({ urls: [callee.url, newer.url] });
    for (let call = 0; call < 4; call++) {
      expect(await caller.call(shop.quote, { amount: 200 })).toEqual({ fee: 10, total: 210 });
    }
    const answers = [];
    for (let call = 0; call < 2; call++) answers.push(await caller.call(newQuote, { amount: 200, percent: 10 }));
    expect(new Set(answers)).toEqual(
      new Set([
        { fee: 10, total: 210 },
        { fee: 20, total: 220, percent: 10 },
      ]),
    );
    const outcomes = [];
    for (let call = 0; call < 2; call++) {
      outcomes.push(
        await caller.call(added, {}).then(
          () => "done",
          ({ code }) => code,
        ),
      );
    }
    expect(new Set(outcomes)).toEqual(new Set(["done", "CALL_UNKNOWN"]));
  });
});

describe("a callee in a process of its own", () => {
  const program = fileURLToPath(new URL("./support/callee-program.ts", import.meta.url));
  const children: ChildProcess[] = [];

  async function spawnCallee(port: number): Promise<{ readonly child: ChildProcess; readonly url: string }> {
    const child = fork(program, [String(port)]);
    children.push(child);
    const [url] = (await once(child, "message")) as [string];
    return { child, url };
  }
  const kill = async (child: ChildProcess) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  afterEach(async () => {
    for (const child of children.splice(0)) await kill(child);
  });

  it("that is killed in the middle ends its calls at once, and serves again when it is back", async () => {
    const first = await spawnCallee(0);
    const port = Number(new URL(first.url).port);
    const caller = callerOf({ urls: [first.url], limits: { breaker: { callsMin: 5, openMs: 1_500 } } });
    expect(await caller.call(shop.order, { item: "egg" })).toEqual({ count: 1 });
    const calls = Array.from({ length: 20 }, () =>
      raised(caller.call(unsafeWait, { ms: 10_000 }, { deadlineMs: 8_000 })),
    );
    await until(() => caller.target.stats().underWay === 20, "all are under way");
    // What has connected has not been sent for sure: this comes back through the same connections' process.
    await caller.call(shop.quote, { amount: 1 });
    const since = performance.now();
    await kill(first.child);
    for (const error of await Promise.all(calls)) {
      expect(error).toMatchObject({ code: "CALL_UNREACHABLE", canRetry: false });
    }
    expect(performance.now() - since).toBeLessThan(2_000);
    expect(await raised(caller.call(shop.order, { item: "egg" }))).toMatchObject({ code: "CALL_REFUSED" });

    await spawnCallee(port);
    const isBack = () =>
      caller.call(shop.quote, { amount: 20 }).then(
        () => true,
        () => false,
      );
    await until(isBack, "it serves again");
    await until(async () => (await isBack()) && caller.target.stats().breakers[0]?.state === "closed", "it is trusted");
    expect(await caller.call(shop.order, { item: "egg" })).toEqual({ count: 1 });
  }, 30_000);

  it("that stops finishes what it has begun", async () => {
    const { child, url } = await spawnCallee(0);
    const caller = callerOf({ urls: [url] });
    const call = caller.call(unsafeWait, { ms: 150 });
    await until(() => caller.target.stats().underWay === 1, "it is under way");
    await caller.call(shop.quote, { amount: 1 });
    child.disconnect();
    expect(await call).toEqual({});
    await once(child, "exit");
    const error = await raised(caller.call(shop.order, { item: "egg" }));
    expect(error).toMatchObject({ code: "CALL_UNREACHABLE", canRetry: true });
  }, 30_000);
});
