/**
 * Signatures of webhooks: `t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of `SECONDS.BODY` under a shared secret.
 *
 * Source: Stripe's documentation, "Verify webhook signatures manually". Several `v1` may stand there while a secret is being
 * changed; other schemes are ignored, so that nobody can talk the receiver into a weaker one.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { NoticeRefusedError } from "./payment-provider.ts";

/** How far a signature's time may lie from now, in either direction: Stripe's own default. */
export const toleranceMs = 5 * 60 * 1_000;

/** The header for a body sent at `nowMs`. */
export function signWebhook(body: string | Buffer, secret: string, nowMs: number): string {
  const seconds = Math.floor(nowMs / 1_000);
  return `t=${seconds},v1=${hmacOf(body, secret, String(seconds)).toString("hex")}`;
}

/** Raises {@link NoticeRefusedError} unless the header signs the body freshly. */
export function verifySignature(options: {
  readonly body: Buffer;
  readonly header: string | readonly string[] | undefined;
  readonly secret: string;
  readonly nowMs: number;
}): void {
  const { body, header, secret, nowMs } = options;
  if (typeof header !== "string" || header.length > 1_000) throw new NoticeRefusedError("The notice is not signed.");
  const parts = header.split(",").map((part) => part.trim().split("="));
  const seconds = parts.find(([name]) => name === "t")?.[1] ?? "";
  const signatures = parts.flatMap(([name, value]) => (name === "v1" && value !== undefined ? [value] : []));
  if (!/^\d{1,12}$/.test(seconds)) throw new NoticeRefusedError("The notice's signature has no time.");
  const expected = hmacOf(body, secret, seconds);
  const isGenuine = signatures.some((signature) => {
    if (!/^[0-9a-f]{64}$/.test(signature)) return false;
    return timingSafeEqual(Buffer.from(signature, "hex"), expected);
  });
  if (!isGenuine) throw new NoticeRefusedError("The notice's signature is not the provider's.");
  const offMs = Math.abs(nowMs - Number(seconds) * 1_000);
  if (offMs > toleranceMs) {
    throw new NoticeRefusedError(
      `The notice was signed ${Math.round(offMs / 1_000)} s away from now; limit ${toleranceMs / 1_000} s.`,
    );
  }
}

function hmacOf(body: string | Buffer, secret: string, seconds: string): Buffer {
  return createHmac("sha256", secret).update(`${seconds}.`).update(body).digest();
}
