/** Accounts and profiles: the operations behind registration, sign-in, settings, profiles and following. */
import { type Clock, ConflictError, type Random, uuidV7 } from "rungs";
import type { Database, Directory, DirectoryReference } from "rungs/database";
import { publication } from "rungs/queue";
import type { Account, AccountChange, Accounts, NewAccount, Profile } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { comparable, inputs, parse } from "../domain/validation.ts";
import type { Tables } from "../schema.ts";
import { userFollowed } from "./account-events.ts";
import { accountById, addFollow, credentialsByEmail, profileByName, removeFollow } from "./account-statements.ts";

/** Hashing of passwords, as the session tier offers it. */
export interface Passwords {
  hash(password: string): Promise<string>;
  /** False for a wrong password; takes as long when there is no hash to compare with. */
  verifyOrDummy(password: string, hash: string | undefined): Promise<boolean>;
}

export interface AccountsOptions {
  readonly db: Database<Tables>;
  readonly usernames: Directory;
  readonly emails: Directory;
  readonly passwords: Passwords;
  readonly clock: Clock;
  readonly random: Random;
}

/** Cache tag of everything that shows a user's name, bio or picture. */
export const userTag = (userId: string) => `user:${userId}`;

type Field = "username" | "email";

export function createAccounts(options: AccountsOptions): Accounts {
  const { db, usernames, emails, passwords, clock, random } = options;
  const directories: Record<Field, Directory> = { username: usernames, email: emails };

  /** Takes a name for the user, or says which field is taken. */
  async function reserve(field: Field, name: string, reference: DirectoryReference): Promise<void> {
    try {
      await directories[field].reserve(name, reference, (holder) => bearsName(db, field, name, holder));
    } catch (error) {
      throw asTaken(error, field);
    }
  }

  async function confirm(field: Field, name: string, reference: DirectoryReference): Promise<void> {
    try {
      await directories[field].confirm(name, reference);
    } catch (error) {
      throw asTaken(error, field);
    }
  }

  /** Undoes a registration that failed half-way; what cannot be undone now, the directory heals later. */
  async function takeBack(userId: string, names: Record<Field, string>, reference: DirectoryReference): Promise<void> {
    await Promise.allSettled([
      db.for(userId).deleteFrom("users").where("user_id", "=", userId).execute(),
      usernames.release(names.username, reference),
      emails.release(names.email, reference),
    ]);
  }

  /** Gives a user the old name back when the new one was lost to another while this request slept. */
  async function restoreName(userId: string, field: Field, name: string): Promise<void> {
    const names =
      field === "username"
        ? { username: name, username_key: comparable(name) }
        : { email: name, email_key: comparable(name) };
    await db.for(userId).transaction(async (tx) => {
      await tx.updateTable("users").set(names).where("user_id", "=", userId).execute();
      tx.invalidate(userTag(userId));
    });
  }

  async function findProfile(username: string, viewerId: string | undefined) {
    const usernameKey = comparable(username);
    const row = await usernames.follow(usernameKey, async ({ key: userId }) => {
      const [found] = await db.for(userId).run(profileByName, { userId, usernameKey, viewerId: viewerId ?? null });
      return found;
    });
    if (row === undefined) throw new ProblemError(404, { profile: ["not found"] });
    return row;
  }

  return {
    async register(input: NewAccount): Promise<Account> {
      const { username, email, password } = parse(inputs.newAccount, input);
      const userId = uuidV7(clock, random);
      const reference = { key: userId, id: userId };
      const names = { username: comparable(username), email: comparable(email) };
      try {
        await reserve("username", names.username, reference);
        await reserve("email", names.email, reference);
        const now = new Date(clock.now());
        const row = {
          user_id: userId,
          username,
          username_key: names.username,
          email,
          email_key: names.email,
          password_hash: await passwords.hash(password),
          bio: "",
          image: "",
          created_at: now,
          updated_at: now,
        };
        await db.for(userId).insertInto("users").values(row).execute();
        await confirm("username", names.username, reference);
        await confirm("email", names.email, reference);
      } catch (error) {
        await takeBack(userId, names, reference);
        throw error;
      }
      return { id: userId, username, email, bio: "", image: "" };
    },

    async authenticate(input): Promise<Account> {
      const { email, password } = parse(inputs.credentials, input);
      const emailKey = comparable(email);
      const row = await emails.follow(emailKey, async ({ key: userId }) => {
        const [found] = await db.for(userId).run(credentialsByEmail, { userId, emailKey });
        return found;
      });
      const isRight = await passwords.verifyOrDummy(password, row?.password_hash);
      if (row === undefined || !isRight) throw new ProblemError(401, { credentials: ["invalid"] });
      return accountOf(row);
    },

    async byId(id): Promise<Account | undefined> {
      const [row] = await db.for(id).run(accountById, { userId: id });
      return row === undefined ? undefined : accountOf(row);
    },

    async update(id, input: AccountChange): Promise<Account> {
      const change = parse(inputs.accountChange, input);
      const [before] = await db.for(id).run(accountById, { userId: id });
      if (before === undefined) throw new ProblemError(401, { token: ["is invalid"] });
      const reference = { key: id, id };
      const renames = (["username", "email"] as const).flatMap((field) => {
        const value = change[field];
        if (value === undefined || comparable(value) === comparable(before[field])) return [];
        return [{ field, from: comparable(before[field]), to: comparable(value) }];
      });
      for (const { field, to } of renames) await reserve(field, to, reference);
      const passwordHash = change.password === undefined ? undefined : await passwords.hash(change.password);
      const after = await db.for(id).transaction(async (tx) => {
        const row = await tx
          .updateTable("users")
          .set({
            ...(change.username === undefined
              ? {}
              : { username: change.username, username_key: comparable(change.username) }),
            ...(change.email === undefined ? {} : { email: change.email, email_key: comparable(change.email) }),
            ...(change.bio === undefined ? {} : { bio: change.bio }),
            ...(change.image === undefined ? {} : { image: change.image }),
            ...(passwordHash === undefined ? {} : { password_hash: passwordHash }),
            updated_at: new Date(clock.now()),
          })
          .where("user_id", "=", id)
          .returning(["user_id", "username", "email", "bio", "image"])
          .executeTakeFirstOrThrow();
        tx.invalidate(userTag(id));
        return row;
      });
      for (const { field, from, to } of renames) {
        await confirm(field, to, reference).catch(async (error: unknown) => {
          await restoreName(id, field, before[field]);
          throw error;
        });
        await directories[field].release(from, reference);
      }
      return accountOf(after);
    },

    async profile(username, viewerId, seen): Promise<Profile> {
      const row = await findProfile(username, viewerId);
      seen?.(userTag(row.user_id));
      return profileOf(row);
    },

    async follow(viewerId, username): Promise<Profile> {
      const row = await findProfile(username, viewerId);
      const follow = { followedId: row.user_id, followerId: viewerId };
      await db.for(row.user_id).run(
        addFollow,
        { ...follow, now: new Date(clock.now()) },
        {
          publish: [publication(userFollowed, follow, { key: row.user_id })],
        },
      );
      return profileOf({ ...row, following: true });
    },

    async unfollow(viewerId, username): Promise<Profile> {
      const row = await findProfile(username, viewerId);
      await db.for(row.user_id).run(removeFollow, { followedId: row.user_id, followerId: viewerId });
      return profileOf({ ...row, following: false });
    },
  };
}

/** Columns of a user that make a profile, with the viewer's flag. */
export interface ProfileRow {
  readonly username: string;
  readonly bio: string;
  readonly image: string;
  readonly following: unknown;
}

/** A profile in the API's shape. */
export function profileOf(row: ProfileRow): Profile {
  return { username: row.username, bio: row.bio, image: row.image, following: row.following === true };
}

function accountOf(row: { user_id: string; username: string; email: string; bio: string; image: string }): Account {
  return { id: row.user_id, username: row.username, email: row.email, bio: row.bio, image: row.image };
}

async function bearsName(
  db: Database<Tables>,
  field: Field,
  name: string,
  holder: DirectoryReference,
): Promise<boolean> {
  const row = await db
    .for(holder.key)
    .selectFrom("users")
    .select("user_id")
    .where("user_id", "=", holder.key)
    .where(field === "username" ? "username_key" : "email_key", "=", name)
    .executeTakeFirst();
  return row !== undefined;
}

function asTaken(error: unknown, field: Field): unknown {
  return error instanceof ConflictError ? new ProblemError(422, { [field]: ["has already been taken"] }) : error;
}
