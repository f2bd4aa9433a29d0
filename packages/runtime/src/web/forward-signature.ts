/**
 * What a process says of a request that it forwards to another region, and that it may say so: a signature by a key that all processes
 * of an app have and nobody else.
 *
 *     Rungs-Forwarded: key=ID,facts=BASE64URL,mac=BASE64URL
 *
 * The facts are a JSON list: from and to which region, until when the signature is good, a nonce, and the request's id, client address,
 * protocol and host. HMAC-SHA256 (RFC 2104) over a purpose, the method, the address and the facts. It is good for seconds, in the region
 * that it names, and once in each process. Neither the body, which streams, nor the other headers are signed: whoever can change those on
 * their way is inside the network between the regions, against which TLS is.
 */
import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { type NonceRefusal, NonceWindow } from "../kernel/nonce-window.ts";

/** The header. */
export const forwardedHeader = "rungs-forwarded";

/** A secret with the name by which signatures say that they were made with it. */
export interface ForwardKey {
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

/** The keys of an app. */
export interface ForwardKeys {
  /** The one to sign by. */
  newest(): ForwardKey;
  /** Undefined for one that does not exist (any more). */
  find(id: string): Promise<ForwardKey | undefined>;
}

/** What is said of a request's client, by the region where it arrived. */
export interface ForwardedFacts {
  /** The region where it arrived. */
  readonly from: string;
  readonly requestId: string;
  readonly address: string;
  readonly protocol: "http" | "https";
  /** What the client asked for, with the port; may be empty. */
  readonly host: string;
}

/** What the signature is of, beside the facts. */
export interface SignedRequest {
  readonly method: string;
  /** Path and query, as they were sent. */
  readonly url: string;
}

/** Clocks of an app's machines may differ by this. */
const clockSkewMs = 5_000;
/** A balancer that tries one process after the other hands a request over in less. */
const goodMs = 10_000;
const purpose = "rungs forwarded 1";
const headerForm = /^key=([\w.-]{1,64}),facts=([\w-]{1,8000}),mac=([\w-]{43})$/;

/** Makes the header's value. */
export function forwardSigner(options: {
  readonly keys: Pick<ForwardKeys, "newest">;
  readonly clock?: Clock;
}): (request: SignedRequest, facts: ForwardedFacts, to: string) => string {
  const { keys, clock = systemClock } = options;
  // Random once a process; a count tells its requests apart.
  const prefix = randomBytes(12).toString("base64url");
  let count = 0;
  return (request, { from, requestId, address, protocol, host }, to) => {
    const key = keys.newest();
    const expires = Math.ceil(clock.now()) + goodMs + clockSkewMs;
    const nonce = `${prefix}${(count++).toString(36)}`;
    const list = [from, to, expires, nonce, requestId, address, protocol, host];
    const facts = Buffer.from(JSON.stringify(list)).toString("base64url");
    return `key=${key.id},facts=${facts},mac=${macOf(key, request, facts).toString("base64url")}`;
  };
}

/** What a check found: the facts, or why they are not believed. */
export type ForwardVerdict =
  | { readonly facts: ForwardedFacts }
  | { readonly refusal: "unsigned" | "unknown key" | "forged" | "expired" | "another region" | NonceRefusal };

/** Checks the header's value, in the region `here`. */
export function forwardVerifier(options: {
  readonly keys: Pick<ForwardKeys, "find">;
  readonly here: string;
  readonly clock?: Clock;
}): (header: string, request: SignedRequest) => Promise<ForwardVerdict> {
  const { keys, here, clock = systemClock } = options;
  const nonces = new NonceWindow();
  return async (header, request) => {
    const [, id, text, mac] = headerForm.exec(header) ?? [];
    if (id === undefined || text === undefined || mac === undefined) return { refusal: "unsigned" };
    const key = await keys.find(id);
    if (key === undefined) return { refusal: "unknown key" };
    const expected = macOf(key, request, text);
    const given = Buffer.from(mac, "base64url");
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return { refusal: "forged" };
    // Signed by one of ours: it has the form that it should have.
    const list = JSON.parse(Buffer.from(text, "base64url").toString()) as SignedList;
    const [from, to, expires, nonce, requestId, address, protocol, host] = list;
    if (to !== here) return { refusal: "another region" };
    const now = clock.now();
    // The far end bounds what has to be remembered, should the sender's clock be years ahead.
    if (expires < now || expires > now + goodMs + 2 * clockSkewMs) return { refusal: "expired" };
    const refusal = nonces.take(nonce, expires, now);
    return refusal === undefined ? { facts: { from, requestId, address, protocol, host } } : { refusal };
  };
}

type SignedList = readonly [
  from: string,
  to: string,
  expires: number,
  nonce: string,
  requestId: string,
  address: string,
  protocol: "http" | "https",
  host: string,
];

/** Made once a key: a hash under plain bytes makes one each time. */
const keyObjects = new WeakMap<ForwardKey, KeyObject>();

function macOf(key: ForwardKey, { method, url }: SignedRequest, facts: string): Buffer {
  let secret = keyObjects.get(key);
  if (secret === undefined) {
    secret = createSecretKey(key.secret);
    keyObjects.set(key, secret);
  }
  return createHmac("sha256", secret)
    .update(JSON.stringify([purpose, method, url, facts]))
    .digest();
}
