/** Reading a request's key, and telling one request from another. */
import { createHash } from "node:crypto";
import { IdempotencyError } from "./idempotency-error.ts";

/** Longest key in characters. */
export const idempotencyKeyLengthMax = 255;

/**
 * The key in an `Idempotency-Key` header: 1 to 255 visible ASCII characters. The draft writes it as a string of structured
 * fields (RFC 9651), `"8e03978e"`, and most clients in use write it bare; both name the same key. Raises
 * `IDEMPOTENCY_KEY_MISSING` without one, `IDEMPOTENCY_KEY_INVALID` for any other text and for a repeated header.
 *
 * Source: draft-ietf-httpapi-idempotency-key-header-07, sections 2.1 and 2.7.
 */
export function readIdempotencyKey(header: string | readonly string[] | undefined): string {
  if (header === undefined || header === "" || (Array.isArray(header) && header.length === 0)) {
    throw new IdempotencyError(
      "IDEMPOTENCY_KEY_MISSING",
      "is missing: send a new unique value, such as a UUID, with each new request, and the same one with its repetitions",
    );
  }
  const text = typeof header === "string" ? header : header.join(", ");
  const key = text.startsWith('"') ? unquoted(text) : text;
  if (key === undefined || !/^[\x21-\x7e]+$/.test(key) || key.length > idempotencyKeyLengthMax) {
    throw new IdempotencyError(
      "IDEMPOTENCY_KEY_INVALID",
      `must be one value of 1 to ${idempotencyKeyLengthMax} visible ASCII characters`,
    );
  }
  return key;
}

/** The text of a structured field's string; undefined when it is none. */
function unquoted(text: string): string | undefined {
  const content = /^"((?:[^"\\]|\\["\\])*)"$/.exec(text)?.[1];
  return content?.replace(/\\(["\\])/g, "$1");
}

/**
 * What a request asks for, as 43 characters: equal for equal values, whatever the order of their fields. Put in what decides
 * its effect (operation, target, parsed body), and nothing that a repetition may change (time, request id).
 */
export function fingerprintOf(request: unknown): string {
  return createHash("sha256")
    .update(JSON.stringify(sorted(request)) ?? "")
    .digest("base64url");
}

/** The value with the fields of its objects in one order. JSON's own bounds hold: cycles raise a `RangeError`. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  if ("toJSON" in value && typeof value.toJSON === "function") return sorted(value.toJSON());
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  // A list of pairs and not an object, which would put number-like names first and drop "__proto__".
  return { fields: entries.map(([name, item]) => [name, sorted(item)]) };
}
