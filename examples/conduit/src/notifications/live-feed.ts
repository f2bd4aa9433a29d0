/** The live stream of a signed-in user: their own topic, resumed from the notifications, and articles they have open. */
import type { FastifyReply, FastifyRequest } from "fastify";
import type { ServiceContext } from "rungs";
import { serveLive } from "rungs/live/fastify";
import type { ArticleLookup } from "../articles/article-reads.ts";
import { articleExists } from "../articles/article-statements.ts";
import type { Tables } from "../schema.ts";
import type { NotificationCentre } from "./notifications.ts";
import { articleTopic, userTopic } from "./topics.ts";

/** Whose stream it is, and the token of the session that it ends with. */
export interface FeedViewer {
  readonly userId: string;
  readonly token: string;
}

/** Answers by a stream of the viewer's events and those of the articles. A 404 problem for an article that is not there. */
export type ServeFeed = (
  request: FastifyRequest,
  reply: FastifyReply,
  feed: { readonly viewer: FeedViewer; readonly articles: readonly string[] },
) => Promise<FastifyReply>;

export function createLiveFeed(
  context: Pick<ServiceContext<Tables>, "db" | "live" | "sessions">,
  parts: { readonly articles: ArticleLookup; readonly notifications: NotificationCentre },
): ServeFeed {
  const { db, live, sessions } = context;

  const topicOf = (slug: string) =>
    parts.articles.locate(slug, async ({ key: authorId, id: articleId }) => {
      const found = await db.for(authorId).run(articleExists, { authorId, articleId });
      return found.length === 0 ? undefined : articleTopic(articleId);
    });

  return async (request, reply, { viewer: { userId, token }, articles }) => {
    const articleTopics = await Promise.all(articles.map(topicOf));
    return serveLive(request, reply, {
      live,
      topics: [userTopic(userId), ...articleTopics],
      owner: userId,
      record: parts.notifications.record(userId),
      isAllowed: async () => (await sessions.load(token))?.userId === userId,
    });
  };
}
