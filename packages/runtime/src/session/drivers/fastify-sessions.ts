/**
 * Sessions on Fastify. Costs nothing for requests that never ask for their session: no hook runs on reading routes, the
 * cookie is parsed and the store asked when a handler first calls `request.session()`, and never twice.
 *
 * Cross-site forgery: every route with an unsafe method is guarded by the rule of `csrf.ts`. By default it binds requests
 * that carry the session cookie; a route's `config: { csrf: "always" }` binds those without one too, which sign-in forms
 * need (login CSRF), and `"off"` takes the guard away. The synchroniser token is read from the header `x-csrf-token` or
 * the field `_csrf` of a parsed body. The headers are judged before the body is read. Where the body is a stream that only
 * the handler reads, `"deferred"` leaves the token to it: it must call `request.checkCsrf()` with the form's field.
 *
 * Where several processes cache, an unsafe request that changed something has the number of the change noted in its session
 * before it is answered; see `write-marks.ts`. What a reading route changes is not.
 *
 * An outage of the store raises `UnavailableError` and leaves the cookie alone. A response that sets or deletes the cookie
 * says `Cache-Control: no-store` unless the handler has said something else.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import { type CsrfEvidence, csrfToken, csrfVerdict, isSafeMethod, passesCsrf } from "../csrf.ts";
import { RequestRefusedError } from "../request-refused.ts";
import { type CarriedToken, readSessionCookie, readSessionToken, sessionCookie } from "../session-token.ts";
import type { Session, Sessions } from "../sessions.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The live session of this request; undefined without one. Raises `UnavailableError` when the store cannot answer. */
    session(): Promise<Session | undefined>;
    /** The token this request brought, live or not; undefined without one. */
    carriedToken(): CarriedToken | undefined;
    /** The synchroniser token for forms of this session; empty without a cookie session. */
    csrfToken(): string;
    /**
     * For routes with `csrf: "deferred"`: raises `CSRF_REFUSED` (403) unless the headers, the header `x-csrf-token` or this
     * token show that the request is this site's own.
     */
    checkCsrf(token: string | undefined): void;
    /** Memo of `session()`. */
    rungsSession: Promise<Session | undefined> | null;
    /** What this process had written when the request came; undefined once it has been dealt with. */
    rungsWrites: number | undefined;
    /** Whether the client speaks https, as the session cookie sees it. */
    rungsIsSecure(): boolean;
  }
  interface FastifyReply {
    /** Signs the user in: rotates the session of the request's cookie, or starts one, and sets the cookie. */
    startSession(userId: string): Promise<Session>;
    /** Signs out: revokes the session this request brought, and deletes its cookie. */
    endSession(): Promise<void>;
  }
  interface FastifyContextConfig {
    /**
     * Which unsafe requests the CSRF rule binds: those with the session cookie (default), all but bearer ones, or none.
     * "deferred": those with the cookie, whose token the handler checks by `checkCsrf`.
     */
    csrf?: "cookie" | "always" | "deferred" | "off";
  }
}

/** Settings of {@link fastifySessions}. */
export interface FastifySessionsOptions {
  readonly sessions: Sessions;
  /**
   * "auto", the default: the cookie is `__Host-session; Secure` when the request came by https, directly or by the word of
   * a proxy that Fastify's `trustProxy` trusts, and plain `session` otherwise. true: always the former, for a deployment
   * whose balancer does not say. false: never, for plain http only.
   */
  readonly secure?: "auto" | boolean;
}

/** Decorates Fastify's requests and replies and guards its writing routes. Call it before routes are added. */
export function fastifySessions(fastify: FastifyInstance, options: FastifySessionsOptions): void {
  const { sessions, secure = "auto" } = options;
  fastify.decorateRequest("rungsSession", null);
  fastify.decorateRequest("rungsIsSecure", function isSecure(this: FastifyRequest) {
    return secure === "auto" ? this.protocol === "https" : secure;
  });
  fastify.decorateRequest("carriedToken", function carriedToken(this: FastifyRequest) {
    return readSessionToken(this.headers, this.rungsIsSecure());
  });
  fastify.decorateRequest("session", function session(this: FastifyRequest) {
    this.rungsSession ??= loadSession(this, sessions);
    return this.rungsSession;
  });
  fastify.decorateRequest("csrfToken", function formToken(this: FastifyRequest) {
    const token = cookieToken(this);
    return token === undefined ? "" : csrfToken(token);
  });
  fastify.decorateRequest("checkCsrf", function checkCsrf(this: FastifyRequest, field: string | undefined) {
    const carried = this.carriedToken();
    if (carried?.source !== "cookie") return;
    const token = textOf(this.headers["x-csrf-token"]) ?? field;
    if (!passesCsrf(evidenceOf(this), { sessionToken: carried.token, token })) throw refusal(this);
  });
  fastify.decorateReply("startSession", async function startSession(this: FastifyReply, userId: string) {
    const previous = cookieToken(this.request);
    const session = previous === undefined ? await sessions.start(userId) : await sessions.rotate(previous, userId);
    setCookie(this, { token: session.token, maxAgeMs: session.expiresAt.getTime() - session.createdAt.getTime() });
    this.request.rungsSession = Promise.resolve(session);
    return session;
  });
  fastify.decorateReply("endSession", async function endSession(this: FastifyReply) {
    const carried = this.request.carriedToken();
    if (carried !== undefined) await sessions.revoke(carried.token);
    setCookie(this, {});
    this.request.rungsSession = Promise.resolve(undefined);
  });
  fastify.decorateRequest("rungsWrites", undefined);
  fastify.addHook("onRoute", guardRoute);
  fastify.addHook("onRoute", (route) => noteWritesOf(route, sessions));
}

// With `register` the decorations apply to the instance itself and not to an encapsulated child (Fastify's own mark).
Object.assign(fastifySessions, { [Symbol.for("skip-override")]: true });

/** The request's session of a signed-in user; raises `SESSION_REQUIRED` (401) without one. */
export async function requireUser(request: FastifyRequest): Promise<Session & { readonly userId: string }> {
  const session = await request.session();
  if (session === undefined || session.userId === null) {
    throw new RequestRefusedError("SESSION_REQUIRED", "This needs a signed-in user. Sign in and try again.");
  }
  return { ...session, userId: session.userId };
}

function loadSession(request: FastifyRequest, sessions: Sessions): Promise<Session | undefined> {
  const carried = request.carriedToken();
  return carried === undefined ? Promise.resolve(undefined) : sessions.load(carried.token);
}

function cookieToken(request: FastifyRequest): string | undefined {
  return readSessionCookie(request.headers.cookie, request.rungsIsSecure());
}

function setCookie(reply: FastifyReply, cookie: { readonly token?: string; readonly maxAgeMs?: number }): void {
  reply.header("set-cookie", sessionCookie({ ...cookie, isSecure: reply.request.rungsIsSecure() }));
  if (!reply.hasHeader("cache-control")) reply.header("cache-control", "no-store");
}

/** Adds the guard to routes that can change something; reading routes stay as they are. */
function guardRoute(route: RouteOptions): void {
  if (route.config?.csrf === "off" || isReading(route)) return;
  const isAlways = route.config?.csrf === "always";
  const carriedOf = (request: FastifyRequest) => {
    const carried = request.carriedToken();
    return carried === undefined && isAlways ? { token: undefined, source: "cookie" } : carried;
  };

  route.onRequest = [
    (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
      const isBound = carriedOf(request)?.source === "cookie";
      done(isBound && csrfVerdict(evidenceOf(request)) === "refuse" ? refusal(request) : undefined);
    },
    ...listOf(route.onRequest),
  ];
  if (route.config?.csrf === "deferred") return;
  // Here, and not before, a form's token has been read; validation has not run yet.
  route.preValidation = [
    (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
      const carried = carriedOf(request);
      if (carried?.source !== "cookie") return done();
      const tokens = { sessionToken: carried.token, token: formTokenOf(request) };
      done(passesCsrf(evidenceOf(request), tokens) ? undefined : refusal(request));
    },
    ...listOf(route.preValidation),
  ];
}

/** Before what a route has changed is answered, its session knows of it. */
function noteWritesOf(route: RouteOptions, sessions: Sessions): void {
  if (isReading(route)) return;
  route.onRequest = [
    (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
      request.rungsWrites = sessions.writesSoFar();
      done();
    },
    ...listOf(route.onRequest),
  ];
  route.onSend = [
    ...listOf(route.onSend),
    async (request: FastifyRequest) => {
      const before = request.rungsWrites;
      // When this fails, the error's own answer comes by here again.
      request.rungsWrites = undefined;
      if (before === undefined || before === sessions.writesSoFar()) return;
      const token = (await request.rungsSession?.catch(() => undefined))?.token ?? request.carriedToken()?.token;
      if (token !== undefined) await sessions.noteWrites(token);
    },
  ];
}

function isReading({ method }: RouteOptions): boolean {
  return (Array.isArray(method) ? method : [method]).every((each) => isSafeMethod(each.toUpperCase()));
}

function evidenceOf(request: FastifyRequest): CsrfEvidence {
  const { headers } = request;
  return {
    method: request.method,
    secFetchSite: textOf(headers["sec-fetch-site"]),
    origin: headers.origin,
    referer: headers.referer,
    host: request.host,
    isSecure: request.rungsIsSecure(),
  };
}

function formTokenOf(request: FastifyRequest): string | undefined {
  const header = textOf(request.headers["x-csrf-token"]);
  if (header !== undefined) return header;
  const { body } = request;
  const field = typeof body === "object" && body !== null && "_csrf" in body ? body._csrf : undefined;
  return typeof field === "string" ? field : undefined;
}

function refusal(request: FastifyRequest): RequestRefusedError {
  return new RequestRefusedError(
    "CSRF_REFUSED",
    `${request.method} ${request.url.split("?")[0]} was not sent by a page of this site. Reload the page and try again.`,
  );
}

function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(", ") : header;
}

function listOf<T>(hooks: T | T[] | undefined): T[] {
  if (hooks === undefined) return [];
  return Array.isArray(hooks) ? hooks : [hooks];
}
