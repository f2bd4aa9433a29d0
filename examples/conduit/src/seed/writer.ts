/**
 * Writes a generated network in bulk. Every statement leaves rows alone that are there already, so a chunk that was cut
 * off is simply written again.
 */
import { type Kysely, sql } from "kysely";
import type { OpenDatabases } from "rungs/app";
import { comparable } from "../domain/validation.ts";
import type { Tables } from "../schema.ts";
import type { Network, SeedArticle } from "./network.ts";

/** Which slice of people to write. */
export interface Chunk {
  readonly from: number;
  readonly to: number;
}

export interface SeedWriter {
  people(chunk: Chunk): Promise<number>;
  follows(chunk: Chunk): Promise<number>;
  articles(chunk: Chunk): Promise<number>;
  reads(chunk: Chunk): Promise<number>;
  /** Sets the counters that articles keep, once all marks are written. */
  countMarks(): Promise<void>;
}

/** Makes the writer. `passwordHash`: what every generated person signs in with. */
export function seedWriter(databases: OpenDatabases<Tables>, network: Network, passwordHash: string): SeedWriter {
  const { db, home, shards } = databases;
  const idOf = remembered((index) => network.person(index).id);
  const articleIdsOf = remembered((author) => network.articles(author).map((article) => article.id));

  /** Sends rows to the shards that own them, as one statement a shard and batch. */
  async function insertByOwner<R>(
    rows: readonly R[],
    keyOf: (row: R) => string,
    insert: (shard: Kysely<unknown>, rows: readonly R[]) => Promise<unknown>,
  ): Promise<number> {
    const byOwner = new Map<string, R[]>();
    for (const row of rows) {
      const group = byOwner.get(keyOf(row));
      if (group !== undefined) group.push(row);
      else byOwner.set(keyOf(row), [row]);
    }
    await db.byKey(
      [...byOwner.keys()],
      async (shard, keys) => {
        const part = keys.flatMap((key) => byOwner.get(key) ?? []);
        await insert(shard as unknown as Kysely<unknown>, part);
        return [];
      },
      { deadlineMs: 0 },
    );
    return rows.length;
  }

  async function register(space: string, entries: readonly { name: string; key: string; id: string }[]): Promise<void> {
    await sql`
      insert into rungs_directory (space, name, key, id, is_confirmed)
      select ${space}, name, key, id, true
      from unnest(${texts(entries, "name")}::text[], ${texts(entries, "key")}::text[], ${texts(entries, "id")}::text[]) as e (name, key, id)
      on conflict do nothing`.execute(home.kysely);
  }

  return {
    async people({ from, to }) {
      const rows = range(from, to).map((index) => network.person(index));
      await register(
        "usernames",
        rows.map(({ username, id }) => ({ name: comparable(username), key: id, id })),
      );
      await register(
        "emails",
        rows.map(({ email, id }) => ({ name: comparable(email), key: id, id })),
      );
      return insertByOwner(
        rows,
        (row) => row.id,
        (shard, part) =>
          sql`
            insert into users (user_id, username, username_key, email, email_key, password_hash, bio, image, created_at, updated_at)
            select user_id, username, username_key, email, email_key, ${passwordHash}, bio, '', created_at, created_at
            from unnest(
              ${texts(part, "id")}::uuid[], ${texts(part, "username")}::text[], ${part.map((row) => comparable(row.username))}::text[],
              ${texts(part, "email")}::text[], ${part.map((row) => comparable(row.email))}::text[], ${texts(part, "bio")}::text[],
              ${part.map((row) => new Date(row.createdAtMs))}::timestamptz[]
            ) as u (user_id, username, username_key, email, email_key, bio, created_at)
            on conflict do nothing`.execute(shard),
      );
    },

    async follows({ from, to }) {
      const rows = range(from, to).flatMap((follower) =>
        network.follows(follower).map((followed) => ({ followed: idOf(followed), follower: idOf(follower) })),
      );
      return insertByOwner(
        rows,
        (row) => row.followed,
        (shard, part) =>
          sql`
            insert into follows (followed_id, follower_id, created_at)
            select followed_id, follower_id, now() from unnest(${texts(part, "followed")}::uuid[], ${texts(part, "follower")}::uuid[]) as f (followed_id, follower_id)
            on conflict do nothing`.execute(shard),
      );
    },

    async articles({ from, to }) {
      const rows = range(from, to).flatMap((author) =>
        network.articles(author).map((article) => ({ ...article, authorId: idOf(author) })),
      );
      await register(
        "slugs",
        rows.map((row) => ({ name: row.slug, key: row.authorId, id: row.id })),
      );
      return insertByOwner(rows, (row) => row.authorId, insertArticles);
    },

    async reads({ from, to }) {
      const marks = range(from, to).flatMap((reader) =>
        network.reads(reader).flatMap((read, at) => {
          const articleId = articleIdsOf(read.author)[read.article];
          if (articleId === undefined) return [];
          const mark = { authorId: idOf(read.author), articleId, readerId: idOf(reader), at: new Date(read.atMs) };
          return [{ ...mark, comment: read.comment, number: markNumber(reader, at) }];
        }),
      );
      await insertByOwner(
        marks.filter((mark) => mark.comment === undefined),
        (mark) => mark.authorId,
        (shard, part) =>
          sql`
          insert into favorites (author_id, article_id, user_id, created_at)
          select * from unnest(${texts(part, "authorId")}::uuid[], ${texts(part, "articleId")}::uuid[], ${texts(part, "readerId")}::uuid[], ${part.map((mark) => mark.at)}::timestamptz[])
          on conflict do nothing`.execute(shard),
      );
      await insertByOwner(
        marks.filter((mark) => mark.comment !== undefined),
        (mark) => mark.authorId,
        (shard, part) =>
          sql`
          insert into comments (author_id, article_id, number, commenter_id, body, created_at, updated_at)
          select a, b, n, c, t, d, d from unnest(${texts(part, "authorId")}::uuid[], ${texts(part, "articleId")}::uuid[], ${part.map((mark) => mark.number)}::int[],
            ${texts(part, "readerId")}::uuid[], ${part.map((mark) => mark.comment ?? "")}::text[], ${part.map((mark) => mark.at)}::timestamptz[]) as x (a, b, n, c, t, d)
          on conflict do nothing`.execute(shard),
      );
      return marks.length;
    },

    async countMarks() {
      for (const shard of shards) {
        await sql`
          update articles a set favorites_count = coalesce(f.marks, 0), last_comment_number = coalesce(c.last, 0)
          from articles b
          left join (select author_id, article_id, count(*)::int as marks from favorites group by 1, 2) f using (author_id, article_id)
          left join (select author_id, article_id, max(number) as last from comments group by 1, 2) c using (author_id, article_id)
          where a.author_id = b.author_id and a.article_id = b.article_id
            and (a.favorites_count, a.last_comment_number) is distinct from (coalesce(f.marks, 0), coalesce(c.last, 0))`.execute(
          shard.kysely,
        );
        await sql`analyze`.execute(shard.kysely);
      }
    },
  };
}

async function insertArticles(
  shard: Kysely<unknown>,
  part: readonly (SeedArticle & { authorId: string })[],
): Promise<void> {
  await sql`
    insert into articles (author_id, article_id, slug, title, description, body, tag_list, created_at, updated_at)
    select a, b, s, t, d, x, string_to_array(g, ' '), c, c from unnest(${texts(part, "authorId")}::uuid[], ${texts(part, "id")}::uuid[], ${texts(part, "slug")}::text[],
      ${texts(part, "title")}::text[], ${texts(part, "description")}::text[], ${texts(part, "body")}::text[], ${part.map((row) => row.tagList.join(" "))}::text[],
      ${part.map((row) => new Date(row.createdAtMs))}::timestamptz[]) as n (a, b, s, t, d, x, g, c)
    on conflict do nothing`.execute(shard);
  const tagged = part.flatMap((row) => row.tagList.map((tag) => ({ authorId: row.authorId, id: row.id, tag })));
  await sql`
    insert into article_tags (author_id, article_id, tag)
    select * from unnest(${texts(tagged, "authorId")}::uuid[], ${texts(tagged, "id")}::uuid[], ${texts(tagged, "tag")}::text[])
    on conflict do nothing`.execute(shard);
}

/** A comment number that is the same on each run: the reader's own share of the numbers, 500 apart. */
function markNumber(reader: number, at: number): number {
  return reader * 500 + at + 1;
}

/** A function of a person number that computes each value once. */
function remembered<V>(compute: (index: number) => V): (index: number) => V {
  const known = new Map<number, V>();
  return (index) => {
    const value = known.get(index) ?? compute(index);
    known.set(index, value);
    return value;
  };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index);
}

function texts<R>(rows: readonly R[], field: keyof R): string[] {
  return rows.map((row) => String(row[field]));
}
