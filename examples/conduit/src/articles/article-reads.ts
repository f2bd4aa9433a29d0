/** Reading articles: by slug through the cache, a viewer's flags on them, and their shape in the API. */
import type { Cache } from "rungs/cache";
import type { Database, Directory, DirectoryReference } from "rungs/database";
import { userTag } from "../accounts/accounts.ts";
import type { Article, ArticlePreview, Seen } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { inPart } from "../partial.ts";
import type { Tables } from "../schema.ts";
import { articleById, viewerFlags } from "./article-statements.ts";

/** How long shared pages are kept. Commits invalidate them, so this only bounds memory held by cold ones. */
export const cacheTimes = { ttlMs: 30_000, staleMs: 30_000 };
/** Cache tag of every page that shows the article. */
export const articleTag = (articleId: string) => `article:${articleId}`;
/** Cache tag of every page whose membership or order a new, changed or deleted article may alter. */
export const listsTag = "articles";

/** Cache tag of every page that shows the article's comments. */
export const commentsTag = (articleId: string) => `comments:${articleId}`;

/** Columns of an article's preview, as every article query selects them. */
export interface PreviewRow {
  author_id: string;
  article_id: string;
  slug: string;
  title: string;
  description: string;
  tag_list: string[];
  favorites_count: number;
  created_at: Date;
  updated_at: Date;
  username: string;
  bio: string;
  image: string;
}

export interface ArticleRow extends PreviewRow {
  body: string;
}

/** What the viewer thinks of an article and its author. */
export interface Flags {
  readonly favorited: boolean;
  readonly following: boolean;
}

export const anonymousFlags: Flags = { favorited: false, following: false };

/** How other parts of Conduit find an article: `use` reads it on its shard. Raises a 404 problem when it is not there. */
export interface ArticleLookup {
  locate<R>(slug: string, use: (reference: DirectoryReference) => Promise<R | undefined>): Promise<R>;
}

/** Reading articles: by slug through the cache, and a viewer's flags on them. */
export function articleReads(options: {
  readonly db: Database<Tables>;
  readonly cache: Cache;
  readonly slugs: Directory;
}) {
  const { db, cache, slugs } = options;

  async function locate<R>(slug: string, use: (reference: DirectoryReference) => Promise<R | undefined>): Promise<R> {
    const found = await slugs.follow(slug, use);
    if (found === undefined) throw new ProblemError(404, { article: ["not found"] });
    return found;
  }

  /** The part of an article that all readers share. */
  async function read(slug: string): Promise<ArticleRow> {
    const row = await cache.read(`article:${slug}`, { ...cacheTimes, tags: [listsTag] }, (load) =>
      slugs.follow(slug, async ({ key: authorId, id: articleId }) => {
        load.tag(articleTag(articleId));
        load.tag(userTag(authorId));
        const [found] = await db.for(authorId).run(articleById, { authorId, articleId });
        return found;
      }),
    );
    if (row === undefined) throw new ProblemError(404, { article: ["not found"] });
    return row;
  }

  async function flagsOf(rows: readonly PreviewRow[], viewerId: string | undefined): Promise<Map<string, Flags>> {
    const flags = new Map<string, Flags>();
    if (viewerId === undefined || rows.length === 0) return flags;
    const articleIds = rows.map((row) => row.article_id);
    const { rows: found } = await db.byKey(
      rows.map((row) => row.author_id),
      (shard, authorIds) => shard.run(viewerFlags, { authorIds, articleIds, viewerId }),
      inPart,
    );
    for (const row of found)
      flags.set(row.article_id, { favorited: row.favorited === true, following: row.following === true });
    return flags;
  }

  return { locate, read, flagsOf };
}

/** Tells which tags a row stands for. */
export function tellSeen(seen: Seen | undefined, rows: readonly PreviewRow[]): void {
  if (seen === undefined) return;
  seen(listsTag);
  for (const row of rows) {
    seen(articleTag(row.article_id));
    seen(userTag(row.author_id));
  }
}

/** A preview in the API's shape. */
export function previewOf(row: PreviewRow, flags: Flags): ArticlePreview {
  return {
    slug: row.slug,
    title: row.title,
    description: row.description,
    tagList: row.tag_list,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    favorited: flags.favorited,
    favoritesCount: row.favorites_count,
    author: { username: row.username, bio: row.bio, image: row.image, following: flags.following },
  };
}

/** An article in the API's shape. */
export function articleOf(row: ArticleRow, flags: Flags): Article {
  return { ...previewOf(row, flags), body: row.body };
}
