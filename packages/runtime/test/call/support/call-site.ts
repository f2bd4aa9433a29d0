/** A caller and a callee: in one process as at rungs 1 to 4, or joined by HTTP on real servers of the web tier. */
import { pino } from "pino";
import { scopeCalls, serveCalls } from "../../../src/call/drivers/fastify-calls.ts";
import { httpCalls } from "../../../src/call/drivers/http-calls.ts";
import {
  type Call,
  type CallKey,
  type CallKeys,
  CallStats,
  type CallTarget,
  callSigner,
  callVerifier,
  createCalls,
  createCallTarget,
  createServedMethods,
  plainReads,
  type TargetLimits,
} from "../../../src/call/index.ts";
import { systemClock } from "../../../src/kernel/clock.ts";
import type { Logger } from "../../../src/kernel/log.ts";
import { systemRandom } from "../../../src/kernel/random.ts";
import { createMetrics } from "../../../src/monitor/index.ts";
import { createWebServer, type WebServer } from "../../../src/web/drivers/fastify-web.ts";
import { type ShopContext, servedShop, shopContext } from "./shop.ts";

/** Where the shop's methods are called. */
export const ways = ["in one process", "over HTTP"] as const;

export const testKey: CallKey = { id: "calls", secret: Buffer.alloc(32, 7) };

/** Keys that stay as they are, the newest last. */
export function fixedKeys(...keys: readonly CallKey[]): CallKeys {
  return {
    newest: () => keys.at(-1) as CallKey,
    find: async (id) => keys.find((key) => key.id === id),
  };
}

/** A line of a callee's log. */
export interface LogLine {
  readonly level: "warn" | "error";
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

export function memoryLog(): { readonly log: Logger; readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const noteAs = (level: LogLine["level"]) => (fields: object, message: string) =>
    void lines.push({ level, fields: fields as LogLine["fields"], message });
  return { lines, log: { debug() {}, info() {}, warn: noteAs("warn"), error: noteAs("error") } };
}

/** A running callee. */
export interface Callee {
  readonly url: string;
  readonly web: WebServer;
  readonly shop: ShopContext;
  readonly lines: readonly LogLine[];
  readonly refusals: ReadonlyMap<string, number>;
  readonly stats: CallStats;
  stop(): Promise<void>;
}

/** Starts the shop on a web server; it calls itself within its process. */
export async function startCallee(
  options: { readonly keys?: CallKeys; readonly methods?: typeof servedShop; readonly port?: number } = {},
): Promise<Callee> {
  const { keys = fixedKeys(testKey), methods = servedShop, port = 0 } = options;
  const { log, lines } = memoryLog();
  const metrics = createMetrics();
  const stats = new CallStats();
  const served = createServedMethods({ methods, reads: plainReads, clock: systemClock, log, stats });
  const context: ShopContext = shopContext(() => call);
  const call = createCalls({ served, context: () => context, caller: "shop", stats: new CallStats() });
  const web = createWebServer({
    ...{ host: "127.0.0.1", port, bodyLimitBytes: 1_048_576, requestTimeoutMs: 30_000 },
    ...{ log: pino({ level: "silent" }), metrics },
  });
  scopeCalls(web.fastify, { requestTimeoutMs: 30_000 });
  const verify = callVerifier({ keys, clock: systemClock });
  const refusals = serveCalls(web.fastify, { served, context, verify, log });
  const url = await web.listen();
  return {
    ...{ url, web, shop: context, lines, refusals, stats },
    async stop() {
      metrics.close();
      await web.close({ graceMs: 200 });
    },
  };
}

/** A caller that serves nothing itself. */
export interface Caller {
  readonly call: Call;
  readonly target: CallTarget;
  readonly stats: CallStats;
  stop(): Promise<void>;
}

/** Calls the shop at these addresses. */
export function startCaller(options: {
  readonly urls: readonly string[];
  readonly keys?: CallKeys;
  readonly limits?: TargetLimits;
  readonly caller?: string;
}): Caller {
  const { urls, keys = fixedKeys(testKey), limits = {}, caller = "front" } = options;
  const sign = callSigner({ keys, caller, clock: systemClock });
  const drivers = urls.map((url) => httpCalls({ url, sign }));
  const target = createCallTarget({ name: "shop", drivers, clock: systemClock, random: systemRandom, limits });
  const stats = new CallStats();
  const served = createServedMethods<undefined>({
    ...{ methods: [], reads: plainReads, clock: systemClock, log: memoryLog().log, stats: new CallStats() },
  });
  const targets = new Map([["shop", target]]);
  const call = createCalls({ served, context: () => undefined, targets, caller, stats });
  return { call, target, stats, stop: () => target.close() };
}

/** A shop and a way to call it. */
export interface CallSite {
  readonly call: Call;
  readonly shop: ShopContext;
  readonly lines: readonly LogLine[];
  stop(): Promise<void>;
}

/** Starts one. */
export async function startCallSite(way: (typeof ways)[number]): Promise<CallSite> {
  if (way === "over HTTP") {
    const callee = await startCallee();
    const caller = startCaller({ urls: [callee.url] });
    return {
      ...{ call: caller.call, shop: callee.shop, lines: callee.lines },
      async stop() {
        await caller.stop();
        await callee.stop();
      },
    };
  }
  const { log, lines } = memoryLog();
  const stats = new CallStats();
  const served = createServedMethods({ methods: servedShop, reads: plainReads, clock: systemClock, log, stats });
  const context = shopContext(() => call);
  const call = createCalls({ served, context: () => context, caller: "front", stats: new CallStats() });
  return { call, shop: context, lines, stop: async () => {} };
}

/** Asks until the answer is true; raises after 5 s. */
export async function until(ask: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!(await ask())) {
    if (performance.now() > deadline) throw new Error(`Not within 5 s: ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What a call raises. */
export async function raised(work: Promise<unknown>): Promise<Record<string, unknown> & Error> {
  return work.then(
    (value) => {
      throw new Error(`It gave ${JSON.stringify(value)} where an error was expected.`);
    },
    (error: unknown) => error as Record<string, unknown> & Error,
  );
}
