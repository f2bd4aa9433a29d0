/** Articles, favourites and tags: the operations behind lists, feed, article pages and the editor. */
import { type Clock, ConflictError, type Random, uuidV7 } from "rungs";
import type { Cache } from "rungs/cache";
import type { Database, Directory, DirectoryReference, ShardTransaction } from "rungs/database";
import { publication } from "rungs/queue";
import { userTag } from "../accounts/accounts.ts";
import type {
  Article,
  ArticleChange,
  ArticleFilter,
  ArticlePage,
  Articles,
  NewArticle,
  PageRequest,
  Seen,
} from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { comparable, inputs, parse } from "../domain/validation.ts";
import { type AskAll, inPart, readList } from "../partial.ts";
import type { Tables } from "../schema.ts";
import { articleFavorited } from "./article-events.ts";
import {
  type ArticleLookup,
  type ArticleRow,
  anonymousFlags,
  articleOf,
  articleReads,
  articleTag,
  cacheTimes,
  listsTag,
  type PreviewRow,
  previewOf,
  tellSeen,
} from "./article-reads.ts";
import {
  addFavorite,
  articleById,
  articleExists,
  feedCount,
  feedPage,
  listStatements,
  removeFavorite,
  topTags,
} from "./article-statements.ts";
import { slugBase, slugCandidates } from "./slug.ts";

export interface ArticlesOptions {
  readonly db: Database<Tables>;
  readonly cache: Cache;
  readonly slugs: Directory;
  readonly usernames: Directory;
  readonly clock: Clock;
  readonly random: Random;
}

const tagsMax = 100;

/** Cache tag of lists of what one user likes. */
const favoritesTag = (userId: string) => `favorites:${userId}`;

export function createArticles(options: ArticlesOptions): Articles & ArticleLookup {
  const { db, cache, slugs, usernames, clock, random } = options;
  const { locate, read, flagsOf } = articleReads(options);

  /** Takes the best free slug for the title. */
  async function reserveSlug(title: string, reference: DirectoryReference): Promise<string> {
    const isAlive = async (holder: DirectoryReference) =>
      (await db.for(holder.key).run(articleExists, { authorId: holder.key, articleId: holder.id })).length > 0;
    for (const slug of slugCandidates(title, random)) {
      try {
        await slugs.reserve(slug, reference, isAlive);
        return slug;
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error;
      }
    }
    throw new ProblemError(422, { title: ["has already been taken"] });
  }

  async function listPage(filter: ArticleFilter, seen?: Seen): Promise<{ rows: readonly PreviewRow[]; count: number }> {
    const { limit, offset } = parse(inputs.page, { limit: filter.limit, offset: filter.offset });
    const author = await userIdOf(filter.author);
    const favoritedBy = await userIdOf(filter.favorited);
    if (typeof author === "string") seen?.(userTag(author));
    if (typeof favoritedBy === "string") seen?.(favoritesTag(favoritedBy));
    if (author === null || favoritedBy === null) return { rows: [], count: 0 };
    const shape = { tag: filter.tag !== undefined, author: author !== undefined, favorited: favoritedBy !== undefined };
    const parameters = { tag: filter.tag ?? null, authorId: author ?? null, favoritedBy: favoritedBy ?? null };
    const key = `list:${JSON.stringify([parameters, limit, offset])}`;
    return readList({
      ...{ db, cache, key, seen },
      read: { ...cacheTimes, tags: [listsTag, ...(favoritedBy === undefined ? [] : [favoritesTag(favoritedBy)])] },
      async load(everywhere, load) {
        const { page, count } = listStatements(shape);
        const [rows, counts] = await Promise.all([
          everywhere<PreviewRow>((shard, window) => shard.run(page, { ...parameters, ...window }), {
            ...newestFirst,
            limit,
            offset,
          }),
          everywhere((shard) => shard.run(count, { ...parameters, limit: 0, offset: 0 })),
        ]);
        for (const row of rows) {
          load.tag(articleTag(row.article_id));
          load.tag(userTag(row.author_id));
        }
        return { rows, count: total(counts) };
      },
    });
  }

  /** The id behind a username; undefined when none was asked for, null when nobody bears it. */
  async function userIdOf(username: string | undefined): Promise<string | null | undefined> {
    if (username === undefined) return undefined;
    const usernameKey = comparable(username);
    const userId = await usernames.follow(usernameKey, async ({ key }) => {
      const row = await db
        .for(key)
        .selectFrom("users")
        .select("user_id")
        .where("user_id", "=", key)
        .where("username_key", "=", usernameKey)
        .executeTakeFirst();
      return row?.user_id;
    });
    return userId ?? null;
  }

  async function own(viewerId: string, slug: string): Promise<ArticleRow> {
    const row = await read(slug);
    if (row.author_id !== viewerId) throw new ProblemError(403, { article: ["forbidden"] });
    return row;
  }

  async function withFlags(
    rows: readonly PreviewRow[],
    count: number,
    viewerId: string | undefined,
  ): Promise<ArticlePage> {
    const flags = await flagsOf(rows, viewerId);
    return {
      articles: rows.map((row) => previewOf(row, flags.get(row.article_id) ?? anonymousFlags)),
      articlesCount: count,
    };
  }

  return {
    locate,

    async list(filter, viewerId, seen): Promise<ArticlePage> {
      const { rows, count } = await listPage(filter, seen);
      tellSeen(seen, rows);
      return withFlags(rows, count, viewerId);
    },

    async feed(viewerId, page: PageRequest, seen): Promise<ArticlePage> {
      const { limit, offset } = parse(inputs.page, { limit: page.limit, offset: page.offset });
      const [{ rows, missing }, { rows: counts }] = await Promise.all([
        db.everywhere<PreviewRow>((shard, window) => shard.run(feedPage, { viewerId, ...window }), {
          ...newestFirst,
          ...{ ...inPart, limit, offset },
        }),
        db.everywhere((shard) => shard.run(feedCount, { viewerId }), inPart),
      ]);
      if (missing.length > 0) seen?.incomplete();
      return withFlags(rows, total(counts), viewerId);
    },

    async bySlug(slug, viewerId, seen): Promise<Article> {
      const row = await read(slug);
      tellSeen(seen, [row]);
      const flags = await flagsOf([row], viewerId);
      return articleOf(row, flags.get(row.article_id) ?? anonymousFlags);
    },

    async create(authorId, input: NewArticle): Promise<Article> {
      const article = parse(inputs.newArticle, input);
      const articleId = uuidV7(clock, random);
      const reference = { key: authorId, id: articleId };
      const slug = await reserveSlug(article.title, reference);
      const now = new Date(clock.now());
      await db.for(authorId).transaction(async (tx) => {
        await tx
          .insertInto("articles")
          .values({
            author_id: authorId,
            article_id: articleId,
            slug,
            title: article.title,
            description: article.description,
            body: article.body,
            tag_list: article.tagList,
            favorites_count: 0,
            last_comment_number: 0,
            created_at: now,
            updated_at: now,
          })
          .execute();
        await writeTags(tx, reference, article.tagList);
        tx.invalidate(listsTag);
      });
      await confirmSlug(slug, reference, () => deleteRow(reference));
      return articleOf(await freshRow(reference), anonymousFlags);
    },

    async update(viewerId, slug, input: ArticleChange): Promise<Article> {
      const change = parse(inputs.articleChange, input);
      const before = await own(viewerId, slug);
      const reference = { key: before.author_id, id: before.article_id };
      const isRenamed = change.title !== undefined && slugBase(change.title) !== slugBase(before.title);
      const newSlug = isRenamed ? await reserveSlug(change.title as string, reference) : undefined;
      await db.for(viewerId).transaction(async (tx) => {
        const changed = await tx
          .updateTable("articles")
          .set({
            ...(change.title === undefined ? {} : { title: change.title }),
            ...(change.description === undefined ? {} : { description: change.description }),
            ...(change.body === undefined ? {} : { body: change.body }),
            ...(change.tagList === undefined ? {} : { tag_list: change.tagList }),
            ...(newSlug === undefined ? {} : { slug: newSlug }),
            updated_at: new Date(clock.now()),
          })
          .where("author_id", "=", viewerId)
          .where("article_id", "=", before.article_id)
          .returning("article_id")
          .executeTakeFirst();
        if (changed === undefined) throw new ProblemError(404, { article: ["not found"] });
        if (change.tagList !== undefined) {
          await tx
            .deleteFrom("article_tags")
            .where("author_id", "=", viewerId)
            .where("article_id", "=", before.article_id)
            .execute();
          await writeTags(tx, reference, change.tagList);
          tx.invalidate(listsTag);
        }
        tx.invalidate(articleTag(before.article_id));
      });
      if (newSlug !== undefined) await confirmSlug(newSlug, reference, () => setSlug(reference, before.slug));
      const row = await freshRow(reference);
      const flags = await flagsOf([row], viewerId);
      return articleOf(row, flags.get(row.article_id) ?? anonymousFlags);
    },

    async remove(viewerId, slug): Promise<void> {
      const row = await own(viewerId, slug);
      await deleteRow({ key: viewerId, id: row.article_id });
      await slugs.releaseAll({ key: viewerId, id: row.article_id });
    },

    favorite: (viewerId, slug) =>
      changeFavorite(viewerId, slug, true, (reference, effects) => {
        const favorite = { authorId: reference.key, articleId: reference.id, userId: viewerId };
        const told = publication(articleFavorited, favorite, { key: reference.key });
        return db
          .for(reference.key)
          .run(
            addFavorite,
            { ...favorite, now: new Date(clock.now()) },
            { ...effects, publish: [told], publishIf: "new_count" },
          );
      }),

    unfavorite: (viewerId, slug) =>
      changeFavorite(viewerId, slug, false, (reference, effects) =>
        db
          .for(reference.key)
          .run(removeFavorite, { authorId: reference.key, articleId: reference.id, userId: viewerId }, effects),
      ),

    tags(seen) {
      seen?.(listsTag);
      const load = async (everywhere: AskAll) => {
        const parts = await everywhere((shard) => shard.run(topTags, { limit: 1_000 }));
        const uses = new Map<string, number>();
        for (const part of parts) uses.set(part.tag, (uses.get(part.tag) ?? 0) + part.uses);
        return [...uses]
          .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
          .slice(0, tagsMax)
          .map(([tag]) => tag);
      };
      return readList({ db, cache, key: "tags", read: { ...cacheTimes, tags: [listsTag] }, seen, load });
    },
  };

  async function changeFavorite(
    viewerId: string,
    slug: string,
    isFavorite: boolean,
    change: (
      reference: DirectoryReference,
      effects: { readonly invalidate: readonly string[] },
    ) => Promise<(ArticleRow & { following: unknown; new_count: number | null })[]>,
  ): Promise<Article> {
    const row = await locate(slug, async (reference) => {
      const [changed] = await change(reference, { invalidate: [articleTag(reference.id), favoritesTag(viewerId)] });
      return changed;
    });
    const favorites_count = row.new_count ?? row.favorites_count;
    return articleOf({ ...row, favorites_count }, { favorited: isFavorite, following: row.following === true });
  }

  /** Makes the slug final; when its reservation ran out while this request slept, takes the row back and says so. */
  async function confirmSlug(
    slug: string,
    reference: DirectoryReference,
    takeBack: () => Promise<void>,
  ): Promise<void> {
    try {
      await slugs.confirm(slug, reference);
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      await takeBack();
      throw new ProblemError(409, { title: ["was taken meanwhile; please try again"] });
    }
  }

  async function deleteRow({ key: authorId, id: articleId }: DirectoryReference): Promise<void> {
    await db.for(authorId).transaction(async (tx) => {
      await tx.deleteFrom("articles").where("author_id", "=", authorId).where("article_id", "=", articleId).execute();
      tx.invalidate(listsTag, articleTag(articleId));
    });
  }

  async function setSlug({ key: authorId, id: articleId }: DirectoryReference, slug: string): Promise<void> {
    await db.for(authorId).transaction(async (tx) => {
      await tx
        .updateTable("articles")
        .set({ slug })
        .where("author_id", "=", authorId)
        .where("article_id", "=", articleId)
        .execute();
      tx.invalidate(articleTag(articleId));
    });
  }

  async function freshRow(reference: DirectoryReference): Promise<ArticleRow> {
    const [row] = await db.for(reference.key).run(articleById, { authorId: reference.key, articleId: reference.id });
    if (row === undefined) throw new ProblemError(404, { article: ["not found"] });
    return row;
  }
}

const newestFirst = {
  orderBy: [
    ["created_at", "desc"],
    ["article_id", "desc"],
  ],
} as const;

async function writeTags(
  tx: ShardTransaction<Tables>,
  reference: DirectoryReference,
  tags: readonly string[],
): Promise<void> {
  if (tags.length === 0) return;
  await tx
    .insertInto("article_tags")
    .values(tags.map((tag) => ({ author_id: reference.key, article_id: reference.id, tag })))
    .execute();
}

function total(counts: readonly { readonly articles: number }[]): number {
  return counts.reduce((sum, count) => sum + count.articles, 0);
}
