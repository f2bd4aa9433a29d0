/**
 * Session guarantees on Fastify: each request is a unit of reads, see `session-reads.ts`. For apps whose databases have copies;
 * needs `fastifySessions` on the same instance.
 *
 * A client's note comes and goes in the header `Rungs-Position` for those that sign in by a token or send the header, and in
 * the cookie `__Host-position` (`position` over plain http) for those that sign in by a cookie. It is given only with answers
 * that say `private` or `no-store`: a shared cache would hand it to others, and an answer with a cookie is not shared. So the
 * hook that gives it has to come after whatever says who may keep an answer: two functions, for two places.
 *
 * Where notes carry revisions, a browser whose session's record was changed by a request is given the cookie `__Host-changed`
 * (`changed` over plain http) for a few seconds, which nothing but their end takes away: see `session-reads.ts`.
 *
 * The unit ends before the answer is sent, or when the connection is gone: what a stream reads after its headers, or a handler
 * that has taken over the socket (`reply.hijack`), comes from leaders and is noted nowhere.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import { isSafeMethod } from "../csrf.ts";
import type { RequestFacts, RequestReads, SessionReads } from "../session-reads.ts";
import { cookieValue } from "../session-token.ts";
import type { Sessions } from "../sessions.ts";

declare module "fastify" {
  interface FastifyRequest {
    rungsReads: RequestReads | null;
  }
}

/** The header that carries a note. A client may send several of those it was given, with commas between them. */
export const positionHeader = "rungs-position";
/** Longer than any copy lags behind and is still read from. */
const cookieSeconds = 24 * 60 * 60;
/** Longer than a copy of the session store may be behind and is still read from (2 s), by a browser's clock that counts whole seconds. */
const markSeconds = 5;

/** Makes each request a unit. Call it before hooks that may read from databases or load the session. */
export function beginSessionReads(fastify: FastifyInstance, { reads }: { readonly reads: SessionReads }): void {
  fastify.decorateRequest("rungsReads", null);
  fastify.addHook("onRequest", (request, reply, done) => {
    const begun = reads.begin(factsOf(request));
    request.rungsReads = begun;
    reply.raw.once("close", () => begun.end());
    begun.unit.run(done);
  });
  // The events of a body that arrives come from outside the unit; whether the way back is kept is its reader's business.
  fastify.addHook("preValidation", (request, _reply, done) => {
    const unit = request.rungsReads?.unit;
    if (unit === undefined || unit.isCurrent()) done();
    else unit.run(done);
  });
}

/** Notes what each request has written and read before it is answered. Call it after `fastifyCachePolicy`, before routes are added. */
export function settleSessionReads(
  fastify: FastifyInstance,
  { sessions }: { readonly sessions: Pick<Sessions, "noteSeen"> },
): void {
  fastify.addHook("onRoute", (route: RouteOptions) => {
    route.onSend = [
      ...(route.onSend === undefined ? [] : [route.onSend].flat()),
      async (request: FastifyRequest, reply: FastifyReply) => settle(request, reply, sessions),
    ];
  });
}

Object.assign(beginSessionReads, { [Symbol.for("skip-override")]: true });
Object.assign(settleSessionReads, { [Symbol.for("skip-override")]: true });

function factsOf(request: FastifyRequest): RequestFacts {
  const { headers } = request;
  const carried = request.carriedToken();
  const header = headers[positionHeader];
  const fromHeader = header === undefined ? [] : String(header).split(",");
  const fromCookie = carried?.source === "bearer" ? undefined : positionCookieOf(request);
  const isPage = headers["sec-fetch-mode"] === "navigate";
  return {
    token: carried?.token,
    notes: [...fromHeader, ...(fromCookie === undefined ? [] : [fromCookie])].flatMap((note) => note.trim() || []),
    keepsNote: carried?.source === "cookie" ? fromCookie !== undefined && isPage : header !== undefined,
    wantsNote: header !== undefined,
    // Routes whose safe requests write too say so by where they are carried out, see `fastify-forward.ts` of the web tier.
    mayWrite: !isSafeMethod(request.method) || request.routeOptions.config?.region === "leader",
    isMarked: hasCookie(request, markCookieName(request)),
  };
}

async function settle(
  request: FastifyRequest,
  reply: FastifyReply,
  sessions: Pick<Sessions, "noteSeen">,
): Promise<void> {
  const reads = request.rungsReads;
  // When this fails, the error's own answer comes by here again.
  request.rungsReads = null;
  if (reads === null) return;
  const isPrivate = /no-store|private/i.test(String(reply.getHeader("cache-control")));
  const way = await wayOf(request);
  let note: string | undefined;
  try {
    note = await reads.settle(sessions, { canCarry: isPrivate && way !== undefined && way !== "none" });
  } catch (error) {
    // An answer that says already that something failed need not say it again.
    if (reply.statusCode < 500) throw error;
  }
  if (!isPrivate || way === undefined) return;
  // Also when a page's script keeps the header: the pages it loads do not send it.
  const isToMark = reads.isToMark && way !== "none" && request.carriedToken()?.source === "cookie";
  if (isToMark) reply.header("set-cookie", markCookie(request));
  if (way === "header") {
    if (note !== undefined) reply.header(positionHeader, note);
  } else if (way === "none") reply.header("set-cookie", positionCookie(request, undefined));
  else if (note !== undefined && note !== positionCookieOf(request)) {
    reply.header("set-cookie", positionCookie(request, note));
  }
}

/** How the client is to get its note; "none" when a cookie it has is to go, because its session has. */
async function wayOf(request: FastifyRequest): Promise<"header" | "cookie" | "none" | undefined> {
  const carried = request.carriedToken();
  if (carried?.source === "bearer" || request.headers[positionHeader] !== undefined) return "header";
  const hasCookie = positionCookieOf(request) !== undefined;
  if (carried === undefined) return hasCookie ? "none" : undefined;
  const loading = request.rungsSession;
  if (loading === null) return "cookie";
  const isOver = await loading.then(
    (session) => session === undefined,
    () => false,
  );
  if (!isOver) return "cookie";
  return hasCookie ? "none" : undefined;
}

function positionCookieOf(request: FastifyRequest): string | undefined {
  const { cookie } = request.headers;
  if (cookie === undefined) return undefined;
  return cookieValue(cookie, positionCookieName(request)) || undefined;
}

function positionCookie(request: FastifyRequest, note: string | undefined): string {
  const secure = request.rungsIsSecure() ? "; Secure" : "";
  const value = `${positionCookieName(request)}=${note ?? ""}`;
  return `${value}; Path=/; Max-Age=${note === undefined ? 0 : cookieSeconds}; HttpOnly; SameSite=Lax${secure}`;
}

function hasCookie(request: FastifyRequest, name: string): boolean {
  const { cookie } = request.headers;
  return cookie !== undefined && cookieValue(cookie, name) !== undefined;
}

function markCookie(request: FastifyRequest): string {
  const secure = request.rungsIsSecure() ? "; Secure" : "";
  return `${markCookieName(request)}=1; Path=/; Max-Age=${markSeconds}; HttpOnly; SameSite=Lax${secure}`;
}

function markCookieName(request: FastifyRequest): string {
  return request.rungsIsSecure() ? "__Host-changed" : "changed";
}

function positionCookieName(request: FastifyRequest): string {
  return request.rungsIsSecure() ? "__Host-position" : "position";
}
