/** Keys as clients write them, and fingerprints. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fingerprintOf, readIdempotencyKey } from "../../src/idempotency/index.ts";

describe("readIdempotencyKey()", () => {
  it("reads bare and quoted keys as the same", () => {
    expect(readIdempotencyKey("8e03978e-40d5")).toBe("8e03978e-40d5");
    expect(readIdempotencyKey('"8e03978e-40d5"')).toBe("8e03978e-40d5");
    expect(readIdempotencyKey(String.raw`"a\"b\\c"`)).toBe(String.raw`a"b\c`);
    expect(readIdempotencyKey("x".repeat(255))).toHaveLength(255);
  });

  it.each([undefined, "", []])("calls %j missing", (header) => {
    expect(() => readIdempotencyKey(header)).toThrowError(
      expect.objectContaining({ code: "IDEMPOTENCY_KEY_MISSING", statusCode: 400 }),
    );
  });

  it.each([
    ["too long", "x".repeat(256)],
    ["a space", "a b"],
    ["a control character", "a\u0007"],
    ["beyond ASCII", "schlüssel"],
    ["an unclosed quote", '"abc'],
    ["an empty quoted text", '""'],
    ["two values", "a, b"],
    ["a repeated header", ["a", "b"]],
  ])("refuses %s", (_, header) => {
    expect(() => readIdempotencyKey(header)).toThrowError(
      expect.objectContaining({ code: "IDEMPOTENCY_KEY_INVALID", statusCode: 400 }),
    );
  });
});

describe("fingerprintOf()", () => {
  it("does not depend on the order of fields, and does on everything else", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        const [left, right] = [JSON.stringify(a), JSON.stringify(b)];
        expect(fingerprintOf(JSON.parse(left))).toBe(fingerprintOf(JSON.parse(left)));
        if (canonical(a) !== canonical(b))
          expect(fingerprintOf(JSON.parse(left))).not.toBe(fingerprintOf(JSON.parse(right)));
      }),
    );
    expect(fingerprintOf({ a: 1, b: [2, { c: 3, d: 4 }] })).toBe(fingerprintOf({ b: [2, { d: 4, c: 3 }], a: 1 }));
    expect(fingerprintOf({ a: 1, b: undefined })).toBe(fingerprintOf({ a: 1 }));
    expect(fingerprintOf([1, 2])).not.toBe(fingerprintOf([2, 1]));
    expect(fingerprintOf({ fields: [["a", 1]] })).not.toBe(fingerprintOf({ a: 1 }));
  });
});

/** JSON with its fields in one order, written another way than the code under test. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.keys(value)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonical((value as Record<string, unknown>)[name])}`)
    .join()}}`;
}
