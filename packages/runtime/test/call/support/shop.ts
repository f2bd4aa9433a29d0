/** A service whose methods do what tests of calls need to see. */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { type Call, callError, defineMethod, type ServedMethod, serve } from "../../../src/call/index.ts";
import { ConfigError, ConflictError, UnavailableError } from "../../../src/kernel/errors.ts";

/** An error of the shop's own. */
export class SoldOutError extends Error {
  override readonly name = "SoldOutError";
  readonly left: number;
  readonly secret = "never sent";

  constructor(left: number) {
    super(`Only ${left} left.`);
    this.left = left;
  }
}

const soldOut = callError(SoldOutError, z.object({ left: z.int() }), ({ left }) => new SoldOutError(left));

/** Its methods. */
export const shop = {
  quote: defineMethod("shop.quote", {
    input: z.object({ amount: z.int().positive() }),
    output: z.object({ fee: z.int(), total: z.int() }),
    isSafe: true,
  }),
  /** Gives back what it was given, as it got it. */
  echo: defineMethod("shop.echo", { input: z.unknown(), output: z.unknown(), isSafe: true }),
  /** Neither safe nor idempotent. */
  order: defineMethod("shop.order", { input: z.object({ item: z.string() }), output: z.object({ count: z.int() }) }),
  /** Idempotent by its key. */
  pay: defineMethod("shop.pay", {
    input: z.object({ amount: z.int() }),
    output: z.object({ paid: z.int(), replayed: z.boolean() }),
    isIdempotent: true,
  }),
  fail: defineMethod("shop.fail", {
    input: z.object({ how: z.enum(["declared", "conflict", "unavailable", "config", "plain", "nothing", "late"]) }),
    output: z.object({}),
    isSafe: true,
    errors: { soldOut },
  }),
  failOnce: defineMethod("shop.fail_once", { input: z.object({}), output: z.object({}) }),
  describe: defineMethod("shop.describe", {
    input: z.object({}),
    output: z.object({
      remainingMs: z.number(),
      idempotencyKey: z.string(),
      caller: z.string(),
      traceparent: z.string(),
    }),
    isSafe: true,
  }),
  /** Waits, and notes when it is told to stop. */
  wait: defineMethod("shop.wait", { input: z.object({ ms: z.int() }), output: z.object({}), isSafe: true }),
  /** Waits, deaf to its signal. */
  deaf: defineMethod("shop.deaf", { input: z.object({ ms: z.int() }), output: z.object({}), isSafe: true }),
  /** Describes itself from a call within a call that was made after so long. */
  nested: defineMethod("shop.nested", {
    input: z.object({ afterMs: z.int(), deadlineMs: z.int().optional() }),
    output: z.object({ remainingMs: z.number(), traceparent: z.string(), outerTraceparent: z.string() }),
    isSafe: true,
    deadlineMs: 1_000,
  }),
  /** Answers at once, and calls itself after a while. */
  background: defineMethod("shop.background", {
    input: z.object({ afterMs: z.int() }),
    output: z.object({}),
    isSafe: true,
  }),
  /** Gives something else than it promised. */
  wrong: defineMethod("shop.wrong", { input: z.object({}), output: z.object({ count: z.int() }), isSafe: true }),
  nothing: defineMethod("shop.nothing", { input: z.undefined(), output: z.undefined() }),
  /** Gives a text of that length. */
  long: defineMethod("shop.long", { input: z.object({ characters: z.int() }), output: z.string(), isSafe: true }),
  /** Declared, and served by nobody. */
  unserved: defineMethod("shop.unserved", { input: z.object({}), output: z.object({}), isSafe: true }),
};

/** What the methods are given, and where they note what happens. */
export interface ShopContext {
  readonly call: Call;
  readonly events: string[];
  /** Answers of `pay` by key: what a table would be in an app. */
  readonly paid: Map<string, number>;
}

/** A context whose calls are set later. */
export function shopContext(call: () => Call): ShopContext {
  return { call: (...parameters) => call()(...parameters), events: [], paid: new Map() };
}

/** What answers them. */
export const servedShop: readonly ServedMethod<ShopContext>[] = [
  serve(shop.quote, async ({ amount }, _call, { events }: ShopContext) => {
    events.push("quote");
    const fee = Math.floor(amount / 20);
    return { fee, total: amount + fee, margin: "not for callers" };
  }),
  serve(shop.echo, async (input) => input),
  serve(shop.order, async (_input, _call, { events }: ShopContext) => {
    events.push("order");
    return { count: events.filter((event) => event === "order").length };
  }),
  serve(shop.pay, async ({ amount }, { idempotencyKey }, { events, paid }: ShopContext) => {
    events.push("pay");
    const known = paid.get(idempotencyKey);
    paid.set(idempotencyKey, known ?? amount);
    return { paid: known ?? amount, replayed: known !== undefined };
  }),
  serve(shop.fail, async ({ how }) => {
    if (how === "declared") throw new SoldOutError(3);
    if (how === "conflict") throw new ConflictError("NAME_TAKEN", "The name is taken.");
    if (how === "unavailable") throw new UnavailableError("POOL_EXHAUSTED", "No connection.", { canRetry: true });
    if (how === "config") throw new ConfigError("SHARD_KEY_MISSING", "A query without a key: select secret.");
    if (how === "late") throw new UnavailableError("STATEMENT_TIMEOUT", "It took too long.", { canRetry: false });
    if (how === "nothing") throw undefined;
    throw new Error("password=hunter2");
  }),
  serve(shop.failOnce, async () => {
    throw new UnavailableError("POOL_EXHAUSTED", "No connection.", { canRetry: true });
  }),
  serve(shop.describe, async (_input, { idempotencyKey, caller, traceparent, remainingMs }) => ({
    ...{ idempotencyKey, caller, traceparent, remainingMs: remainingMs() },
  })),
  serve(shop.wait, async ({ ms }, { signal }, { events }: ShopContext) => {
    events.push("wait");
    await sleep(ms, undefined, { signal }).catch(() => {
      events.push("stopped");
      throw signal.reason;
    });
    return {};
  }),
  serve(shop.deaf, async ({ ms }) => {
    await sleep(ms);
    return {};
  }),
  serve(shop.nested, async ({ afterMs, deadlineMs }, { traceparent }, { call }: ShopContext) => {
    await sleep(afterMs);
    const described = await call(shop.describe, {}, deadlineMs === undefined ? {} : { deadlineMs });
    return { ...described, outerTraceparent: traceparent };
  }),
  serve(shop.background, async ({ afterMs }, _call, { call, events }: ShopContext) => {
    const callLater = () =>
      call(shop.quote, { amount: 20 }).then(
        () => events.push("background: ok"),
        (error: Error) => events.push(`background: ${error.message}`),
      );
    setTimeout(callLater, afterMs);
    return {};
  }),
  serve(shop.wrong, async () => ({ count: "three" }) as never),
  serve(shop.nothing, async () => undefined),
  serve(shop.long, async ({ characters }) => "x".repeat(characters)),
];
