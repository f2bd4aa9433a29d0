/** Beside the RealWorld API: a user's notifications, and the stream of what happens now. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Notifications } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import type { FeedViewer, ServeFeed } from "../notifications/live-feed.ts";
import { integerOf, textsOf } from "./request.ts";

/** Articles a stream may listen to. */
const articlesMax = 5;

export function notificationRoutes(
  api: FastifyInstance,
  options: {
    readonly notifications: Notifications;
    readonly serveFeed: ServeFeed;
    /** The signed-in viewer, or a 401 problem. */
    required(request: FastifyRequest): Promise<FeedViewer>;
  },
): void {
  const { notifications, serveFeed, required } = options;

  api.get("/notifications", async (request, reply) => {
    const { userId } = await required(request);
    const page = { limit: integerOf(request.query, "limit"), before: integerOf(request.query, "before") };
    reply.header("cache-control", "private, no-store");
    return notifications.list(userId, page);
  });

  api.post("/notifications/read", async (request) => {
    const { userId } = await required(request);
    return notifications.markRead(userId, (request.body as { readonly upTo?: unknown } | null | undefined)?.upTo);
  });

  api.get("/live", async (request, reply) => {
    const viewer = await required(request);
    const topics = textsOf(request.query, "topic");
    if (topics.length > articlesMax)
      throw new ProblemError(422, { topic: [`is given too often (maximum is ${articlesMax})`] });
    const articles = topics.map((topic) => {
      const slug = /^article:(.+)$/s.exec(topic)?.[1];
      if (slug === undefined) throw new ProblemError(422, { topic: ["must be article:SLUG"] });
      return slug;
    });
    return serveFeed(request, reply, { viewer, articles });
  });
}
