import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { localAttemptStore } from "../../src/session/drivers/local-attempt-store.ts";
import { createLoginThrottle, type LoginThrottleOptions } from "../../src/session/login-throttle.ts";

const windowMs = 15 * 60_000;

function setUp(options: Partial<LoginThrottleOptions> & { keysMax?: number } = {}) {
  let now = windowMs * 1_000_000;
  const { keysMax, ...rest } = options;
  const store = localAttemptStore(keysMax === undefined ? {} : { keysMax });
  const throttle = createLoginThrottle({ store, clock: { now: () => now, monotonic: () => now }, ...rest });
  return {
    throttle,
    advance: (ms: number) => {
      now += ms;
    },
    /** Tries `count` times at once; gives how many were allowed. */
    async allowed(count: number, account = "ann@example.com", address = "192.0.2.1") {
      const verdicts = await Promise.all(Array.from({ length: count }, () => throttle.attempt({ account, address })));
      return verdicts.filter(({ isAllowed }) => isAllowed).length;
    },
  };
}

const ann = { account: "ann@example.com", address: "192.0.2.1" };

describe("the login throttle", () => {
  it("allows ten failures of an account in a window, from wherever, even all at once", async () => {
    const { throttle } = setUp();
    const verdicts = await Promise.all(
      Array.from({ length: 500 }, (_, index) => throttle.attempt({ ...ann, address: `198.51.100.${index % 250}` })),
    );
    expect(verdicts.filter(({ isAllowed }) => isAllowed)).toHaveLength(10);
  });

  it("allows a hundred failures from an address in a window, at whatever accounts", async () => {
    const { throttle } = setUp();
    let allowed = 0;
    for (let index = 0; index < 150; index++) {
      if ((await throttle.attempt({ ...ann, account: `user${index}` })).isAllowed) allowed++;
    }
    expect(allowed).toBe(100);
  });

  it("says when to come back, and means it to the millisecond", async () => {
    const seed = Number(process.env["SEED"] ?? Date.now() % 1e9);
    console.log(`login throttle seed ${seed}; set SEED to replay`);
    const random = seededRandom(seed);
    for (let round = 0; round < 50; round++) {
      const { throttle, advance } = setUp({ failuresPerAccountMax: 1 + Math.floor(random.next() * 10) });
      for (let step = 0; step < 40; step++) {
        const verdict = await throttle.attempt(ann);
        if (verdict.isAllowed) {
          advance(Math.floor(random.next() * 3 * 60_000));
          continue;
        }
        expect(verdict.retryAfterMs).toBeGreaterThan(0);
        expect(verdict.retryAfterMs).toBeLessThanOrEqual(2 * windowMs);
        advance(verdict.retryAfterMs - 1);
        expect(await throttle.attempt(ann)).toEqual({ isAllowed: false, retryAfterMs: 1 });
        advance(1);
        expect(await throttle.attempt(ann)).toEqual({ isAllowed: true, retryAfterMs: 0 });
      }
    }
  });

  it("slides: a full window still weighs at the start of the next, and less as it goes", async () => {
    const { advance, allowed } = setUp();
    advance(windowMs - 1);
    expect(await allowed(20)).toBe(10);
    advance(1);
    expect(await allowed(20)).toBe(0);
    advance(windowMs / 2);
    expect(await allowed(20)).toBe(5);
    advance(2 * windowMs);
    expect(await allowed(20)).toBe(10);
  });

  it("does not lengthen a lock by tries that were refused", async () => {
    const { throttle, allowed } = setUp();
    await allowed(10);
    const first = await throttle.attempt(ann);
    await allowed(1_000);
    expect(await throttle.attempt(ann)).toEqual(first);
  });

  it("forgets an account's failures at a success, but not the address's", async () => {
    const { throttle, allowed } = setUp({ failuresPerAddressMax: 15 });
    expect(await allowed(10)).toBe(10);
    await throttle.succeeded(ann);
    expect(await allowed(10)).toBe(6);
  });

  it("counts no try that could not be checked", async () => {
    const { throttle, allowed } = setUp();
    for (let index = 0; index < 50; index++) {
      expect((await throttle.attempt(ann)).isAllowed).toBe(true);
      await throttle.abandoned(ann);
    }
    expect(await allowed(20)).toBe(10);
  });

  it("never counts below zero", async () => {
    const { throttle, allowed } = setUp();
    for (let index = 0; index < 20; index++) await throttle.abandoned(ann);
    expect(await allowed(20)).toBe(10);
  });

  it("takes an account for the same in any case, and an IPv6 subscriber's addresses for one", async () => {
    const { throttle } = setUp({ failuresPerAccountMax: 2, failuresPerAddressMax: 3 });
    const tryAs = async (account: string, address: string) => (await throttle.attempt({ account, address })).isAllowed;
    expect(await tryAs("Ann@Example.com", "192.0.2.1")).toBe(true);
    expect(await tryAs("ann@example.COM", "192.0.2.2")).toBe(true);
    expect(await tryAs("ANN@example.com", "192.0.2.3")).toBe(false);

    expect(await tryAs("b1", "2001:db8:0:7::1")).toBe(true);
    expect(await tryAs("b2", "2001:db8::7:aaaa:bbbb:cccc:dddd")).toBe(true);
    expect(await tryAs("b3", "2001:0db8:0000:0007:1:2:3:4")).toBe(true);
    expect(await tryAs("b4", "2001:db8:0:7:ffff::")).toBe(false);
    expect(await tryAs("b5", "2001:db8:0:8::1")).toBe(true);
    expect(await tryAs("b6", "::1")).toBe(true);

    for (const index of [1, 2, 3]) expect(await tryAs(`c${index}`, "203.0.113.9")).toBe(true);
    expect(await tryAs("c4", "::ffff:203.0.113.9")).toBe(false);
  });

  it("remembers a bounded number of keys", async () => {
    const { allowed } = setUp({ keysMax: 10 });
    expect(await allowed(10)).toBe(10);
    expect(await allowed(1)).toBe(0);
    for (let index = 0; index < 20; index++) await allowed(1, `other${index}`, `192.0.2.${index + 10}`);
    expect(await allowed(1)).toBe(1);
  });
});
