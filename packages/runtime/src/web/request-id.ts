/** Ids of requests, for logs and for the client's bug report. */
import { randomBytes } from "node:crypto";

const sane = /^[A-Za-z0-9._-]{1,64}$/;

/** The id a trusted peer gave, if it is sane, else a new one: 96 random bits. */
export function requestId(given: string | string[] | undefined, isPeerTrusted: boolean): string {
  if (isPeerTrusted && typeof given === "string" && sane.test(given)) return given;
  return randomBytes(12).toString("base64url");
}
