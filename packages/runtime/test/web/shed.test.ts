/** Overload protection of a real server that is asked for four times what it can do, by a client on another thread. */
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import { createShedder } from "../../src/web/drivers/shed.ts";
import type { LoadAnswer, OpenLoopLoad } from "./support/open-loop-worker.ts";

/** Of the processor's time, so that what else runs on the machine changes how fast the server is and not what a request costs. */
const workMs = 3;
const capacity = 1_000 / workMs;
const slots = 8;

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

const usedMs = () => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
};

let worked = 0;
function work(): void {
  const until = usedMs() + workMs;
  while (usedMs() < until);
  worked++;
}

/** Work in one go: the loop is late, and requests wait in their sockets. */
const inOneGo: RequestListener = (_request, response) => {
  work();
  response.writeHead(200, { "content-length": 2 }).end("ok");
};

/** Work in turns behind a pool of slots, as with database connections: the loop is hardly late, and requests wait in the process. */
function inTurns(): RequestListener {
  let free = slots;
  const waiting: (() => void)[] = [];
  return async (_request, response) => {
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else free--;
    await nextTurn();
    work();
    const next = waiting.shift();
    if (next === undefined) free++;
    else next();
    response.writeHead(200, { "content-length": 2 }).end("ok");
  };
}

async function serve(handler: RequestListener): Promise<number> {
  const shedder = createShedder({ clock: systemClock, random: seededRandom(7) });
  const server = createServer(
    shedder.wrap((request, response) => {
      if (request.url === "/healthz") response.writeHead(200, { "content-length": 2 }).end("ok");
      else handler(request, response);
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => {
    shedder.stop();
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

const kinds = {
  signedIn: "cookie: __Host-session=1\r\n",
  anonymous: "user-agent: Mozilla/5.0\r\n",
  bot: "user-agent: bingbot/2.0\r\n",
};

async function load(port: number, options: Pick<OpenLoopLoad, "ratePerSecond" | "durationMs" | "settleMs" | "kinds">) {
  const workerData: OpenLoopLoad = { port, connections: 200, ...options };
  // From the end of settling on: which part of this thread's time went into requests that were answered, and whether it was ever idle.
  const before = { atMs: 0, worked: 0, usedMs: 0, loop: performance.eventLoopUtilization() };
  const settled = setTimeout(() => {
    Object.assign(before, {
      atMs: performance.now(),
      worked,
      usedMs: usedMs(),
      loop: performance.eventLoopUtilization(),
    });
  }, options.settleMs);
  const worker = new Worker(new URL("./support/open-loop-worker.ts", import.meta.url), { workerData });
  const answers = await new Promise<LoadAnswer[]>((resolve, reject) => {
    worker.once("message", resolve).once("error", reject);
  });
  clearTimeout(settled);
  const usefulShare = ((worked - before.worked) * workMs) / (usedMs() - before.usedMs);
  // What else runs on the machine makes every wait longer by this.
  const slowness = (performance.now() - before.atMs) / (usedMs() - before.usedMs);
  const { utilization } = performance.eventLoopUtilization(before.loop);
  const accepted = answers.filter(({ kind, status }) => status === 200 && kind !== "health");
  const times = accepted.map(({ ms }) => ms).sort((a, b) => a - b);
  const shedOf = (name: string) => {
    const own = answers.filter(({ kind }) => kind === name);
    return own.filter(({ status }) => status === 503).length / own.length;
  };
  const statuses = new Set(answers.map(({ status }) => status));
  return {
    usefulShare,
    utilization,
    accepted: accepted.length,
    p99Ms: (times[Math.floor(times.length * 0.99)] ?? 0) / slowness,
    shedOf,
    statuses,
  };
}

describe.each([
  ["in one go", () => inOneGo],
  ["in turns, behind a pool", inTurns],
])("a server that works %s, asked for four times what it can do", (_, handler) => {
  it("spends its time on requests that it answers, in time, health checks always, and bots last", {
    timeout: 30_000,
    // It measures: on a machine that does much else beside, once may be too few.
    retry: 2,
  }, async () => {
    const port = await serve(handler());
    const health = { ...kinds, health: "user-agent: probe\r\n" };
    const during = await load(port, {
      ...{ ratePerSecond: capacity * 4, durationMs: 5_000, settleMs: 2_500 },
      kinds: health,
    });
    expect(during.accepted).toBeGreaterThan(20);
    expect(during.utilization).toBeGreaterThan(0.85);
    expect(during.usefulShare).toBeGreaterThan(0.7);
    expect(during.p99Ms).toBeLessThan(1_000);
    expect([...during.statuses].sort()).toEqual([200, 503]);
    expect(during.shedOf("health")).toBe(0);
    expect(during.shedOf("bot")).toBeGreaterThan(0.5);
    expect(during.shedOf("signedIn")).toBeLessThan(during.shedOf("bot") * 0.8);
  });
});
