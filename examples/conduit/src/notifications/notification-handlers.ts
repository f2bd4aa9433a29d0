/** What becomes a notification: one handler an event. Nobody is told of what they did themselves. */
import type { ServiceContext } from "rungs";
import { every, type Handler, handle, type Schedule } from "rungs/queue";
import { userFollowed } from "../accounts/account-events.ts";
import { articleCommented, articleFavorited } from "../articles/article-events.ts";
import { uploadFailed, uploadReady } from "../media/media-events.ts";
import { tipCompleted } from "../payments/payment-events.ts";
import type { Tables } from "../schema.ts";
import { oldNotificationsDue } from "./notification-events.ts";
import { articleTitle, forgetUpTo, oldNotifications } from "./notification-statements.ts";
import { createNotifications } from "./notifications.ts";
import { articleTopic } from "./topics.ts";

type Context = ServiceContext<Tables>;

const keptMs = 90 * 24 * 60 * 60_000;
const forgetEveryMs = 60 * 60_000;
/** Notifications looked for at once on each shard, and how often at one time; the rest an hour later. */
const batchMax = 5_000;
const batchesMax = 200;

export const notificationHandlers: Readonly<Record<string, Handler<Context>>> = {
  forget: handle(oldNotificationsDue, ({ signal }, context: Context) => forgetOld(context, signal)),

  followed: handle(userFollowed, async (delivery, context: Context) => {
    const { followedId, followerId } = delivery.payload;
    if (followedId === followerId) return;
    await createNotifications(context).tell(delivery, followedId, async () => ({
      kind: "follow",
      actorId: followerId,
      subjectId: followedId,
      details: {},
    }));
  }),

  favorited: handle(articleFavorited, async (delivery, context: Context) => {
    const { authorId, articleId, userId } = delivery.payload;
    if (authorId === userId) return;
    await createNotifications(context).tell(delivery, authorId, async (tx) => {
      const [article] = await tx.run(articleTitle, { authorId, articleId });
      // Deleted meanwhile: nothing to tell.
      return article && { kind: "favorite", actorId: userId, subjectId: articleId, details: article };
    });
  }),

  commented: handle(articleCommented, async (delivery, context: Context) => {
    const { authorId, articleId, commenterId, number } = delivery.payload;
    // A hint to the article's open pages, which then fetch what is new: cheaper than a comment's text to each of them.
    await context.live.send(articleTopic(articleId), { event: "comment", data: { id: number } });
    if (authorId === commenterId) return;
    await createNotifications(context).tell(delivery, authorId, async (tx) => {
      const [article] = await tx.run(articleTitle, { authorId, articleId });
      if (article === undefined) return undefined;
      const subjectId = `${articleId}#${number}`;
      return { kind: "comment", actorId: commenterId, subjectId, details: { ...article, comment: number } };
    });
  }),

  tipped: handle(tipCompleted, async (delivery, context: Context) => {
    const { tipId, payerId, payeeId, amountMinor, currency, message } = delivery.payload;
    await createNotifications(context).tell(delivery, payeeId, async () => ({
      kind: "tip",
      actorId: payerId,
      subjectId: tipId,
      details: { amountMinor, currency, message },
    }));
  }),

  videoReady: handle(uploadReady, async (delivery, context: Context) => tellOfVideo(delivery, context, "ready")),

  videoFailed: handle(uploadFailed, async (delivery, context: Context) => tellOfVideo(delivery, context, "failed")),
};

/** Pictures are ready before anybody looks away; only videos are worth a notification. */
async function tellOfVideo(
  delivery: Parameters<ReturnType<typeof createNotifications>["tell"]>[0] & {
    readonly payload: { readonly ownerId: string; readonly uploadId: string; readonly purpose: string };
  },
  context: Context,
  state: "ready" | "failed",
): Promise<void> {
  const { ownerId, uploadId, purpose } = delivery.payload;
  if (purpose !== "video") return;
  await createNotifications(context).tell(delivery, ownerId, async () => ({
    kind: "video",
    actorId: null,
    subjectId: `${uploadId}:${state}`,
    details: { uploadId, state },
  }));
}

export const notificationSchedules: Readonly<Record<string, Schedule>> = {
  forget: every({ event: oldNotificationsDue, payload: {}, everyMs: forgetEveryMs }),
};

/** Forgets notifications made more than 90 days ago; their numbers are not given again. */
async function forgetOld({ db, clock }: Context, signal: AbortSignal): Promise<void> {
  const before = new Date(clock.now() - keptMs);
  for (let batch = 0; batch < batchesMax && !signal.aborted; batch++) {
    const old = await db.everywhere((shard) => shard.run(oldNotifications, { before, limit: batchMax }));
    if (old.length === 0) return;
    const newestOf = new Map<string, number>();
    for (const { user_id: userId, number } of old) {
      newestOf.set(userId, Math.max(number, newestOf.get(userId) ?? 0));
    }
    for (const [userId, number] of newestOf) await db.for(userId).run(forgetUpTo, { userId, number });
  }
}
