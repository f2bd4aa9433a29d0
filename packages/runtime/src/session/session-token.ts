/**
 * Where a request carries its session token, and the cookie that makes it do so; for any Node http handler.
 *
 * Bearer: `Authorization: Token x` (as RealWorld clients send it) or `Bearer x`; it wins over a cookie. Other schemes,
 * such as the Basic login of a guarded staging site, are not ours and leave the cookie in force.
 *
 * Cookie: over https `__Host-session` with `Secure`, which browsers take only from this very host, over https, for all
 * paths (RFC 6265bis, section 4.1.3.2), so that no sister domain and no http page can plant one. Over plain http, where
 * Safari even on localhost and every browser on a LAN address refuses `Secure` cookies, plain `session` without it. Each
 * scheme reads its own name only: a cookie planted over http is worth nothing over https.
 *
 * @example Express
 * app.use(async (req, res, next) => {
 *   const carried = readSessionToken(req.headers, req.secure);
 *   req.session = carried && (await sessions.load(carried.token));
 *   next();
 * });
 */

/** The headers that are read; Node's `IncomingHttpHeaders` fits. */
export interface SessionHeaders {
  readonly authorization?: string | undefined;
  readonly cookie?: string | undefined;
}

/** A token and where it came from; not checked yet. */
export interface CarriedToken {
  readonly token: string;
  readonly source: "bearer" | "cookie";
}

/** Reads the session token of a request; undefined when it brings none. `isSecure`: the client speaks https. */
export function readSessionToken(headers: SessionHeaders, isSecure: boolean): CarriedToken | undefined {
  const bearer = headers.authorization === undefined ? undefined : bearerToken(headers.authorization);
  if (bearer !== undefined) return { token: bearer, source: "bearer" };
  const token = readSessionCookie(headers.cookie, isSecure);
  return token === undefined ? undefined : { token, source: "cookie" };
}

/** Reads the session token of a Cookie header alone; undefined when there is none. */
export function readSessionCookie(cookie: string | undefined, isSecure: boolean): string | undefined {
  if (cookie === undefined) return undefined;
  const token = cookieValue(cookie, cookieName(isSecure));
  return token === "" ? undefined : token;
}

/**
 * A Set-Cookie value that carries the token for `maxAgeMs`; without a token, one that deletes the cookie.
 * A response with it should say `Cache-Control: no-store`, or a shared cache may hand the session to others.
 */
export function sessionCookie(options: {
  readonly token?: string;
  readonly maxAgeMs?: number;
  readonly isSecure: boolean;
}): string {
  const { token = "", maxAgeMs = 0, isSecure } = options;
  const secure = isSecure ? "; Secure" : "";
  return `${cookieName(isSecure)}=${token}; Path=/; Max-Age=${Math.floor(maxAgeMs / 1_000)}; HttpOnly; SameSite=Lax${secure}`;
}

function cookieName(isSecure: boolean): string {
  return isSecure ? "__Host-session" : "session";
}

/** The credentials of `Token x` or `Bearer x`, empty ones included; undefined for another scheme (RFC 9110, 11.4). */
function bearerToken(authorization: string): string | undefined {
  const match = /^(?:token|bearer)(?: +(\S*) *)?$/i.exec(authorization);
  return match === null ? undefined : (match[1] ?? "");
}

/** The first cookie of that name: browsers send the one with the most specific path first (RFC 6265, 5.4). */
export function cookieValue(header: string, name: string): string | undefined {
  // Most requests carry no such cookie; one search is cheaper than taking the header apart.
  if (!header.includes(name)) return undefined;
  for (const pair of header.split(";")) {
    const at = pair.indexOf("=");
    if (at > 0 && pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return undefined;
}
