/** The overload gate against a modelled server: goodput stays flat past saturation, and the right requests are shed. */
import { describe, expect, it } from "vitest";
import { classOf, OverloadGate, type RequestClass } from "../../src/web/overload.ts";

const tickMs = 50;
const options = { latenessMsMax: 100, waitMsMax: 300, requestsMin: 16 };
/** What a refusal costs beside a request. */
const refusalCost = 0.05;

/**
 * One process that does `capacity` requests a second. Gives what was answered a second, by class, and how long the last one admitted
 * had to wait at the worst, both after five seconds of settling.
 */
function serve(load: {
  readonly capacity: number;
  readonly arrivals: Readonly<Partial<Record<RequestClass, number>>>;
}) {
  const gate = new OverloadGate(options);
  const admitted = { signedIn: 0, anonymous: 0, bot: 0 };
  const offered = { signedIn: 0, anonymous: 0, bot: 0 };
  let underWay = 0;
  let answered = 0;
  let worst = 0;
  const [settling, ticks] = [100, 500];
  for (let tick = 0; tick < ticks; tick++) {
    let refused = 0;
    const most = Math.max(...Object.values(load.arrivals)) * (tickMs / 1_000);
    for (let turn = 0; turn < most; turn++) {
      for (const [name, perSecond] of Object.entries(load.arrivals)) {
        if (turn >= (perSecond * tickMs) / 1_000) continue;
        const kind = name as RequestClass;
        const isAdmitted = gate.admit(kind, underWay);
        if (isAdmitted) underWay++;
        else refused++;
        if (tick < settling) continue;
        offered[kind]++;
        if (isAdmitted) admitted[kind]++;
      }
    }
    if (tick >= settling) worst = Math.max(worst, underWay);
    const finished = Math.min(underWay, Math.max(0, (load.capacity * tickMs) / 1_000 - refused * refusalCost));
    underWay -= finished;
    if (tick >= settling) answered += finished;
    gate.tick({ underWay, latenessMs: 0, finished, elapsedMs: tickMs, isSaturated: underWay > 0 });
  }
  const share = (kind: RequestClass) => admitted[kind] / Math.max(1, offered[kind]);
  const perSecond = (answered * 1_000) / ((ticks - settling) * tickMs);
  return { perSecond, share, waitMs: (worst * 1_000) / load.capacity, stats: gate.stats() };
}

describe("the overload gate", () => {
  it("admits everything below capacity", () => {
    const { stats, share } = serve({ capacity: 1_000, arrivals: { anonymous: 900 } });
    expect(share("anonymous")).toBe(1);
    expect(stats).toMatchObject({ isOverloaded: false, underWayMax: Number.POSITIVE_INFINITY });
  });

  it.each([
    [2, 0.9],
    [5, 0.75],
  ])("keeps goodput at %d times the capacity near what refusals leave, and the wait bounded", (times, least) => {
    const { perSecond, waitMs, stats } = serve({ capacity: 1_000, arrivals: { signedIn: 1_000 * times } });
    expect(stats.isOverloaded).toBe(true);
    expect(perSecond).toBeGreaterThan(1_000 * least);
    expect(waitMs).toBeLessThan(400);
  });

  it("sheds declared bots first and signed-in users last", () => {
    const { share } = serve({ capacity: 1_000, arrivals: { signedIn: 600, anonymous: 600, bot: 600 } });
    expect(share("signedIn")).toBeGreaterThan(0.97);
    expect(share("anonymous")).toBeGreaterThan(0.3);
    expect(share("bot")).toBeLessThan(0.1);
  });

  const busy = { underWay: 5_000, latenessMs: 0, finished: 10, elapsedMs: tickMs, isSaturated: true };
  const calm = { underWay: 0, latenessMs: 0, finished: 0, elapsedMs: tickMs, isSaturated: false };

  it("sheds nothing for a burst, nor for one long pause", () => {
    const gate = new OverloadGate(options);
    for (let count = 0; count < 100; count++) gate.admit("bot", 0);
    gate.tick({ ...busy, latenessMs: 5_000, elapsedMs: 5_000, underWay: 100, finished: 100 });
    expect(gate.stats().isOverloaded).toBe(false);
    gate.tick(calm);
    for (let tick = 0; tick < 9; tick++) gate.tick(busy);
    expect(gate.admit("bot", 5_000)).toBe(true);
    gate.tick(busy);
    expect(gate.admit("signedIn", 5_000)).toBe(false);
  });

  it("sheds nothing while what is under way waits for something slow", () => {
    const gate = new OverloadGate(options);
    for (let tick = 0; tick < 100; tick++) gate.tick({ ...busy, isSaturated: false });
    expect(gate.admit("bot", 5_000)).toBe(true);
  });

  it("sheds when a busy loop is late time and again, and not when there are hardly any requests", () => {
    for (const [arrivals, isOverloaded] of [
      [50, true],
      [3, false],
    ] as const) {
      const gate = new OverloadGate(options);
      for (let tick = 0; tick < 2; tick++) {
        for (let count = 0; count < arrivals; count++) gate.admit("anonymous", count);
        gate.tick({ ...busy, underWay: 0, latenessMs: 300, elapsedMs: 300, finished: arrivals });
      }
      expect(gate.stats().isOverloaded).toBe(isOverloaded);
    }
  });

  it("does not take what it lets through for all that could be done", () => {
    const gate = new OverloadGate(options);
    for (let tick = 0; tick < 20; tick++) gate.tick({ ...busy, finished: 50 });
    expect(gate.stats().underWayMax).toBeCloseTo(300);
    for (let tick = 0; tick < 40; tick++) gate.tick({ ...busy, finished: 1 });
    expect(gate.stats().underWayMax).toBeGreaterThan(250);
    for (let tick = 0; tick < 4_000; tick++) gate.tick({ ...busy, finished: 0 });
    expect(gate.stats().underWayMax).toBe(16);
  });

  it("admits everything again soon after the overload", () => {
    const gate = new OverloadGate(options);
    for (let tick = 0; tick < 30; tick++) gate.tick(busy);
    expect(gate.stats().isOverloaded).toBe(true);
    for (let tick = 0; tick < 10; tick++) gate.tick(calm);
    expect(gate.stats().isOverloaded).toBe(false);
    expect(gate.admit("bot", 5_000)).toBe(true);
  });
});

describe("the class of a request", () => {
  const of = (url: string, headers: Record<string, string> = {}) => classOf({ url, headers });

  it("is told by its address and headers", () => {
    expect(of("/healthz")).toBe("always");
    expect(of("/readyz?verbose")).toBe("always");
    expect(of("/healthzz")).toBe("anonymous");
    expect(of("/", { cookie: "theme=dark; __Host-session=abc" })).toBe("signedIn");
    expect(of("/", { cookie: "other_session=abc" })).toBe("anonymous");
    expect(of("/api/user", { authorization: "Token abc" })).toBe("signedIn");
  });

  it.each([
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; Bytespider; spider-feedback@bytedance.com)",
    "CCBot/2.0 (https://commoncrawl.org/faq/)",
  ])("is bot for one that says so: %s", (agent) => {
    expect(of("/", { "user-agent": agent, cookie: "session=x" })).toBe("bot");
  });

  it.each([
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 14; CUBOT X70) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile Safari/537.36",
  ])("is not bot for a person's browser: %s", (agent) => {
    expect(of("/", { "user-agent": agent })).toBe("anonymous");
  });
});
