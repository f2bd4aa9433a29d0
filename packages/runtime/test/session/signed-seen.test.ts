import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import type { Seen } from "../../src/session/seen.ts";
import { latestSeen, newerPart } from "../../src/session/seen.ts";
import { seenSigner, sessionName, signedCharactersMax } from "../../src/session/signed-seen.ts";

const position = (lsn: number, timeline = 1) =>
  `${timeline.toString(16).padStart(8, "0")}${lsn.toString(16).padStart(16, "0")}`;
const key = Buffer.alloc(32, 7);
const signer = seenSigner(key);
const signed = (seen: Seen) => signer.sign({ seen }) as string;

describe("a signed note", () => {
  it("says what was signed, for any shards and positions", () => {
    const random = seededRandom(41);
    for (let round = 0; round < 200; round++) {
      const shards = Array.from({ length: 1 + Math.floor(random.next() * 20) }, () =>
        Math.floor(random.next() * 1_024),
      );
      const seen = Object.fromEntries(
        shards.map((shard) => [
          shard,
          position(Math.floor(random.next() * 2 ** 48), 1 + Math.floor(random.next() * 99)),
        ]),
      );
      expect(signer.read(signed(seen))).toEqual({ seen });
    }
  });

  it("says which revision of which session, with positions or without", () => {
    const record = { session: sessionName("token"), revision: 2 ** 48 - 1 };
    for (const seen of [{}, { 0: position(5) }, { 0: position(5), 900: position(77) }]) {
      expect(signer.read(String(signer.sign({ seen, record })))).toEqual({ seen, record });
    }
    expect(sessionName("token")).not.toBe(sessionName("other"));
  });

  it("of the time before there were revisions is believed, without one", () => {
    const [zero, five] = [Buffer.from([0]), Buffer.from(position(5), "hex")];
    const payload = Buffer.concat([Buffer.from([1]), zero, five]).toString("base64url");
    const mac = createHmac("sha256", key).update("rungs seen\n").update(payload).digest("base64url");
    expect(signer.read(`${payload}.${mac}`)).toEqual({ seen: { 0: position(5) } });
    expect(signed({ 0: position(5) })).toBe(`${payload}.${mac}`);
  });

  it("is believed by whoever has the key, and by nobody else", () => {
    const text = signed({ 0: position(5) });
    expect(seenSigner(Buffer.from(key)).read(text)).toEqual({ seen: { 0: position(5) } });
    expect(seenSigner(Buffer.alloc(32, 8)).read(text)).toBeUndefined();
  });

  it("is refused with any character changed, cut off or added", () => {
    const text = signed({ 0: position(5), 900: position(77) });
    for (let at = 0; at < text.length; at++) {
      const other = text[at] === "A" ? "B" : "A";
      const changed = text.slice(0, at) + other + text.slice(at + 1);
      const said = signer.read(changed);
      // The last character of each part has bits that base64url drops.
      if (said !== undefined) expect(Buffer.from(changed, "base64url")).toEqual(Buffer.from(text, "base64url"));
      expect(signer.read(text.slice(0, at))).toBeUndefined();
    }
    for (const wrong of ["", ".", "..", `${text}.`, `${text}.x`, `.${text}`, "x".repeat(100_000), "ü.ü"]) {
      expect(signer.read(wrong)).toBeUndefined();
    }
  });

  it("is refused when the same key signed something else", () => {
    const [payload = ""] = signed({ 0: position(5) }).split(".");
    const mac = createHmac("sha256", key).update(payload).digest("base64url");
    expect(signer.read(`${payload}.${mac}`)).toBeUndefined();
  });

  it("is not made when it would be too long to carry, nor when there is nothing to say", () => {
    const of = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, shard) => [shard, position(shard)]));
    const record = { session: sessionName("token"), revision: 1 };
    expect(signer.sign({ seen: {} })).toBeUndefined();
    expect(signed(of(155)).length).toBeLessThanOrEqual(signedCharactersMax);
    expect(signer.sign({ seen: of(154), record })?.length).toBeLessThanOrEqual(signedCharactersMax);
    expect(signer.sign({ seen: of(1_024) })).toBeUndefined();
    expect(signer.sign({ seen: of(1_024), record })).toBeUndefined();
  });
});

describe("what was seen", () => {
  it("is later by timeline first, and each shard by itself", () => {
    const a = { 0: position(9), 1: position(9) };
    const b = { 0: position(1, 2), 1: position(3), 2: position(4) };
    expect(newerPart(b, a)).toEqual({ 0: position(1, 2), 2: position(4) });
    expect(latestSeen(a, b)).toEqual({ 0: position(1, 2), 1: position(9), 2: position(4) });
    expect(latestSeen(b, a)).toEqual(latestSeen(a, b));
    expect(newerPart(a, a)).toEqual({});
  });
});
