/**
 * What Conduit is about, as the handlers see it: shapes of the RealWorld API plus the operations behind them.
 * The JSON API (`../api`) and the HTML pages (`../ui`) are two faces of these same operations.
 *
 * Every operation validates its input and raises {@link ProblemError} for what the user got wrong.
 */

/**
 * Hears the cache tags of what an operation read: what writes invalidate when they change it. So whoever keeps the answer, such as a
 * CDN, learns when to let go of it.
 */
export interface Seen {
  (tag: string): void;
  /** Some of what belongs to the answer could not be read, as a shard is down: nobody may keep it. */
  incomplete(): void;
}

/** A signed-in account, as its owner sees it. `id` is a UUIDv7 and the shard key of everything the user owns. */
export interface Account {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  /** Empty when the user wrote none. */
  readonly bio: string;
  /** Address of an avatar: an absolute http(s) one, or the path of an upload; empty when the user has none. */
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
  profile(username: string, viewerId?: string, seen?: Seen): Promise<Profile>;
  follow(viewerId: string, username: string): Promise<Profile>;
  unfollow(viewerId: string, username: string): Promise<Profile>;
}

/** Operations on articles, favourites and tags. */
export interface Articles {
  list(filter: ArticleFilter, viewerId?: string, seen?: Seen): Promise<ArticlePage>;
  /** Newest articles of the people the viewer follows. */
  feed(viewerId: string, page: PageRequest, seen?: Seen): Promise<ArticlePage>;
  bySlug(slug: string, viewerId?: string, seen?: Seen): Promise<Article>;
  create(authorId: string, input: NewArticle): Promise<Article>;
  update(viewerId: string, slug: string, change: ArticleChange): Promise<Article>;
  remove(viewerId: string, slug: string): Promise<void>;
  favorite(viewerId: string, slug: string): Promise<Article>;
  unfavorite(viewerId: string, slug: string): Promise<Article>;
  /** The most used tags, most used first, at most 100. */
  tags(seen?: Seen): Promise<readonly string[]>;
}

/** Operations on the comments of an article, newest first. */
export interface Comments {
  list(slug: string, viewerId?: string, seen?: Seen): Promise<readonly Comment[]>;
  add(viewerId: string, slug: string, input: { readonly body: string }): Promise<Comment>;
  remove(viewerId: string, slug: string, commentId: number): Promise<void>;
}

/** Something others did that concerns the user. `id` counts up from 1 without gaps, for each user. */
export interface Notification {
  readonly id: number;
  readonly kind: "follow" | "favorite" | "comment" | "tip" | "video";
  /** Who did it, as they are called now; null when nobody did or the account is gone. */
  readonly actor: { readonly username: string; readonly image: string } | null;
  /** By kind: `slug` and `title` of the article, `comment`, an amount. */
  readonly details: Readonly<Record<string, string | number>>;
  /** All of it in one sentence. */
  readonly text: string;
  readonly createdAt: string;
}

/** How far a user's notifications go and were read: ids, 0 for none. */
export interface NotificationBox {
  readonly newest: number;
  readonly readUpTo: number;
  readonly unreadCount: number;
}

/** Notifications, newest first, and how many of all are unread. */
export interface NotificationPage extends NotificationBox {
  readonly notifications: readonly Notification[];
}

/** Operations on a user's own notifications. */
export interface Notifications {
  /** Those with an id below `before`; `limit` at least 1, default 20, at most 100. */
  list(userId: string, page: { readonly limit?: unknown; readonly before?: unknown }): Promise<NotificationPage>;
  box(userId: string): Promise<NotificationBox>;
  /** Marks all up to this id as read, never back; tells the user's open pages. */
  markRead(userId: string, upTo: unknown): Promise<NotificationBox>;
}

/** A tip as its giver sees it. */
export interface Tip {
  readonly id: string;
  readonly state: "requested" | "charging" | "succeeded" | "declined" | "failed";
  /** Why it was declined or failed; null otherwise. */
  readonly reason: string | null;
  /** What the giver pays, in minor units. */
  readonly amount: number;
  readonly currency: string;
  readonly message: string;
  /** Who gets it, as they are called now; null when the account is gone. */
  readonly to: { readonly username: string; readonly image: string } | null;
  readonly createdAt: string;
  readonly updatedAt: string;
}

/** A tip as its receiver sees it. */
export interface ReceivedTip {
  readonly id: string;
  /** Who gave it, as they are called now; null when the account is gone. */
  readonly from: { readonly username: string; readonly image: string } | null;
  /** What the giver paid, in minor units. */
  readonly amount: number;
  /** What is kept of it, in minor units. */
  readonly fee: number;
  readonly currency: string;
  readonly message: string;
  readonly createdAt: string;
}

/** What a user has in one currency, in minor units. */
export interface Balance {
  readonly currency: string;
  readonly amount: number;
}

/** A tip about to be given. */
export interface NewTip {
  readonly amount: number;
  readonly currency: string;
  readonly message?: string | undefined;
}

/** A page of tips, newest first: those before an id. */
export interface TipPageRequest {
  readonly limit?: number | undefined;
  readonly before?: string | undefined;
}

/** Operations on tips between users. */
export interface Tips {
  /** Whether there is a payment provider: without one, tips are not offered. */
  readonly isOffered: boolean;
  /** Asks for a tip; the same idempotency key again gives the same tip, `replayed`. */
  give(
    payerId: string,
    username: string,
    input: NewTip,
    key: string,
  ): Promise<{ readonly tip: Tip; readonly replayed: boolean }>;
  /** One's own tip. */
  byId(payerId: string, tipId: string): Promise<Tip>;
  given(payerId: string, page: TipPageRequest): Promise<readonly Tip[]>;
  received(payeeId: string, page: TipPageRequest): Promise<readonly ReceivedTip[]>;
  balance(userId: string): Promise<readonly Balance[]>;
}

/** What an upload is for. */
export type UploadPurpose = "avatar" | "image" | "video";

/** A file made of an upload. */
export interface UploadRendition {
  readonly name: string;
  readonly contentType: string;
  readonly sizeBytes: number;
  readonly widthPx: number;
  readonly heightPx: number;
  /** Of a video. */
  readonly durationMs?: number;
}

/** An upload as its owner sees it. */
export interface Upload {
  readonly id: string;
  readonly purpose: UploadPurpose;
  /** What its owner's machine called it. */
  readonly name: string;
  /** For its owner only: its addresses are signed and end after an hour or so. */
  readonly isPrivate: boolean;
  /** "waiting": for a program that is missing here; `message` says which. It goes on by itself. */
  readonly state: "received" | "processing" | "waiting" | "ready" | "failed";
  /** 0 to 100. */
  readonly progress: number;
  /** Why it waits or failed; continues "The file" when it failed. */
  readonly message: string | null;
  /** Where its state can be asked. */
  readonly url: string;
  /** Address of what is shown first; null until it is ready. */
  readonly media: string | null;
  /** Address of a video's still picture. */
  readonly poster: string | null;
  /** What to write into an article to show it there; null for an avatar and for what is private. Shows something once the upload is ready. */
  readonly markdown: string | null;
  readonly renditions: readonly (UploadRendition & { readonly url: string })[];
  readonly createdAt: string;
}

/** Operations on a user's own uploads; a 404 problem for those of others. Receiving them is the web's. */
export interface Uploads {
  /** Newest first, those before an id; `limit` at least 1, default 20, at most 100. */
  list(ownerId: string, page: { readonly limit?: unknown; readonly before?: unknown }): Promise<readonly Upload[]>;
  byId(ownerId: string, uploadId: string): Promise<Upload>;
  remove(ownerId: string, uploadId: string): Promise<void>;
}

/** Everything the two faces need. */
export interface Conduit {
  readonly tips: Tips;
  readonly notifications: Notifications;
  readonly uploads: Uploads;
  readonly accounts: Accounts;
  readonly articles: Articles;
  readonly comments: Comments;
}
