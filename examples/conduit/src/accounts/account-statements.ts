/** The queries of accounts: each written once, compiled once. `null` as viewer is an anonymous visitor. */
import { sql } from "kysely";
import { statements } from "rungs/database";
import type { Tables } from "../schema.ts";

const define = statements<Tables>();

/** An account by its id. */
export const accountById = define<{ userId: string }>()("account_by_id", (q, p) =>
  q.selectFrom("users").select(["user_id", "username", "email", "bio", "image"]).where("user_id", "=", p.userId),
);

/** What a sign-in checks. The key makes sure that the address is still this account's. */
export const credentialsByEmail = define<{ userId: string; emailKey: string }>()("account_credentials", (q, p) =>
  q
    .selectFrom("users")
    .select(["user_id", "username", "email", "bio", "image", "password_hash"])
    .where("user_id", "=", p.userId)
    .where("email_key", "=", p.emailKey),
);

/** A profile as the viewer sees it. The key makes sure that the name is still this user's. */
export const profileByName = define<{ userId: string; usernameKey: string; viewerId: string | null }>()(
  "profile_by_name",
  (q, p) =>
    q
      .selectFrom("users as u")
      .select((eb) => [
        "u.user_id",
        "u.username",
        "u.bio",
        "u.image",
        eb
          .exists(
            eb
              .selectFrom("follows as f")
              .select(sql`1`.as("one"))
              .whereRef("f.followed_id", "=", "u.user_id")
              .where("f.follower_id", "=", p.viewerId),
          )
          .as("following"),
      ])
      .where("u.user_id", "=", p.userId)
      .where("u.username_key", "=", p.usernameKey),
);

/** Profiles of several users of one shard as the viewer sees them. */
export const profilesByIds = define<{ userIds: readonly string[]; viewerId: string | null }>()(
  "profiles_by_ids",
  (q, p) =>
    q
      .selectFrom("users as u")
      .select((eb) => [
        "u.user_id",
        "u.username",
        "u.bio",
        "u.image",
        eb
          .exists(
            eb
              .selectFrom("follows as f")
              .select(sql`1`.as("one"))
              .whereRef("f.followed_id", "=", "u.user_id")
              .where("f.follower_id", "=", p.viewerId),
          )
          .as("following"),
      ])
      .where("u.user_id", "=", sql<string>`any(${p.userIds}::uuid[])`),
);

/** Follows a user; following twice changes nothing. */
export const addFollow = define<{ followedId: string; followerId: string; now: Date }>()("follow_add", (q, p) =>
  q
    .insertInto("follows")
    .values({ followed_id: p.followedId, follower_id: p.followerId, created_at: p.now })
    .onConflict((conflict) => conflict.doNothing())
    .returning("followed_id"),
);

/** Stops following a user. */
export const removeFollow = define<{ followedId: string; followerId: string }>()("follow_remove", (q, p) =>
  q
    .deleteFrom("follows")
    .where("followed_id", "=", p.followedId)
    .where("follower_id", "=", p.followerId)
    .returning("followed_id"),
);
