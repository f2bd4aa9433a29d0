/** How accounts answer other services. */
import type { ServiceContext } from "rungs";
import { type ServedMethod, serve } from "rungs/call";
import { comparable } from "../domain/validation.ts";
import { inPart } from "../partial.ts";
import type { Tables } from "../schema.ts";
import { accounts } from "./account-methods.ts";
import { profileByName, profilesByIds } from "./account-statements.ts";

type Context = ServiceContext<Tables>;

const personOf = ({ user_id, username, image }: { user_id: string; username: string; image: string }) => ({
  userId: user_id,
  username,
  image,
});

export const servedAccounts: readonly ServedMethod<Context>[] = [
  serve(accounts.personByName, async ({ username }, _call, { db, directory }: Context) => {
    const usernameKey = comparable(username);
    const found = await directory("usernames").follow(usernameKey, async ({ key: userId }) => {
      const [profile] = await db.for(userId).run(profileByName, { userId, usernameKey, viewerId: null });
      return profile;
    });
    return found === undefined ? null : personOf(found);
  }),
  serve(accounts.people, async ({ userIds }, _call, { db }: Context) => {
    const { rows } = await db.byKey(
      [...userIds],
      (shard, ids) => shard.run(profilesByIds, { userIds: ids, viewerId: null }),
      inPart,
    );
    return rows.map(personOf);
  }),
];
