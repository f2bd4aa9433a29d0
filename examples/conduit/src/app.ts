/** Conduit as an app: its services and what joins them. */
import { defineApp, defineService, type ServiceContext } from "rungs";
import { allowCrossOrigin } from "rungs/web/cors";
import { createAccounts } from "./accounts/accounts.ts";
import { apiRoutes } from "./api/routes.ts";
import { createArticles } from "./articles/articles.ts";
import { createComments } from "./articles/comments.ts";
import type { Conduit } from "./domain/model.ts";
import type { Tables } from "./schema.ts";
import { createSignIn } from "./sign-in.ts";

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

/** The RealWorld JSON API under `/api`. */
const api = defineService<Tables>("api", {
  routes: (fastify, context) => {
    const conduit = createConduit(context);
    const signIn = createSignIn(conduit.accounts, context.loginThrottle);
    fastify.register(
      async (scope) => {
        allowCrossOrigin(scope);
        apiRoutes(scope, {
          conduit,
          sessions: {
            viewerOf: async (request) => {
              const carried = request.carriedToken();
              if (carried === undefined) return undefined;
              const session = await request.session();
              return session === undefined || session.userId === null
                ? "invalid"
                : { userId: session.userId, token: session.token };
            },
            start: async (userId) => (await context.sessions.start(userId)).token,
            endOthers: async ({ userId, token }) => void (await context.sessions.revokeAll(userId, token)),
            signIn: (credentials, request) => signIn(credentials, request.ip),
          },
        });
      },
      { prefix: "/api" },
    );
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
  services: [accounts, articles, api],
});
