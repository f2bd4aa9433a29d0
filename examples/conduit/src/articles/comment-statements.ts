/** The queries of comments: they live with the article, on its author's shard. */
import { sql } from "kysely";
import { statements } from "rungs/database";
import type { Tables } from "../schema.ts";

const define = statements<Tables>();

/** Adds a comment under the article's next number. No row comes back when the article is gone. */
export const addComment = define<{
  authorId: string;
  articleId: string;
  commenterId: string;
  body: string;
  now: Date;
}>()("comment_add", (q, p) =>
  q
    .with("numbered", (w) =>
      w
        .updateTable("articles")
        .set((eb) => ({ last_comment_number: eb("last_comment_number", "+", 1) }))
        .where("author_id", "=", p.authorId)
        .where("article_id", "=", p.articleId)
        .returning(["author_id", "article_id", "last_comment_number"]),
    )
    .insertInto("comments")
    .columns(["author_id", "article_id", "number", "commenter_id", "body", "created_at", "updated_at"])
    .expression((eb) =>
      eb
        .selectFrom("numbered")
        .select([
          "author_id",
          "article_id",
          "last_comment_number",
          sql<string>`${p.commenterId}::uuid`.as("commenter_id"),
          sql<string>`${p.body}::text`.as("body"),
          sql<Date>`${p.now}::timestamptz`.as("created_at"),
          sql<Date>`${p.now}::timestamptz`.as("updated_at"),
        ]),
    )
    .returning(["number", "created_at", "updated_at"]),
);

/** The newest comments of an article. */
export const commentsOfArticle = define<{ authorId: string; articleId: string; limit: number }>()(
  "comments_of_article",
  (q, p) =>
    q
      .selectFrom("comments")
      .select(["number", "commenter_id", "body", "created_at", "updated_at"])
      .where("author_id", "=", p.authorId)
      .where("article_id", "=", p.articleId)
      .orderBy("number", "desc")
      .limit(p.limit),
);

/** Who wrote a comment. */
export const commenterOf = define<{ authorId: string; articleId: string; number: number }>()("commenter_of", (q, p) =>
  q
    .selectFrom("comments")
    .select("commenter_id")
    .where("author_id", "=", p.authorId)
    .where("article_id", "=", p.articleId)
    .where("number", "=", p.number),
);

/** Deletes a comment of this commenter. */
export const removeComment = define<{ authorId: string; articleId: string; number: number; commenterId: string }>()(
  "comment_remove",
  (q, p) =>
    q
      .deleteFrom("comments")
      .where("author_id", "=", p.authorId)
      .where("article_id", "=", p.articleId)
      .where("number", "=", p.number)
      .where("commenter_id", "=", p.commenterId)
      .returning("number"),
);
