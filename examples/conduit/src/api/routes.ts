/** The RealWorld JSON API: a thin face on Conduit's operations. Mounted under `/api`. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Account, AccountChange, Conduit, NewAccount, NewArticle, Seen } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import type { ReceiveUpload } from "../media/media-routes.ts";
import type { ServeFeed } from "../notifications/live-feed.ts";
import { shared } from "../shared-answers.ts";
import type { SignIn } from "../sign-in.ts";
import { notificationRoutes } from "./notification-routes.ts";
import { numberOf, pageOf, textOf, wrapped } from "./request.ts";
import { answers } from "./response-schema.ts";
import { tipRoutes } from "./tip-routes.ts";
import { uploadRoutes } from "./upload-routes.ts";

/** Who a request comes from, by the session behind its token. */
export interface Viewer {
  readonly userId: string;
  readonly token: string;
}

export interface ApiOptions {
  readonly conduit: Conduit;
  /** Checks email and password under the login throttle. */
  readonly signIn: SignIn;
  /** Starts a session and gives its token. */
  startSession(userId: string): Promise<string>;
  /** Ends the user's other sessions: done when the password changes. */
  endOtherSessions(viewer: Viewer): Promise<unknown>;
  readonly receiveUpload: ReceiveUpload;
  /** Answers by the viewer's live stream. */
  readonly serveFeed: ServeFeed;
}

type Slug = { Params: { slug: string } };
type Username = { Params: { username: string } };

/** Registers every route of the API. */
export function apiRoutes(api: FastifyInstance, options: ApiOptions): void {
  const { accounts, articles, comments, notifications } = options.conduit;

  const required = async (request: FastifyRequest): Promise<Viewer> => {
    const viewer = await viewerOf(request);
    if (viewer === undefined) throw new ProblemError(401, { token: ["is missing"] });
    if (viewer === "invalid") throw new ProblemError(401, { token: ["is invalid"] });
    return viewer;
  };
  /** For routes whose authentication is optional: a token that opens nothing is still an error, so that clients notice. */
  const optional = async (request: FastifyRequest): Promise<string | undefined> => {
    const viewer = await viewerOf(request);
    if (viewer === "invalid") throw new ProblemError(401, { token: ["is invalid"] });
    return viewer?.userId;
  };
  /** For routes without authentication: whoever cannot be told is anonymous. */
  const lenient = async (request: FastifyRequest): Promise<string | undefined> => {
    const viewer = await viewerOf(request);
    return viewer === "invalid" ? undefined : viewer?.userId;
  };

  api.post("/users", answers.user, async (request, reply) => {
    const account = await accounts.register(wrapped(request.body, "user") as unknown as NewAccount);
    return reply.code(201).send({ user: userOf(account, await options.startSession(account.id)) });
  });
  api.post("/users/login", answers.user, async (request) => {
    const account = await options.signIn(wrapped(request.body, "user"), request.ip);
    return { user: userOf(account, await options.startSession(account.id)) };
  });
  api.get("/user", answers.user, async (request) => {
    const viewer = await required(request);
    const account = await accounts.byId(viewer.userId);
    if (account === undefined) throw new ProblemError(401, { token: ["is invalid"] });
    return { user: userOf(account, viewer.token) };
  });
  api.put("/user", answers.user, async (request) => {
    const viewer = await required(request);
    const change = wrapped(request.body, "user") as AccountChange;
    const account = await accounts.update(viewer.userId, change);
    if (change.password !== undefined) await options.endOtherSessions(viewer);
    return { user: userOf(account, viewer.token) };
  });

  api.get<Username>("/profiles/:username", { ...answers.profile, config: shared }, async (request, reply) => ({
    profile: await accounts.profile(request.params.username, await optional(request), seenBy(reply)),
  }));
  api.post<Username>("/profiles/:username/follow", answers.profile, async (request) => ({
    profile: await accounts.follow((await required(request)).userId, request.params.username),
  }));
  api.delete<Username>("/profiles/:username/follow", answers.profile, async (request) => ({
    profile: await accounts.unfollow((await required(request)).userId, request.params.username),
  }));

  api.get("/articles", { ...answers.articles, config: shared }, async (request, reply) => {
    const { query } = request;
    const filter = {
      tag: textOf(query, "tag"),
      author: textOf(query, "author"),
      favorited: textOf(query, "favorited"),
    };
    return articles.list({ ...filter, ...pageOf(query) }, await optional(request), seenBy(reply));
  });
  api.get("/articles/feed", answers.articles, async (request, reply) => {
    const { userId } = await required(request);
    return articles.feed(userId, pageOf(request.query), seenBy(reply));
  });
  api.post("/articles", answers.article, async (request, reply) => {
    const { userId } = await required(request);
    const article = await articles.create(userId, wrapped(request.body, "article") as unknown as NewArticle);
    return reply.code(201).send({ article });
  });
  api.get<Slug>("/articles/:slug", { ...answers.article, config: shared }, async (request, reply) => ({
    article: await articles.bySlug(request.params.slug, await lenient(request), seenBy(reply)),
  }));
  api.put<Slug>("/articles/:slug", answers.article, async (request) => {
    const { userId } = await required(request);
    return { article: await articles.update(userId, request.params.slug, wrapped(request.body, "article")) };
  });
  api.delete<Slug>("/articles/:slug", async (request, reply) => {
    await articles.remove((await required(request)).userId, request.params.slug);
    return reply.code(204).send();
  });
  api.post<Slug>("/articles/:slug/favorite", answers.article, async (request) => ({
    article: await articles.favorite((await required(request)).userId, request.params.slug),
  }));
  api.delete<Slug>("/articles/:slug/favorite", answers.article, async (request) => ({
    article: await articles.unfavorite((await required(request)).userId, request.params.slug),
  }));

  api.get<Slug>("/articles/:slug/comments", { ...answers.comments, config: shared }, async (request, reply) => ({
    comments: await comments.list(request.params.slug, await optional(request), seenBy(reply)),
  }));
  api.post<Slug>("/articles/:slug/comments", answers.comment, async (request) => {
    const { userId } = await required(request);
    const comment = wrapped(request.body, "comment") as { body: string };
    return { comment: await comments.add(userId, request.params.slug, comment) };
  });
  api.delete<{ Params: { slug: string; id: string } }>("/articles/:slug/comments/:id", async (request, reply) => {
    const { userId } = await required(request);
    await comments.remove(userId, request.params.slug, numberOf(request.params.id, "comment"));
    return reply.code(204).send();
  });

  uploadRoutes(api, { uploads: options.conduit.uploads, receiveUpload: options.receiveUpload, required });
  tipRoutes(api, { tips: options.conduit.tips, required });
  notificationRoutes(api, { notifications, serveFeed: options.serveFeed, required });

  api.get("/tags", { ...answers.tags, config: shared }, async (_request, reply) => ({
    tags: await articles.tags(seenBy(reply)),
  }));
}

/** Names to the CDN what an answer shows. */
function seenBy(reply: FastifyReply): Seen {
  const incomplete = () => void reply.header("cache-control", "private, no-store").header("conduit-incomplete", "true");
  return Object.assign((tag: string) => reply.cacheTag(tag), { incomplete });
}

/** The viewer; undefined when the request brings no token, "invalid" when it brings one that opens no session. */
async function viewerOf(request: FastifyRequest): Promise<Viewer | "invalid" | undefined> {
  if (request.carriedToken() === undefined) return undefined;
  const session = await request.session();
  if (session === undefined || session.userId === null) return "invalid";
  return { userId: session.userId, token: session.token };
}

function userOf(account: Account, token: string) {
  return { email: account.email, token, username: account.username, bio: account.bio, image: account.image };
}
