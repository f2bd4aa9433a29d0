/** Signed addresses: good for their path and time, and for nothing else. */
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, it } from "vitest";
import { createPathSigner } from "../../src/storage/index.ts";

/** Stands still until it is set on. */
class SetClock {
  private at: number;
  constructor(at: number) {
    this.at = at;
  }
  now = () => this.at;
  monotonic = () => this.at;
  advance(ms: number): void {
    this.at += ms;
  }
}

const key = randomBytes(32);
const path = "/private/0190c7a0-0000-7000-8000-000000000001/film.mp4";

it("opens its own path, for at least as long as was asked and at most half as long again", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1_000, max: 7 * 24 * 3_600_000 }),
      fc.integer({ min: 0, max: 4e12 }),
      (validMs, now) => {
        const clock = new SetClock(now);
        const signer = createPathSigner({ keys: [key], clock });
        const address = signer.sign(path, { validMs });
        const leftMs = signer.check(address) as number;
        expect(leftMs).toBeGreaterThanOrEqual(validMs);
        expect(leftMs).toBeLessThanOrEqual(validMs * 1.5 + 2_000);
        clock.advance(leftMs - 1);
        expect(signer.check(address)).toBe(1);
        clock.advance(1);
        expect(signer.check(address)).toBeUndefined();
      },
    ),
  );
});

it("gives the same address again for a while, so that caches find the file", () => {
  const clock = new SetClock(1_000_000_000_000);
  const signer = createPathSigner({ keys: [key], clock });
  const addresses = new Set<string>();
  for (let minute = 0; minute < 60; minute++) {
    addresses.add(signer.sign(path));
    clock.advance(60_000);
  }
  expect(addresses.size).toBeLessThanOrEqual(3);
});

it("opens nothing once a character of it is changed, and nothing with another key", () => {
  const signer = createPathSigner({ keys: [key] });
  const address = signer.sign(path);
  expect(signer.check(address)).toBeGreaterThan(0);
  fc.assert(
    fc.property(
      fc.nat(address.length - 1),
      fc.constantFrom("a", "B", "0", "9", "/", "-", "&", "%"),
      (at, character) => {
        const changed = `${address.slice(0, at)}${character}${address.slice(at + 1)}`;
        // The last character of 32 bytes in base64url holds two bits that mean nothing.
        const isSame =
          at === address.length - 1 &&
          Buffer.from(changed.slice(-43), "base64url").equals(Buffer.from(address.slice(-43), "base64url"));
        expect(signer.check(changed) !== undefined).toBe(changed === address || isSame);
      },
    ),
  );
  for (const wrong of [
    path,
    `${path}?expires=99999999999`,
    `${address}&x=1`,
    `${address}#x`,
    address.replace("?", "?x=1&"),
    "",
  ])
    expect(signer.check(wrong), wrong).toBeUndefined();
  expect(createPathSigner({ keys: [randomBytes(32)] }).check(address)).toBeUndefined();
});

it("checks by the old key too while keys change", () => {
  const next = randomBytes(32);
  const [before, between, after] = [[key], [next, key], [next]].map((keys) =>
    createPathSigner({ keys: keys as [Buffer, ...Buffer[]] }),
  );
  const old = before?.sign(path) as string;
  expect([between?.check(old), after?.check(old)].map((left) => left !== undefined)).toEqual([true, false]);
  expect(after?.check(between?.sign(path) as string)).toBeGreaterThan(0);
});
