/** The overload gate against a modelled server: goodput stays flat past saturation, and the right requests are shed. */
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { classOf, OverloadGate, type RequestClass } from "../../src/web/overload.ts";

const tickMs = 50;
const targetMs = 50;
/** What a refusal costs beside a request. */
const refusalCost = 0.05;

/**
 * One process that does `capacity` requests a second one after the other. Lateness is the work that waits. Gives what was
 * answered a second, by class, and how late it was at the worst, both after five seconds of settling.
 */
function serve(load: {
  readonly capacity: number;
  readonly arrivals: Readonly<Partial<Record<RequestClass, number>>>;
}) {
  const gate = new OverloadGate({ random: seededRandom(7) });
  const answered = { signedIn: 0, anonymous: 0, bot: 0 };
  const offered = { signedIn: 0, anonymous: 0, bot: 0 };
  const workMsOf = 1_000 / load.capacity;
  let waitingMs = 0;
  let worstMs = 0;
  const [settling, ticks] = [100, 500];
  for (let tick = 0; tick < ticks; tick++) {
    for (const [name, perSecond] of Object.entries(load.arrivals)) {
      const kind = name as RequestClass;
      for (let count = 0; count < (perSecond * tickMs) / 1_000; count++) {
        const isAdmitted = gate.admit(kind);
        waitingMs += isAdmitted ? workMsOf : workMsOf * refusalCost;
        if (tick < settling) continue;
        offered[kind]++;
        if (isAdmitted) answered[kind]++;
      }
    }
    if (tick >= settling) worstMs = Math.max(worstMs, waitingMs);
    waitingMs = Math.max(0, waitingMs - tickMs);
    gate.tick(waitingMs / targetMs);
  }
  const seconds = ((ticks - settling) * tickMs) / 1_000;
  const perSecond = (answered.signedIn + answered.anonymous + answered.bot) / seconds;
  const share = (kind: RequestClass) => answered[kind] / Math.max(1, offered[kind]);
  return { perSecond, share, worstMs, stats: gate.stats() };
}

describe("the overload gate", () => {
  it("admits everything below capacity", () => {
    const { stats, share } = serve({ capacity: 1_000, arrivals: { anonymous: 900 } });
    expect(share("anonymous")).toBe(1);
    expect(stats.admittedShare).toBe(1);
  });

  it.each([
    [2, 0.85],
    [5, 0.7],
  ])("keeps goodput at %d times the capacity near what refusals leave, and lateness bounded", (times, least) => {
    const { perSecond, worstMs } = serve({ capacity: 1_000, arrivals: { anonymous: 1_000 * times } });
    expect(perSecond).toBeGreaterThan(1_000 * least);
    expect(worstMs).toBeLessThan(6 * targetMs);
  });

  it("sheds declared bots first and signed-in users last", () => {
    const { share } = serve({ capacity: 1_000, arrivals: { signedIn: 600, anonymous: 600, bot: 600 } });
    expect(share("signedIn")).toBeGreaterThan(0.97);
    expect(share("anonymous")).toBeGreaterThan(0.3);
    expect(share("bot")).toBeLessThan(0.1);
  });

  it("sheds nothing for one long pause", () => {
    const gate = new OverloadGate({ random: seededRandom(7) });
    gate.admit("anonymous");
    gate.tick(100);
    for (let tick = 0; tick < 8; tick++) gate.tick(2);
    expect(gate.stats().admittedShare).toBe(1);
    gate.tick(2);
    expect(gate.stats().admittedShare).toBeLessThan(1);
  });

  it("admits everything again soon after a burst", () => {
    const gate = new OverloadGate({ random: seededRandom(7) });
    for (let tick = 0; tick < 30; tick++) {
      for (let count = 0; count < 100; count++) gate.admit("anonymous");
      gate.tick(10);
    }
    expect(gate.stats().admittedShare).toBeLessThan(0.05);
    for (let tick = 0; tick < 40; tick++) {
      gate.admit("anonymous");
      gate.tick(0);
    }
    expect(gate.stats().admittedShare).toBe(1);
    expect(gate.admit("bot")).toBe(true);
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
