/** Conduit as an app: its services and what joins them. */
import { defineApp, defineService, type ServiceContext } from "rungs";
import { allowCrossOrigin } from "rungs/web/cors";
import { createAccounts } from "./accounts/accounts.ts";
import { servedAccounts } from "./accounts/served-accounts.ts";
import { apiRoutes, type Viewer } from "./api/routes.ts";
import type { ArticleLookup } from "./articles/article-reads.ts";
import { createArticles } from "./articles/articles.ts";
import { createComments } from "./articles/comments.ts";
import type { Articles, Conduit } from "./domain/model.ts";
import { mediaHandlers, mediaSchedules } from "./media/media-handlers.ts";
import { mediaFiles, type ReceiveUpload, receive } from "./media/media-routes.ts";
import { createUploads } from "./media/uploads.ts";
import { createLiveFeed } from "./notifications/live-feed.ts";
import { notificationHandlers, notificationSchedules } from "./notifications/notification-handlers.ts";
import { createNotifications, type NotificationCentre } from "./notifications/notifications.ts";
import { userTopic } from "./notifications/topics.ts";
import { calledTips } from "./payments/called-tips.ts";
import { paymentHandlers, paymentSchedules } from "./payments/payment-handlers.ts";
import { paymentsOf } from "./payments/payments.ts";
import { servedPayments } from "./payments/served-payments.ts";
import { paymentWebhook } from "./payments/webhook.ts";
import type { Tables } from "./schema.ts";
import { createSignIn } from "./sign-in.ts";
import { uiPages } from "./ui/pages.ts";

const accounts = defineService<Tables>("accounts", {
  tables: { users: { shardBy: "user_id" }, follows: { shardBy: "followed_id" } },
  migrations: new URL("./accounts/migrations/", import.meta.url),
  methods: servedAccounts,
});

const articles = defineService<Tables>("articles", {
  tables: {
    articles: { shardBy: "author_id" },
    article_tags: { shardBy: "author_id" },
    favorites: { shardBy: "author_id" },
    comments: { shardBy: "author_id" },
  },
  migrations: new URL("./articles/migrations/", import.meta.url),
});

const notifications = defineService<Tables>("notifications", {
  tables: { notification_boxes: { shardBy: "user_id" }, notifications: { shardBy: "user_id" } },
  migrations: new URL("./notifications/migrations/", import.meta.url),
  on: notificationHandlers,
  schedules: notificationSchedules,
});

const media = defineService<Tables>("media", {
  tables: { uploads: { shardBy: "owner_id" } },
  migrations: new URL("./media/migrations/", import.meta.url),
  on: mediaHandlers,
  schedules: mediaSchedules,
  routes: mediaFiles,
});

const payments = defineService<Tables>("payments", {
  tables: {
    ledger_accounts: { shardBy: "owner_id" },
    ledger_entries: { shardBy: "owner_id" },
    ledger_lines: { shardBy: "owner_id" },
    tips: { shardBy: "payer_id" },
    received_tips: { shardBy: "payee_id" },
    payment_notices: { shardBy: "payer_id" },
  },
  migrations: new URL("./payments/migrations/", import.meta.url),
  on: paymentHandlers,
  schedules: paymentSchedules,
  methods: servedPayments,
  routes: (fastify, context) => {
    const { provider } = paymentsOf(context);
    if (provider === undefined) return;
    fastify.register(async (scope) => paymentWebhook(scope, { ...context, provider }), { prefix: "/api" });
  },
});

/** Conduit's two faces over the same operations: the RealWorld JSON API under `/api`, and pages for people. */
const faces = defineService<Tables>("faces", {
  routes: (fastify, context) => {
    const { assets, live, sessions } = context;
    const conduit = createConduit(context);
    const signIn = createSignIn(conduit.accounts, context.loginThrottle);
    const sessionsEnded = (userId: string) => live.recheck(userTopic(userId));
    const endOtherSessions = async ({ userId, token }: Viewer) => {
      await sessions.revokeAll(userId, token);
      await sessionsEnded(userId);
    };
    const serveFeed = createLiveFeed(context, conduit);
    const receiveUpload: ReceiveUpload = (request, upload) => receive(request, conduit.uploads, upload);
    fastify.register(
      async (scope) => {
        allowCrossOrigin(scope);
        apiRoutes(scope, {
          conduit,
          endOtherSessions,
          receiveUpload,
          serveFeed,
          signIn,
          startSession: async (userId) => (await sessions.start(userId)).token,
        });
      },
      { prefix: "/api" },
    );
    fastify.register(uiPages, { conduit, assets, signIn, endOtherSessions, sessionsEnded, receiveUpload });
  },
});

/** Conduit's operations, with what its services use of each other. */
export interface ConduitParts extends Conduit {
  readonly uploads: ReturnType<typeof createUploads>;
  readonly articles: Articles & ArticleLookup;
  readonly notifications: NotificationCentre;
}

/** Joins the tiers to Conduit's operations. */
export function createConduit(context: ServiceContext<Tables>): ConduitParts {
  const { db, cache, clock, random, passwords } = context;
  const usernames = context.directory("usernames");
  const emails = context.directory("emails");
  const slugs = context.directory("slugs");
  const articleOperations = createArticles({ db, cache, slugs, usernames, clock, random });
  return {
    accounts: createAccounts({ db, usernames, emails, passwords, clock, random }),
    articles: articleOperations,
    comments: createComments({ db, articles: articleOperations, clock }),
    notifications: createNotifications(context),
    tips: calledTips(context),
    uploads: createUploads(context),
  };
}

export default defineApp<Tables>({
  name: "conduit",
  services: [accounts, articles, notifications, media, payments, faces],
  assets: [new URL("./ui/assets/", import.meta.url)],
});
