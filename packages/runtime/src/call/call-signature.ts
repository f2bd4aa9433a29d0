/**
 * Who calls: a signature over everything that decides what a call does, by a key that all processes of an app have and nobody else.
 *
 *     Authorization: Rungs-Call key=ID,caller=GROUP,expires=MS,nonce=TEXT,mac=BASE64URL
 *
 * HMAC-SHA256 (RFC 2104) over a JSON list of a purpose, the path, those fields and the other signed headers, and then the body. It is
 * good until the call's deadline and a little longer, for clocks that differ, and once in each process: the nonces of signatures that
 * are still good are remembered. What somebody who listens sends on to *another* process within those seconds is taken, as is what a
 * balancer sends again; listening is what TLS is against.
 */
import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { NonceWindow } from "../kernel/nonce-window.ts";
import { deadlineMsMax } from "./method.ts";

/** A secret with the name by which signatures say that they were made with it. */
export interface CallKey {
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

/** The keys of an app. */
export interface CallKeys {
  /** The one to sign by. */
  newest(): CallKey;
  /** Undefined for one that does not exist (any more); one made just now is looked for. */
  find(id: string): Promise<CallKey | undefined>;
}

/** What is signed beside who calls. All but the body are header values. */
export interface SignedParts {
  readonly path: string;
  readonly deadlineMs: string;
  readonly idempotencyKey: string;
  readonly traceparent: string;
  /** Empty without. */
  readonly reads: string;
  readonly body: string | Uint8Array;
}

/** Clocks of an app's machines may differ by this. */
export const clockSkewMs = 5_000;
const scheme = "Rungs-Call ";
const purpose = "rungs call 1";
const headerForm =
  /^Rungs-Call key=([\w.-]{1,64}),caller=([\w.-]{1,64}),expires=(\d{1,16}),nonce=([\w-]{8,64}),mac=([\w-]{43})$/;

/** Makes the header's value. */
export function callSigner(options: {
  readonly keys: CallKeys;
  /** 1 to 64 of letters, digits, `_`, `.` and `-`. */
  readonly caller: string;
  readonly clock?: Clock;
}): (parts: SignedParts) => string {
  const { keys, caller, clock = systemClock } = options;
  // Random once a process; a count tells its calls apart.
  const prefix = randomBytes(12).toString("base64url");
  let count = 0;
  return (parts) => {
    const key = keys.newest();
    const expires = String(Math.ceil(clock.now()) + Number(parts.deadlineMs) + clockSkewMs);
    const nonce = `${prefix}${(count++).toString(36)}`;
    const mac = macOf(key, { caller, expires, nonce }, parts).toString("base64url");
    return `${scheme}key=${key.id},caller=${caller},expires=${expires},nonce=${nonce},mac=${mac}`;
  };
}

/** What a check found: who calls, or why it is not believed. */
export type SignatureVerdict =
  | { readonly caller: string }
  | { readonly refusal: "unsigned" | "unknown key" | "forged" | "expired" | "replayed" | "full" };

/** Checks the header's value. */
export function callVerifier(options: {
  readonly keys: Pick<CallKeys, "find">;
  readonly clock?: Clock;
}): (header: string | undefined, parts: SignedParts) => Promise<SignatureVerdict> {
  const { keys, clock = systemClock } = options;
  const nonces = new NonceWindow();
  return async (header, parts) => {
    const [, id, caller, expires, nonce, mac] = headerForm.exec(header ?? "") ?? [];
    if (id === undefined || caller === undefined || expires === undefined || nonce === undefined || mac === undefined) {
      return { refusal: "unsigned" };
    }
    const key = await keys.find(id);
    if (key === undefined) return { refusal: "unknown key" };
    const expected = macOf(key, { caller, expires, nonce }, parts);
    const given = Buffer.from(mac, "base64url");
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return { refusal: "forged" };
    const now = clock.now();
    const until = Number(expires);
    // The far end bounds what has to be remembered, should a caller's clock be years ahead.
    if (until < now || until > now + deadlineMsMax + 2 * clockSkewMs) return { refusal: "expired" };
    const refusal = nonces.take(nonce, until, now);
    return refusal === undefined ? { caller } : { refusal };
  };
}

/** Made once a key: a hash under plain bytes makes one each time. */
const keyObjects = new WeakMap<CallKey, KeyObject>();

function keyObjectOf(key: CallKey): KeyObject {
  const known = keyObjects.get(key);
  if (known !== undefined) return known;
  const made = createSecretKey(key.secret);
  keyObjects.set(key, made);
  return made;
}

function macOf(
  key: CallKey,
  { caller, expires, nonce }: { readonly caller: string; readonly expires: string; readonly nonce: string },
  { path, deadlineMs, idempotencyKey, traceparent, reads, body }: SignedParts,
): Buffer {
  const head = [purpose, path, caller, expires, nonce, deadlineMs, idempotencyKey, traceparent, reads];
  return createHmac("sha256", keyObjectOf(key)).update(JSON.stringify(head)).update(body).digest();
}
