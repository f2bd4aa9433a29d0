/** Comments on articles. They live with the article; their writers may live on any shard. */
import type { Clock } from "rungs";
import type { Database, DirectoryReference } from "rungs/database";
import { publication } from "rungs/queue";
import { profilesByIds } from "../accounts/account-statements.ts";
import { type ProfileRow, profileOf, userTag } from "../accounts/accounts.ts";
import type { Comment, Comments, Seen } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { inputs, parse } from "../domain/validation.ts";
import { inPart } from "../partial.ts";
import type { Tables } from "../schema.ts";
import { articleCommented } from "./article-events.ts";
import { type ArticleLookup, articleTag, commentsTag, listsTag } from "./article-reads.ts";
import { articleExists } from "./article-statements.ts";
import { addComment, commenterOf, commentsOfArticle, removeComment } from "./comment-statements.ts";

/** Comments shown of one article; the newest are kept when there are more. */
const commentsMax = 1_000;

export function createComments(options: {
  readonly db: Database<Tables>;
  readonly articles: ArticleLookup;
  readonly clock: Clock;
}): Comments {
  const { db, articles, clock } = options;

  /** Writers' profiles by user id, as the viewer sees them. */
  async function profilesOf(
    userIds: readonly string[],
    viewerId: string | undefined,
    seen: Seen | undefined,
  ): Promise<Map<string, ProfileRow>> {
    const { rows, missing } = await db.byKey(
      userIds,
      (shard, ids) => shard.run(profilesByIds, { userIds: ids, viewerId: viewerId ?? null }),
      inPart,
    );
    if (missing.length > 0) seen?.incomplete();
    return new Map(rows.map((row) => [row.user_id, row]));
  }

  /** Finds the article, making sure that it is there. */
  function find(slug: string): Promise<DirectoryReference> {
    return articles.locate(slug, async (reference) => {
      const found = await db
        .for(reference.key)
        .run(articleExists, { authorId: reference.key, articleId: reference.id });
      return found.length > 0 ? reference : undefined;
    });
  }

  return {
    async list(slug, viewerId, seen): Promise<readonly Comment[]> {
      const { key: authorId, id: articleId } = await find(slug);
      const rows = await db.for(authorId).run(commentsOfArticle, { authorId, articleId, limit: commentsMax });
      const writers = await profilesOf(
        rows.map((row) => row.commenter_id),
        viewerId,
        seen,
      );
      if (seen !== undefined) {
        // An article that is deleted takes its comments along, and one of that name may come again.
        for (const tag of [listsTag, articleTag(articleId), commentsTag(articleId)]) seen(tag);
        for (const row of rows) seen(userTag(row.commenter_id));
      }
      return rows.flatMap((row) => {
        const writer = writers.get(row.commenter_id);
        return writer === undefined ? [] : [commentOf(row, writer)];
      });
    },

    async add(viewerId, slug, input): Promise<Comment> {
      const { body } = parse(inputs.newComment, input);
      const row = await articles.locate(slug, async ({ key: authorId, id: articleId }) => {
        const now = new Date(clock.now());
        const comment = { authorId, articleId, commenterId: viewerId };
        const [added] = await db.for(authorId).run(
          addComment,
          { ...comment, body, now },
          {
            invalidate: [commentsTag(articleId)],
            publish: ([row]) =>
              row === undefined
                ? []
                : [publication(articleCommented, { ...comment, number: row.number }, { key: authorId })],
          },
        );
        return added;
      });
      const [writer] = await db.for(viewerId).run(profilesByIds, { userIds: [viewerId], viewerId });
      if (writer === undefined) throw new ProblemError(401, { token: ["is invalid"] });
      return commentOf({ ...row, body }, writer);
    },

    async remove(viewerId, slug, commentId): Promise<void> {
      const { key: authorId, id: articleId } = await find(slug);
      const comment = { authorId, articleId, number: commentId };
      const [found] = await db.for(authorId).run(commenterOf, comment);
      if (found === undefined) throw new ProblemError(404, { comment: ["not found"] });
      if (found.commenter_id !== viewerId) throw new ProblemError(403, { comment: ["forbidden"] });
      await db
        .for(authorId)
        .run(removeComment, { ...comment, commenterId: viewerId }, { invalidate: [commentsTag(articleId)] });
    },
  };
}

function commentOf(
  row: { number: number; body: string; created_at: Date; updated_at: Date },
  writer: ProfileRow,
): Comment {
  return {
    id: row.number,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    body: row.body,
    author: profileOf(writer),
  };
}
