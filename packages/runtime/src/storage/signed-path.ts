/**
 * Signed addresses of private files: whoever holds one may fetch the file until it ends, and nobody can make one.
 *
 * `/path?expires=SECONDS&signature=TEXT`: the end in seconds since the Unix epoch, and an HMAC-SHA256 (RFC 2104) of path and
 * end. Ends lie on a grid, so that a page shown again names the same address and browsers find the file in their cache.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { type Clock, systemClock } from "../kernel/clock.ts";

/** Makes and checks signed addresses. */
export interface PathSigner {
  /** The path with its end and signature, good for at least `validMs` (default an hour) and at most half as long again. */
  sign(path: string, options?: { readonly validMs?: number }): string;
  /**
   * Checks what an address brought, "/path?expires=...&signature=...": how many ms it is still good for; undefined when it has
   * ended, was not signed here, or is for another path.
   */
  check(address: string): number | undefined;
}

const hourMs = 60 * 60_000;
const purpose = "rungs path\n";

/**
 * Makes a signer. The first key signs, all of them check: a new key goes first, and the old one stays until what it signed has
 * ended. Keys are 32 random bytes, the same in all processes of an app.
 */
export function createPathSigner(options: {
  readonly keys: readonly [Uint8Array, ...Uint8Array[]];
  /** Default the machine's. */
  readonly clock?: Clock;
}): PathSigner {
  const { keys, clock = systemClock } = options;
  const macOf = (key: Uint8Array, path: string, expires: string) =>
    createHmac("sha256", key).update(purpose).update(`${expires}\n${path}`).digest();
  return {
    sign(path, { validMs = hourMs } = {}) {
      const gridMs = Math.max(1_000, validMs / 2);
      const endsAt = Math.ceil((clock.now() + validMs) / gridMs) * gridMs;
      const expires = String(Math.ceil(endsAt / 1_000));
      return `${path}?expires=${expires}&signature=${macOf(keys[0], path, expires).toString("base64url")}`;
    },

    check(address) {
      const [, path = "", expires = "", signature = ""] =
        /^([^?]+)\?expires=(\d{1,12})&signature=([A-Za-z0-9_-]{43})$/.exec(address) ?? [];
      const leftMs = Number(expires) * 1_000 - clock.now();
      if (path === "" || leftMs <= 0) return undefined;
      const given = Buffer.from(signature, "base64url");
      const isOurs = keys.some((key) => timingSafeEqual(given, macOf(key, path, expires)));
      return isOurs ? leftMs : undefined;
    },
  };
}
