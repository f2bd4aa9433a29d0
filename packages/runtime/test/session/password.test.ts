import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { hashSync } from "@node-rs/argon2";
import { describe, expect, it } from "vitest";
import { ConfigError, UnavailableError } from "../../src/kernel/errors.ts";
import { createPasswords } from "../../src/session/password.ts";

/** Cheap parameters for tests that are not about cost. */
const cheap = { memoryKib: 64, passes: 1 };

/** Longest stall of the event loop during the work, in milliseconds. */
async function longestStallMs(work: () => Promise<void>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  // The histogram measures from tick to tick, so it needs one before the work and one after it.
  await new Promise((resolve) => setTimeout(resolve, 20));
  await work();
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.disable();
  return delay.max / 1e6;
}

describe("passwords", () => {
  it("are hashed by argon2id with OWASP's parameters and a salt of their own", async () => {
    const passwords = createPasswords();
    const [first, second] = await Promise.all([passwords.hash("jakejake"), passwords.hash("jakejake")]);
    expect(first).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(first).not.toBe(second);
    expect(await passwords.verifyOrDummy("jakejake", first)).toBe(true);
    expect(await passwords.verifyOrDummy("jakejakE", first)).toBe(false);
    expect(await passwords.verifyOrDummy("", first)).toBe(false);
  });

  it("fit however the same characters were typed", async () => {
    const passwords = createPasswords(cheap);
    const hash = await passwords.hash("pässword");
    expect(await passwords.verifyOrDummy("pa\u0308ssword", hash)).toBe(true);
  });

  it("are refused without a hash, whatever they are", async () => {
    const passwords = createPasswords(cheap);
    for (const password of ["", "password", "\0".repeat(32), "nobody's password"]) {
      expect(await passwords.verifyOrDummy(password, undefined)).toBe(false);
    }
  });

  it("take as long to check for an unknown account as for a wrong password", async () => {
    const passwords = createPasswords();
    const hash = await passwords.hash("right password");
    const timed = async (known: string | undefined) => {
      const since = performance.now();
      await passwords.verifyOrDummy("wrong password", known);
      return performance.now() - since;
    };
    const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
    const unknown: number[] = [];
    const wrong: number[] = [];
    for (let round = 0; round < 9; round++) {
      unknown.push(await timed(undefined));
      wrong.push(await timed(hash));
    }
    const ratio = median(unknown) / median(wrong);
    expect(ratio).toBeGreaterThan(0.6);
    expect(ratio).toBeLessThan(1.67);
  });

  it("leave the event loop free while eight are hashed, which a blocking hash does not", async () => {
    const passwords = createPasswords();
    const options = { algorithm: 2, memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const;
    const free = await longestStallMs(async () => {
      await Promise.all(Array.from({ length: 8 }, () => passwords.hash("password")));
    });
    const planted = await longestStallMs(async () => {
      for (let i = 0; i < 8; i++) hashSync("password", options);
    });
    expect(free).toBeLessThan(planted / 3);
  });

  it("are hashed a bounded number at once, wait in a bounded queue, and are refused past it", async () => {
    const passwords = createPasswords({ ...cheap, concurrencyMax: 2, queueMax: 3 });
    // The second burst finds the same places as the first: none was lost and none was won.
    for (const _burst of [1, 2]) {
      const calls = Array.from({ length: 8 }, () => passwords.hash("password"));
      const results = await Promise.allSettled(calls);
      expect(results.map(({ status }) => status)).toEqual([
        ...Array<string>(5).fill("fulfilled"),
        ...Array<string>(3).fill("rejected"),
      ]);
      for (const call of calls.slice(5)) {
        await expect(call).rejects.toBeInstanceOf(UnavailableError);
        await expect(call).rejects.toMatchObject({ code: "OVERLOADED", canRetry: true });
      }
    }
    // The places come back, after failures too.
    await expect(passwords.verifyOrDummy("password", "damaged")).rejects.toThrow();
    await expect(passwords.verifyOrDummy("password", "damaged")).rejects.toThrow();
    expect(await Promise.all(Array.from({ length: 5 }, () => passwords.hash("password")))).toHaveLength(5);
  });

  it("keep the length bounds of the app, in characters", async () => {
    const passwords = createPasswords({ ...cheap, charactersMin: 8, charactersMax: 12 });
    for (const password of ["1234567", "1234567890123", "😀".repeat(13), "x".repeat(1e6), ""]) {
      await expect(passwords.hash(password), password.slice(0, 20)).rejects.toBeInstanceOf(RangeError);
    }
    const hash = await passwords.hash("😀".repeat(12));
    expect(await passwords.verifyOrDummy("😀".repeat(12), hash)).toBe(true);
    expect(await passwords.verifyOrDummy("😀".repeat(13), hash)).toBe(false);
    expect(await passwords.verifyOrDummy("x".repeat(1e6), hash)).toBe(false);
    expect(() => createPasswords({ charactersMin: 9, charactersMax: 8 })).toThrow(ConfigError);
    expect(() => createPasswords({ concurrencyMax: 0 })).toThrow(ConfigError);
  });

  it("need a new hash when the parameters have changed since", async () => {
    const old = await createPasswords(cheap).hash("password");
    expect(createPasswords(cheap).needsRehash(old)).toBe(false);
    expect(createPasswords({ ...cheap, passes: 2 }).needsRehash(old)).toBe(true);
    expect(createPasswords().needsRehash(old)).toBe(true);
    expect(await createPasswords().verifyOrDummy("password", old)).toBe(true);
  });
});
