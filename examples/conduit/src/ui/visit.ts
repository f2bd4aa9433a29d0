/** One request for a page: who asks, from where, and how the answer goes out. */
import type { FastifyReply, FastifyRequest } from "fastify";
import type {} from "rungs/session/fastify";
import type { Account, Conduit, NotificationBox, Seen } from "../domain/model.ts";
import type { ReceiveUpload } from "../media/media-routes.ts";
import type { SignIn } from "../sign-in.ts";
import { address, safePath } from "./address.ts";
import type { SafeHtml } from "./html.ts";

/** What the pages need. */
export interface UiOptions {
  readonly conduit: Conduit;
  readonly assets: {
    /** Address of a static file by its name. */
    url(name: string): string;
  };
  /** Checks email and password under the login throttle. */
  readonly signIn: SignIn;
  readonly receiveUpload: ReceiveUpload;
  /** Ends the user's sessions but this one: done when the password changes. */
  endOtherSessions(session: { readonly userId: string; readonly token: string }): Promise<unknown>;
  /** Has the user's live streams look whether their sessions still are: done at sign-out. */
  sessionsEnded(userId: string): Promise<unknown>;
}

/** What every page shows of the request it answers. */
export interface Visit {
  readonly viewer: Account | undefined;
  /** For the bell; undefined without a viewer. */
  readonly notifications?: NotificationBox | undefined;
  /** Whether people can be given tips; default false. */
  readonly offersTips?: boolean;
  /** Token of the forms of this session; empty without one. */
  readonly csrf: string;
  /** Path and query of this page: where a form of it leads back to. */
  readonly here: string;
  readonly asset: (name: string) => string;
  /** Some of what belongs on the page could not be read, and the page says so; default false. */
  readonly isIncomplete?: boolean;
}

/** A visit of somebody who signed in. */
export interface SignedInVisit extends Visit {
  readonly viewer: Account;
}

/** The visit behind a request. An account that is gone counts as signed out. Raises `UnavailableError` like the stores. */
export async function visitOf(request: FastifyRequest, options: UiOptions): Promise<Visit> {
  const session = await request.session();
  const userId = session?.userId ?? undefined;
  const { accounts, notifications } = options.conduit;
  const [viewer, box] =
    userId === undefined ? [] : await Promise.all([accounts.byId(userId), notifications.box(userId)]);
  return {
    viewer,
    notifications: viewer && box,
    offersTips: options.conduit.tips.isOffered,
    csrf: request.csrfToken(),
    here: safePath(request.url) ?? address.home,
    asset: (name) => options.assets.url(name),
  };
}

/** Whether somebody signed in. */
export function isSignedIn(visit: Visit): visit is SignedInVisit {
  return visit.viewer !== undefined;
}

/**
 * Sends a page. One for a signed-in visitor, or one that is incomplete, is stored nowhere; others are checked again before they are
 * reused.
 */
export function sendPage(reply: FastifyReply, visit: Visit, page: SafeHtml, status = 200): FastifyReply {
  const isShared = visit.viewer === undefined && visit.csrf === "" && status === 200 && !isIncomplete(reply);
  return reply
    .code(status)
    .header("cache-control", isShared ? "no-cache" : "private, no-store")
    .header("vary", "cookie")
    .type("text/html; charset=utf-8")
    .send(`<!doctype html>${page.text}`);
}

/** Names to the CDN what a page shows, and notes when some of it is missing. */
export function seenBy(reply: FastifyReply): Seen {
  const incomplete = () => void reply.header("cache-control", "private, no-store").header(incompleteHeader, "true");
  return Object.assign((tag: string) => reply.cacheTag(tag), { incomplete });
}

/** The visit once everything was read: whether something is missing is known only then. */
export function afterReading<V extends Visit>(visit: V, reply: FastifyReply): V {
  return isIncomplete(reply) ? { ...visit, isIncomplete: true } : visit;
}

const incompleteHeader = "conduit-incomplete";

function isIncomplete(reply: FastifyReply): boolean {
  return reply.hasHeader(incompleteHeader);
}

/** Sends the browser on by GET, after a POST as after anything else (RFC 9110, 15.4.4). */
export function goTo(reply: FastifyReply, path: string): FastifyReply {
  return reply.header("cache-control", "no-store").redirect(path, 303);
}

/** Sends a signed-out visitor to sign in, and from there back to where they were. */
export function goSignIn(reply: FastifyReply, next: string): FastifyReply {
  return goTo(reply, address.login(next));
}

/** A text field of a form, line ends as one LF; empty when it is missing, the first of several. */
export function fieldOf(request: FastifyRequest, name: string): string {
  return fieldsOf(request, name)[0] ?? "";
}

/** Every value of a field, at most 100. */
export function fieldsOf(request: FastifyRequest, name: string): readonly string[] {
  const form = request.body;
  if (typeof form !== "object" || form === null || !Object.hasOwn(form, name)) return [];
  const value = (form as Record<string, unknown>)[name];
  const values = Array.isArray(value) ? value.slice(0, 100) : [value];
  return values.filter((item) => typeof item === "string").map((text) => text.replaceAll("\r\n", "\n"));
}

/** A parameter of the address, at most 300 characters; undefined when it is missing, empty or longer. */
export function parameterOf(request: FastifyRequest, name: string): string | undefined {
  const { query } = request;
  if (typeof query !== "object" || query === null || !Object.hasOwn(query, name)) return undefined;
  const value = (query as Record<string, unknown>)[name];
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" && first !== "" && first.length <= 300 && !first.includes("\0") ? first : undefined;
}

/** Where a form leads when it is done: its own `next` when that is safe, else `otherwise`. */
export function nextOf(request: FastifyRequest, otherwise: string): string {
  return safePath(fieldOf(request, "next")) ?? otherwise;
}
