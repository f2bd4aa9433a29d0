/**
 * What a session has seen, as a text for its client to carry: signed, so that nobody can ask for what no database has reached
 * yet and send all reads to the leaders. It holds no secret, and nobody else's is worth anything: it only makes reads newer.
 *
 * Form: version byte, then each shard's number (variable length, 7 bits a byte, least first) and 12 bytes of how far it had
 * got; a dot; HMAC-SHA256 (RFC 2104) of it all under a name of its own. Both parts in base64url.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type Seen, seenCharacters } from "./seen.ts";

/** Signs and checks. */
export interface SeenSigner {
  /** The text; undefined when it would be longer than {@link signedCharactersMax}, or there is nothing to say. */
  sign(seen: Seen): string | undefined;
  /** What a text says; undefined when it was not signed here. */
  read(text: string): Seen | undefined;
}

/**
 * Longest text: a cookie may take 4,096 bytes with its name (RFC 6265bis, 5.6), all of an answer's headers 8 KB in nginx. Enough
 * for 155 shards; those who see more are served by their session's record alone.
 */
export const signedCharactersMax = 3_000;

const version = 1;
const purpose = "rungs seen\n";
const shardsMax = 1_024;
const positionBytes = seenCharacters / 2;

/** Makes a signer. The key is 32 random bytes, the same in all processes of an app. */
export function seenSigner(key: Uint8Array): SeenSigner {
  const macOf = (payload: string) => createHmac("sha256", key).update(purpose).update(payload).digest();
  return {
    sign(seen) {
      const shards = Object.entries(seen);
      if (shards.length === 0 || shards.length > shardsMax) return undefined;
      const parts = shards.flatMap(([shard, text]) => [numberBytes(Number(shard)), Buffer.from(text, "hex")]);
      const payload = Buffer.concat([Buffer.from([version]), ...parts]).toString("base64url");
      const text = `${payload}.${macOf(payload).toString("base64url")}`;
      return text.length > signedCharactersMax ? undefined : text;
    },

    read(text) {
      if (text.length > signedCharactersMax) return undefined;
      const [payload = "", mac = "", ...rest] = text.split(".");
      const given = Buffer.from(mac, "base64url");
      const expected = macOf(payload);
      if (rest.length > 0 || given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
      return seenIn(Buffer.from(payload, "base64url"));
    },
  };
}

function seenIn(bytes: Buffer): Seen | undefined {
  if (bytes[0] !== version) return undefined;
  const seen: Record<string, string> = {};
  for (let at = 1; at < bytes.length; at += positionBytes) {
    let shard = 0;
    for (let shift = 0; shift < 14; shift += 7) {
      const byte = bytes[at++] ?? 0;
      shard |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (at + positionBytes > bytes.length) return undefined;
    seen[shard] = bytes.toString("hex", at, at + positionBytes);
  }
  return seen;
}

/** A number below 16,384. */
function numberBytes(number: number): Buffer {
  return Buffer.from(number < 0x80 ? [number] : [(number & 0x7f) | 0x80, number >> 7]);
}
