/**
 * What a session has seen, as a text for its client to carry: signed, so that nobody can ask for what no database has reached
 * yet and send all reads to the leaders. It holds no secret, and nobody else's is worth anything: it only makes reads newer.
 *
 * With it may come the latest revision of the session's record that the client was told of. It counts for that session alone, which
 * is named by the first bytes of its token's hash: another's lower number would let an old copy pass for a new one.
 *
 * Form: version byte; in version 2, 8 bytes of the session's name and 6 of its revision; then each shard's number (variable length,
 * 7 bits a byte, least first) and 12 bytes of how far it had got; a dot; HMAC-SHA256 (RFC 2104) of it all under a name of its own.
 * Both parts in base64url.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isNothing, type Seen, seenCharacters } from "./seen.ts";

/** What a text says. */
export interface SeenNote {
  readonly seen: Seen;
  /** Default: nothing is said of the record. */
  readonly record?: NotedRevision | undefined;
}

/** A state of a session's record. */
export interface NotedRevision {
  /** Which session, see {@link sessionName}. */
  readonly session: string;
  readonly revision: number;
}

/** Signs and checks. */
export interface SeenSigner {
  /** The text; undefined when it would be longer than {@link signedCharactersMax}, or there is nothing to say. */
  sign(note: SeenNote): string | undefined;
  /** What a text says; undefined when it was not signed here. */
  read(text: string): SeenNote | undefined;
}

/**
 * Longest text: a cookie may take 4,096 bytes with its name (RFC 6265bis, 5.6), all of an answer's headers 8 KB in nginx. Enough
 * for 154 shards; those who see more are served by their session's record alone.
 */
export const signedCharactersMax = 3_000;

/** Without a revision, as before there were any: processes of both kinds understand each other. */
const plainVersion = 1;
const revisedVersion = 2;
const purpose = "rungs seen\n";
const shardsMax = 1_024;
const positionBytes = seenCharacters / 2;
const nameBytes = 8;
const revisionBytes = 6;

/** What a session is called in notes: enough to tell one person's sessions apart, and of no use to find a token. */
export function sessionName(token: string): string {
  return createHash("sha256")
    .update(purpose)
    .update(token)
    .digest("hex")
    .slice(0, 2 * nameBytes);
}

/** Makes a signer. The key is 32 random bytes, the same in all processes of an app. */
export function seenSigner(key: Uint8Array): SeenSigner {
  const macOf = (payload: string) => createHmac("sha256", key).update(purpose).update(payload).digest();
  return {
    sign({ seen, record }) {
      const shards = Object.entries(seen);
      if ((isNothing(seen) && record === undefined) || shards.length > shardsMax) return undefined;
      const parts = shards.flatMap(([shard, text]) => [numberBytes(Number(shard)), Buffer.from(text, "hex")]);
      const payload = Buffer.concat([headOf(record), ...parts]).toString("base64url");
      const text = `${payload}.${macOf(payload).toString("base64url")}`;
      return text.length > signedCharactersMax ? undefined : text;
    },

    read(text) {
      if (text.length > signedCharactersMax) return undefined;
      const [payload = "", mac = "", ...rest] = text.split(".");
      const given = Buffer.from(mac, "base64url");
      const expected = macOf(payload);
      if (rest.length > 0 || given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
      return noteIn(Buffer.from(payload, "base64url"));
    },
  };
}

function headOf(record: NotedRevision | undefined): Buffer {
  if (record === undefined) return Buffer.from([plainVersion]);
  const head = Buffer.alloc(1 + nameBytes + revisionBytes, revisedVersion);
  head.write(record.session, 1, nameBytes, "hex");
  head.writeUIntBE(record.revision, 1 + nameBytes, revisionBytes);
  return head;
}

function noteIn(bytes: Buffer): SeenNote | undefined {
  if (bytes[0] === plainVersion) {
    const seen = seenIn(bytes, 1);
    return seen === undefined ? undefined : { seen };
  }
  const headBytes = 1 + nameBytes + revisionBytes;
  if (bytes[0] !== revisedVersion || bytes.length < headBytes) return undefined;
  const seen = seenIn(bytes, headBytes);
  const session = bytes.toString("hex", 1, 1 + nameBytes);
  const revision = bytes.readUIntBE(1 + nameBytes, revisionBytes);
  return seen === undefined ? undefined : { seen, record: { session, revision } };
}

function seenIn(bytes: Buffer, from: number): Seen | undefined {
  const seen: Record<string, string> = {};
  for (let at = from; at < bytes.length; at += positionBytes) {
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
