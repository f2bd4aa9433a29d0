/**
 * Conduit's pages: HTML made on the server from the same operations as the API. Every page works without its script;
 * the script only spares reloads. Forms are answered by a redirect, or come back with what was wrong.
 */
import formbody from "@fastify/formbody";
import type { FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyRequest } from "fastify";
import { describeError } from "rungs/web";
import { ProblemError } from "../domain/problem.ts";
import { address } from "./address.ts";
import { accountRoutes } from "./routes/account-routes.ts";
import { articleRoutes, editorRoutes } from "./routes/article-routes.ts";
import { feedRoutes } from "./routes/feed-routes.ts";
import { notificationRoutes } from "./routes/notification-routes.ts";
import { tipRoutes } from "./routes/tip-routes.ts";
import { uploadRoutes } from "./routes/upload-routes.ts";
import { problemPage } from "./views/problem.ts";
import { goTo, sendPage, type UiOptions, type Visit, visitOf } from "./visit.ts";

export type { UiOptions } from "./visit.ts";

/** Addresses below these answer for themselves; everything else that is unknown gets the page that says so. */
const otherFaces = /^\/(?:api|assets|media|metrics|healthz|readyz)(?:[/?]|$)/;

/** Bytes of a form: 65,536 characters of text, each up to three bytes of UTF-8, percent-encoded, and the other fields. */
const formBytesMax = 1024 * 1024;

/**
 * Registers every page. Needs `rungs/session/fastify` registered before it, which also guards the forms against cross-site
 * requests; takes `GET /*` for its own 404.
 */
export const uiPages: FastifyPluginAsync<UiOptions> = async (pages: FastifyInstance, options: UiOptions) => {
  const policy = contentSecurityPolicy(options.assets.url("app.css"));
  await pages.register(formbody, { bodyLimit: formBytesMax });

  pages.addHook("onRequest", async (_request, reply) => {
    reply.headers({
      "content-security-policy": policy,
      "x-content-type-options": "nosniff",
      "x-frame-options": "DENY",
      "referrer-policy": "same-origin",
      "cross-origin-opener-policy": "same-origin",
    });
  });
  pages.setErrorHandler((error, request, reply) => answerError(error, request, reply, options));

  feedRoutes(pages, options);
  articleRoutes(pages, options);
  editorRoutes(pages, options);
  accountRoutes(pages, options);
  notificationRoutes(pages, options);
  tipRoutes(pages, options);
  uploadRoutes(pages, options);
  pages.get("/*", async (request, reply) => {
    if (otherFaces.test(request.url)) return reply.callNotFound();
    throw new ProblemError(404, { page: ["not found"] });
  });
};

/** Scripts and styles from the site (and the origin of its assets) only, no inline ones, no frames, no plug-ins. */
function contentSecurityPolicy(assetAddress: string): string {
  const cdn = URL.canParse(assetAddress) ? ` ${new URL(assetAddress).origin}` : "";
  return [
    "default-src 'none'",
    `script-src 'self'${cdn}`,
    `style-src 'self'${cdn}`,
    "img-src 'self' https: data:",
    "media-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}

async function answerError(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  options: UiOptions,
): Promise<FastifyReply> {
  const answer = describeError(error);
  if (answer.isFault)
    request.log.error({ err: error, requestId: request.id, route: request.routeOptions.url }, "page failed");
  if (answer.retryAfterSeconds !== undefined) reply.header("retry-after", String(answer.retryAfterSeconds));
  // The account of the session is gone: its operations refuse it, and only signing in again helps.
  if (answer.status === 401) return goTo(reply, address.login());
  const visit = await calmVisitOf(request, options);
  return sendPage(reply, visit, problemPage(visit, answer, request.id), answer.status);
}

/** The visit behind a request that failed, signed out if even that cannot be told now. */
async function calmVisitOf(request: FastifyRequest, options: UiOptions): Promise<Visit> {
  try {
    return await visitOf(request, options);
  } catch {
    return { viewer: undefined, csrf: "", here: address.home, asset: (name) => options.assets.url(name) };
  }
}
