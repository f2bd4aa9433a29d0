/** Conduit as an app: its services and what joins them. */
import { defineApp, defineService, type ServiceContext } from "rungs";
import { allowCrossOrigin } from "rungs/web/cors";
import { createAccounts } from "./accounts/accounts.ts";
import { apiRoutes, type Viewer } from "./api/routes.ts";
import { createArticles } from "./articles/articles.ts";
import { createComments } from "./articles/comments.ts";
import type { Conduit } from "./domain/model.ts";
import type { Tables } from "./schema.ts";
import { createSignIn } from "./sign-in.ts";
import { uiPages } from "./ui/pages.ts";

const accounts = defineService<Tables>("accounts", {
  tables: { users: { shardBy: "user_id" }, follows: { shardBy: "followed_id" } },
  migrations: new URL("./accounts/migrations/", import.meta.url),
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

/** Conduit's two faces over the same operations: the RealWorld JSON API under `/api`, and pages for people. */
const faces = defineService<Tables>("faces", {
  routes: (fastify, context) => {
    const { assets, sessions } = context;
    const conduit = createConduit(context);
    const signIn = createSignIn(conduit.accounts, context.loginThrottle);
    const endOtherSessions = ({ userId, token }: Viewer) => sessions.revokeAll(userId, token);
    fastify.register(
      async (scope) => {
        allowCrossOrigin(scope);
        apiRoutes(scope, {
          conduit,
          endOtherSessions,
          signIn,
          startSession: async (userId) => (await sessions.start(userId)).token,
        });
      },
      { prefix: "/api" },
    );
    fastify.register(uiPages, { conduit, assets, signIn, endOtherSessions });
  },
});

/** Joins the tiers to Conduit's operations. */
export function createConduit(context: ServiceContext<Tables>): Conduit {
  const { db, cache, clock, random, passwords } = context;
  const usernames = context.directory("usernames");
  const emails = context.directory("emails");
  const slugs = context.directory("slugs");
  const articleOperations = createArticles({ db, cache, slugs, usernames, clock, random });
  return {
    accounts: createAccounts({ db, usernames, emails, passwords, clock, random }),
    articles: articleOperations,
    comments: createComments({ db, articles: articleOperations, clock }),
  };
}

export default defineApp<Tables>({
  name: "conduit",
  services: [accounts, articles, faces],
  assets: [new URL("./ui/assets/", import.meta.url)],
});
