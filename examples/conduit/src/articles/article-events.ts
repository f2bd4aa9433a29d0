/** What happens to articles that others may want to know. */
import { defineEvent } from "rungs/queue";
import { z } from "zod";

const article = { authorId: z.uuid(), articleId: z.uuid() };

/** Somebody made an article a favourite that it was not before. */
export const articleFavorited = defineEvent("article.favorited", z.object({ ...article, userId: z.uuid() }));

/** Somebody wrote a comment; `number` is its id within the article. */
export const articleCommented = defineEvent(
  "article.commented",
  z.object({ ...article, commenterId: z.uuid(), number: z.int() }),
);
