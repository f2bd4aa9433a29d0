/** Ids of requests, for logs and for the client's bug report. */
import { randomBytes } from "node:crypto";

const sane = /^[A-Za-z0-9._-]{1,64}$/;
/** Random once a process; a count tells its requests apart. Drawing random bytes for each request costs 2% of a core. */
const prefix = randomBytes(9).toString("base64url");
let count = 0;

/** The id a trusted peer gave, if it is sane, else a new one that no other process gives. */
export function requestId(given: string | string[] | undefined, isPeerTrusted: boolean): string {
  if (isPeerTrusted && typeof given === "string" && sane.test(given)) return given;
  return `${prefix}-${(++count).toString(36)}`;
}
