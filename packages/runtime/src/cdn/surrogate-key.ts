/**
 * Surrogate keys: what a tag of the cache is called at the CDN.
 *
 * Both sides make them from the same tag: the answer that shows it, and the purge. A key is short, because an answer may bear
 * hundreds: those of a list with an author each would not fit into the 8 KB that proxies take for all headers.
 */
import { hash } from "node:crypto";

/** The key that every shared answer bears: purging it purges the site. */
export const siteKey = "site";

/** Tags that stay as they are: short plain ones, and what is a key already. */
const plain = /^(?:[A-Za-z0-9._:-]{1,20}|[A-Za-z0-9._-]{1,20}:[A-Za-z0-9_-]{12})$/;

/**
 * The key of a tag. A short plain tag stays readable ("articles"); others keep what is before their first colon, and the rest
 * becomes 72 bits of its SHA-256 ("article:dR2gUxCAbXaL"). A key's own key is itself. A collision would only purge too much.
 */
export function surrogateKey(tag: string): string {
  if (plain.test(tag)) return tag;
  const kind = /^[A-Za-z0-9._-]{1,20}(?=:)/.exec(tag)?.[0] ?? "tag";
  return `${kind}:${hash("sha256", tag, "base64url").slice(0, 12)}`;
}
