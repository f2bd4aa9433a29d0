/**
 * Protection of cookie-borne writes against cross-site request forgery.
 *
 * Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet (Fetch Metadata with its mandatory fall-back to Origin
 * and Referer; synchroniser token; login CSRF). The rule, first match wins:
 *
 * 1. GET, HEAD, OPTIONS and TRACE pass: they must not change anything (RFC 9110, 9.2.1).
 * 2. `Sec-Fetch-Site` is there: `same-origin` and `none` (typed address, bookmark) pass; `same-site` (a sister domain is
 *    not this app), `cross-site` and anything else are refused, whatever token comes along.
 * 3. Else `Origin` is there and not `null`: passes if it names the host that was asked, port included, and is https when
 *    the request is; else refused.
 * 4. Else `Referer` is there: judged as in 3.
 * 5. Else nothing tells where the request comes from: a browser over plain http with `Origin: null`, or no browser. With a
 *    session cookie it passes only with the session's synchroniser token. Without one there is no session to abuse, and
 *    it passes unless `Origin` is `null`, which a hostile page's sandboxed frame sends.
 *
 * Bearer requests need none of this, because no browser adds that header by itself. Browsers send `Sec-Fetch-Site` to
 * https and localhost only, so plain http on a LAN lives by 3 to 5.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

/** The parts of a request that the rule reads. */
export interface CsrfEvidence {
  readonly method: string;
  readonly secFetchSite: string | undefined;
  readonly origin: string | undefined;
  readonly referer: string | undefined;
  /** Host that was asked, with its port unless it is the scheme's own. Behind a balancer: what the client asked for. */
  readonly host: string | undefined;
  /** The client speaks https. */
  readonly isSecure: boolean;
}

/** What the headers say: clearly ours, clearly not, or nothing. */
export type CsrfVerdict = "pass" | "refuse" | "needs-token";

/** Judges by the headers alone, rules 1 to 4 of the file's header; "needs-token" leaves it to {@link passesCsrf}. */
export function csrfVerdict(evidence: CsrfEvidence): CsrfVerdict {
  if (isSafeMethod(evidence.method)) return "pass";
  const { secFetchSite, origin, referer } = evidence;
  if (secFetchSite !== undefined) {
    return secFetchSite === "same-origin" || secFetchSite === "none" ? "pass" : "refuse";
  }
  const from = origin !== undefined && origin !== "null" ? origin : referer;
  if (from === undefined) return "needs-token";
  return isOwnUrl(from, evidence) ? "pass" : "refuse";
}

/**
 * Whether a request without bearer token may change things: the whole rule.
 * `sessionToken`: from the cookie, undefined without one. `token`: what came as synchroniser token, if anything.
 */
export function passesCsrf(
  evidence: CsrfEvidence,
  { sessionToken, token }: { readonly sessionToken: string | undefined; readonly token: string | undefined },
): boolean {
  const verdict = csrfVerdict(evidence);
  if (verdict !== "needs-token") return verdict === "pass";
  if (sessionToken === undefined) return evidence.origin !== "null";
  return token !== undefined && isEqual(token, csrfToken(sessionToken));
}

/**
 * The synchroniser token of a session, for a hidden form field. Derived from the session's own secret token by HMAC: it
 * needs no storage and no further secret, dies with the session, and gives nothing of the token away.
 */
export function csrfToken(sessionToken: string): string {
  return createHmac("sha256", sessionToken).update("rungs csrf").digest("base64url");
}

/** Whether the method is safe by definition. */
export function isSafeMethod(method: string): boolean {
  return method === "GET" || method === "HEAD" || method === "OPTIONS" || method === "TRACE";
}

function isOwnUrl(from: string, { host, isSecure }: CsrfEvidence): boolean {
  if (host === undefined || !URL.canParse(from)) return false;
  const url = new URL(from);
  if (isSecure ? url.protocol !== "https:" : url.protocol !== "http:" && url.protocol !== "https:") return false;
  return url.host === host.toLowerCase();
}

function isEqual(left: string, right: string): boolean {
  const a = Buffer.from(left);
  const b = Buffer.from(right);
  return a.length === b.length && timingSafeEqual(a, b);
}
