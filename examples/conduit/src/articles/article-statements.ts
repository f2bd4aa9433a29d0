/** The queries of articles: each written once, compiled once. `null` as viewer is an anonymous visitor. */
import { type ExpressionBuilder, type Kysely, sql } from "kysely";
import { statements } from "rungs/database";
import type { Tables } from "../schema.ts";

const define = statements<Tables>();

const previewColumns = [
  "a.author_id",
  "a.article_id",
  "a.slug",
  "a.title",
  "a.description",
  "a.tag_list",
  "a.favorites_count",
  "a.created_at",
  "a.updated_at",
  "u.username",
  "u.bio",
  "u.image",
] as const;

/** Articles with their authors, from the author's shard. */
function articlesWithAuthors(q: Kysely<Tables>) {
  return q.selectFrom("articles as a").innerJoin("users as u", "u.user_id", "a.author_id");
}

type ArticleScope = ExpressionBuilder<Tables & { a: Tables["articles"]; u: Tables["users"] }, "a" | "u">;

/** Whether the viewer likes the article. */
function favorited(eb: ArticleScope, viewerId: string | null) {
  return eb.exists(
    eb
      .selectFrom("favorites as fa")
      .select(sql`1`.as("one"))
      .whereRef("fa.author_id", "=", "a.author_id")
      .whereRef("fa.article_id", "=", "a.article_id")
      .where("fa.user_id", "=", viewerId),
  );
}

/** Whether the viewer follows the author. */
function following(eb: ArticleScope, viewerId: string | null) {
  return eb.exists(
    eb
      .selectFrom("follows as fo")
      .select(sql`1`.as("one"))
      .whereRef("fo.followed_id", "=", "a.author_id")
      .where("fo.follower_id", "=", viewerId),
  );
}

/** An article and its author without a viewer's flags: what all readers share. */
export const articleById = define<{ authorId: string; articleId: string }>()("article_by_id", (q, p) =>
  articlesWithAuthors(q)
    .select([...previewColumns, "a.body"])
    .where("a.author_id", "=", p.authorId)
    .where("a.article_id", "=", p.articleId),
);

/** Whether an article is there: what an abandoned slug is judged by. */
export const articleExists = define<{ authorId: string; articleId: string }>()("article_exists", (q, p) =>
  q
    .selectFrom("articles")
    .select("article_id")
    .where("author_id", "=", p.authorId)
    .where("article_id", "=", p.articleId),
);

/** The viewer's flags on several articles of one shard. */
export const viewerFlags = define<{ authorIds: readonly string[]; articleIds: readonly string[]; viewerId: string }>()(
  "article_viewer_flags",
  (q, p) =>
    q
      .selectFrom("articles as a")
      .innerJoin("users as u", "u.user_id", "a.author_id")
      .select((eb) => [
        "a.article_id",
        favorited(eb as unknown as ArticleScope, p.viewerId).as("favorited"),
        following(eb as unknown as ArticleScope, p.viewerId).as("following"),
      ])
      .where("a.author_id", "=", sql<string>`any(${p.authorIds}::uuid[])`)
      .where("a.article_id", "=", sql<string>`any(${p.articleIds}::uuid[])`),
);

/** Whether the article carries the tag. */
function tagged(eb: ArticleScope, tag: string | null) {
  return eb.exists(
    eb
      .selectFrom("article_tags as t")
      .select(sql`1`.as("one"))
      .whereRef("t.author_id", "=", "a.author_id")
      .whereRef("t.article_id", "=", "a.article_id")
      .where("t.tag", "=", tag),
  );
}

export type ListParameters = {
  readonly limit: number;
  readonly offset: number;
  readonly tag: string | null;
  readonly authorId: string | null;
  readonly favoritedBy: string | null;
};

/** Which filters a list has. One statement each, so that PostgreSQL plans each on its own. */
export type ListShape = { readonly tag: boolean; readonly author: boolean; readonly favorited: boolean };

/** A page of one shard's articles, newest first, and how many match there. */
function defineList(shape: ListShape) {
  const name = ["article", shape.tag && "tagged", shape.author && "by", shape.favorited && "liked"]
    .filter(Boolean)
    .join("_");
  const matches = (eb: ArticleScope, p: ListParameters) =>
    eb.and([
      ...(shape.author ? [eb("a.author_id", "=", p.authorId)] : []),
      ...(shape.tag ? [tagged(eb, p.tag)] : []),
      ...(shape.favorited ? [favorited(eb, p.favoritedBy)] : []),
    ]);
  return {
    page: define<ListParameters>()(`${name}_page`, (q, p) =>
      articlesWithAuthors(q)
        .select(previewColumns)
        .where((eb) => matches(eb as unknown as ArticleScope, p))
        .orderBy("a.created_at", "desc")
        .orderBy("a.article_id", "desc")
        .limit(p.limit)
        .offset(p.offset),
    ),
    count: define<ListParameters>()(`${name}_count`, (q, p) =>
      q
        .selectFrom("articles as a")
        .select((eb) => eb.fn.countAll<number>().as("articles"))
        .where((eb) => matches(eb as unknown as ArticleScope, p)),
    ),
  };
}

const lists = new Map<string, ReturnType<typeof defineList>>();

/** The two statements of a list with these filters. */
export function listStatements(shape: ListShape): ReturnType<typeof defineList> {
  const key = JSON.stringify([shape.tag, shape.author, shape.favorited]);
  let list = lists.get(key);
  if (list === undefined) {
    list = defineList(shape);
    lists.set(key, list);
  }
  return list;
}

/** One shard's newest articles by people the viewer follows. */
export const feedPage = define<{ viewerId: string; limit: number; offset: number }>()("article_feed_page", (q, p) =>
  q
    .selectFrom("follows as f")
    .innerJoin("articles as a", "a.author_id", "f.followed_id")
    .innerJoin("users as u", "u.user_id", "a.author_id")
    .select(previewColumns)
    .where("f.follower_id", "=", p.viewerId)
    .orderBy("a.created_at", "desc")
    .orderBy("a.article_id", "desc")
    .limit(p.limit)
    .offset(p.offset),
);

/** How many articles of one shard are by people the viewer follows. */
export const feedCount = define<{ viewerId: string }>()("article_feed_count", (q, p) =>
  q
    .selectFrom("follows as f")
    .innerJoin("articles as a", "a.author_id", "f.followed_id")
    .select((eb) => eb.fn.countAll<number>().as("articles"))
    .where("f.follower_id", "=", p.viewerId),
);

/** One shard's most used tags. */
export const topTags = define<{ limit: number }>()("article_top_tags", (q, p) =>
  q
    .selectFrom("article_tags")
    .select((eb) => ["tag", eb.fn.countAll<number>().as("uses")])
    .groupBy("tag")
    .orderBy("uses", "desc")
    .orderBy("tag")
    .limit(p.limit),
);

/**
 * Marks an article as a favourite and gives it back. `new_count` is the count after the change, null when nothing changed:
 * the article's own columns are read as they were before the statement, since PostgreSQL shows a statement's writes only
 * to the next one.
 */
export const addFavorite = define<{ authorId: string; articleId: string; userId: string; now: Date }>()(
  "favorite_add",
  (q, p) =>
    q
      .with("changed", (w) =>
        w
          .insertInto("favorites")
          .columns(["author_id", "article_id", "user_id", "created_at"])
          .expression(
            w
              .selectFrom("articles")
              .select([
                "author_id",
                "article_id",
                sql<string>`${p.userId}::uuid`.as("user_id"),
                sql<Date>`${p.now}::timestamptz`.as("created_at"),
              ])
              .where("author_id", "=", p.authorId)
              .where("article_id", "=", p.articleId),
          )
          .onConflict((conflict) => conflict.doNothing())
          .returning("article_id"),
      )
      .with("counted", (w) =>
        w
          .updateTable("articles")
          .set((eb) => ({ favorites_count: eb("favorites_count", "+", 1) }))
          .where("author_id", "=", p.authorId)
          .where("article_id", "=", p.articleId)
          .where((eb) => eb.exists(eb.selectFrom("changed").select("article_id")))
          .returning("favorites_count"),
      )
      .selectFrom("articles as a")
      .innerJoin("users as u", "u.user_id", "a.author_id")
      .select([...previewColumns, "a.body"])
      .select((eb) => [
        following(eb as unknown as ArticleScope, p.userId).as("following"),
        eb.selectFrom("counted").select("counted.favorites_count").as("new_count"),
      ])
      .where("a.author_id", "=", p.authorId)
      .where("a.article_id", "=", p.articleId),
);

/** Takes a favourite back; see {@link addFavorite}. */
export const removeFavorite = define<{ authorId: string; articleId: string; userId: string }>()(
  "favorite_remove",
  (q, p) =>
    q
      .with("changed", (w) =>
        w
          .deleteFrom("favorites")
          .where("author_id", "=", p.authorId)
          .where("article_id", "=", p.articleId)
          .where("user_id", "=", p.userId)
          .returning("article_id"),
      )
      .with("counted", (w) =>
        w
          .updateTable("articles")
          .set((eb) => ({ favorites_count: eb("favorites_count", "-", 1) }))
          .where("author_id", "=", p.authorId)
          .where("article_id", "=", p.articleId)
          .where((eb) => eb.exists(eb.selectFrom("changed").select("article_id")))
          .returning("favorites_count"),
      )
      .selectFrom("articles as a")
      .innerJoin("users as u", "u.user_id", "a.author_id")
      .select([...previewColumns, "a.body"])
      .select((eb) => [
        following(eb as unknown as ArticleScope, p.userId).as("following"),
        eb.selectFrom("counted").select("counted.favorites_count").as("new_count"),
      ])
      .where("a.author_id", "=", p.authorId)
      .where("a.article_id", "=", p.articleId),
);
