/**
 * PostgreSQL's own 64-bit key hash, in TypeScript: `uuid_hash_extended(key, seed)` and `hashtextextended(key, seed)`.
 *
 * Rungs places rows by this hash so that the server can check, filter and move them with the very same function.
 * Method: Bob Jenkins' lookup3 as PostgreSQL uses it, `hash_bytes_extended` in src/common/hashfn.c.
 * The test compares both with a real server over many keys.
 */

const INITIAL = 0x9e3779b9 + 3923095;

/** The hash of a key's bytes as its two 32-bit halves; `low` is what bucket masks use. Both are unsigned. */
export interface PostgresHash {
  readonly high: number;
  readonly low: number;
}

/** Hash of a UUID in its text form, equal to `uuid_hash_extended(key::uuid, 0)`; undefined when it is not a UUID. */
export function hashUuid(key: string): PostgresHash | undefined {
  const bytes = uuidBytes(key);
  return bytes === undefined ? undefined : hashBytes(bytes);
}

/** Hash of a text key in UTF-8, equal to `hashtextextended(key, 0)` under a deterministic collation. */
export function hashText(key: string): PostgresHash {
  return hashBytes(new TextEncoder().encode(key));
}

/** Whether the key is a UUID as PostgreSQL prints it, its letters in either case. */
export function isUuid(key: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(key);
}

function uuidBytes(key: string): Uint8Array | undefined {
  if (!isUuid(key)) return undefined;
  const bytes = new Uint8Array(16);
  let at = 0;
  for (let i = 0; i < 36; i += 2) {
    if (key.charCodeAt(i) === 45) i++;
    bytes[at++] = Number.parseInt(key.slice(i, i + 2), 16);
  }
  return bytes;
}

const rotate = (value: number, bits: number) => (value << bits) | (value >>> (32 - bits));

function hashBytes(bytes: Uint8Array): PostgresHash {
  const word = (at: number) =>
    byte(bytes, at) | (byte(bytes, at + 1) << 8) | (byte(bytes, at + 2) << 16) | (byte(bytes, at + 3) << 24);
  let a = (INITIAL + bytes.length) | 0;
  let b = a;
  let c = a;
  let at = 0;
  for (; bytes.length - at >= 12; at += 12) {
    a = (a + word(at)) | 0;
    b = (b + word(at + 4)) | 0;
    c = (c + word(at + 8)) | 0;
    a = ((a - c) | 0) ^ rotate(c, 4);
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ rotate(a, 6);
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ rotate(b, 8);
    b = (b + a) | 0;
    a = ((a - c) | 0) ^ rotate(c, 16);
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ rotate(a, 19);
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ rotate(b, 4);
    b = (b + a) | 0;
  }
  // The tail is read as little-endian words; the lowest byte of c stays free, as in the original.
  a = (a + word(at)) | 0;
  b = (b + word(at + 4)) | 0;
  c = (c + ((byte(bytes, at + 8) << 8) | (byte(bytes, at + 9) << 16) | (byte(bytes, at + 10) << 24))) | 0;
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return { high: b >>> 0, low: c >>> 0 };
}

/** Bytes past the end count as zero. */
function byte(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
