/**
 * What Conduit is about, as the handlers see it: shapes of the RealWorld API plus the operations behind them.
 * The JSON API (`../api`) and the HTML pages (`../ui`) are two faces of these same operations.
 *
 * Every operation validates its input and raises {@link ProblemError} for what the user got wrong.
 */

/** A signed-in account, as its owner sees it. `id` is a UUIDv7 and the shard key of everything the user owns. */
export interface Account {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  /** Empty when the user wrote none. */
  readonly bio: string;
  /** Absolute http(s) address of an avatar; empty when the user has none. */
  readonly image: string;
}

/** A user as others see them; `following` is about the viewer, false for an anonymous one. */
export interface Profile {
  readonly username: string;
  readonly bio: string;
  readonly image: string;
  readonly following: boolean;
}

/** An article in a list: everything but its body. Times are ISO 8601 in UTC with milliseconds. */
export interface ArticlePreview {
  readonly slug: string;
  readonly title: string;
  readonly description: string;
  readonly tagList: readonly string[];
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly favorited: boolean;
  readonly favoritesCount: number;
  readonly author: Profile;
}

/** A whole article; `body` is Markdown as its author typed it. */
export interface Article extends ArticlePreview {
  readonly body: string;
}

/** A comment. `id` counts up from 1 within its article. `body` is plain text or Markdown as typed. */
export interface Comment {
  readonly id: number;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly body: string;
  readonly author: Profile;
}

/** One page of articles and how many there are in all. */
export interface ArticlePage {
  readonly articles: readonly ArticlePreview[];
  readonly articlesCount: number;
}

/** Which page: `limit` 1 to 100, default 20; `offset` 0 to 10,000, default 0. */
export interface PageRequest {
  readonly limit?: number | undefined;
  readonly offset?: number | undefined;
}

/** At most one of the filters is usual; all given ones must hold. Usernames that do not exist give an empty page. */
export interface ArticleFilter extends PageRequest {
  readonly tag?: string | undefined;
  readonly author?: string | undefined;
  readonly favorited?: string | undefined;
}

export interface NewAccount {
  readonly username: string;
  readonly email: string;
  readonly password: string;
}

/** Fields left out stay as they are. An empty `bio` or `image` clears it. */
export interface AccountChange {
  readonly username?: string | undefined;
  readonly email?: string | undefined;
  readonly password?: string | undefined;
  readonly bio?: string | null | undefined;
  readonly image?: string | null | undefined;
}

export interface NewArticle {
  readonly title: string;
  readonly description: string;
  readonly body: string;
  readonly tagList?: readonly string[] | undefined;
}

/** Fields left out stay as they are; a new title gives a new slug, and the old slug keeps leading to the article. */
export interface ArticleChange {
  readonly title?: string | undefined;
  readonly description?: string | undefined;
  readonly body?: string | undefined;
  readonly tagList?: readonly string[] | undefined;
}

/** Operations on accounts and profiles. `viewerId` is the signed-in user's id, undefined for an anonymous visitor. */
export interface Accounts {
  register(input: NewAccount): Promise<Account>;
  /** Raises a 401 problem when the pair is wrong; takes as long for an unknown address as for a wrong password. */
  authenticate(input: { readonly email: string; readonly password: string }): Promise<Account>;
  byId(id: string): Promise<Account | undefined>;
  update(id: string, change: AccountChange): Promise<Account>;
  profile(username: string, viewerId?: string): Promise<Profile>;
  follow(viewerId: string, username: string): Promise<Profile>;
  unfollow(viewerId: string, username: string): Promise<Profile>;
}

/** Operations on articles, favourites and tags. */
export interface Articles {
  list(filter: ArticleFilter, viewerId?: string): Promise<ArticlePage>;
  /** Newest articles of the people the viewer follows. */
  feed(viewerId: string, page: PageRequest): Promise<ArticlePage>;
  bySlug(slug: string, viewerId?: string): Promise<Article>;
  create(authorId: string, input: NewArticle): Promise<Article>;
  update(viewerId: string, slug: string, change: ArticleChange): Promise<Article>;
  remove(viewerId: string, slug: string): Promise<void>;
  favorite(viewerId: string, slug: string): Promise<Article>;
  unfavorite(viewerId: string, slug: string): Promise<Article>;
  /** The most used tags, most used first, at most 100. */
  tags(): Promise<readonly string[]>;
}

/** Operations on the comments of an article, newest first. */
export interface Comments {
  list(slug: string, viewerId?: string): Promise<readonly Comment[]>;
  add(viewerId: string, slug: string, input: { readonly body: string }): Promise<Comment>;
  remove(viewerId: string, slug: string, commentId: number): Promise<void>;
}

/** Everything the two faces need. */
export interface Conduit {
  readonly accounts: Accounts;
  readonly articles: Articles;
  readonly comments: Comments;
}
