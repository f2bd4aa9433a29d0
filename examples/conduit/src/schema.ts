/**
 * Conduit's tables, as Kysely types them.
 *
 * Everything about an author lives on the author's shard: profile, followers, articles with their tags, favourites and
 * comments. So one query on one shard answers an article page with all its flags, and a list asks each shard once.
 */

/** A user; the shard key is their own id. */
export interface UserTable {
  user_id: string;
  username: string;
  /** The username as compared: case folded, compatibility-normalised. Unique through the directory. */
  username_key: string;
  email: string;
  /** The address as compared. Unique through the directory. */
  email_key: string;
  password_hash: string;
  bio: string;
  image: string;
  created_at: Date;
  updated_at: Date;
}

/** Who follows whom, kept with the one who is followed. */
export interface FollowTable {
  followed_id: string;
  follower_id: string;
  created_at: Date;
}

export interface ArticleTable {
  author_id: string;
  article_id: string;
  slug: string;
  title: string;
  description: string;
  body: string;
  tag_list: string[];
  favorites_count: number;
  last_comment_number: number;
  created_at: Date;
  updated_at: Date;
}

export interface ArticleTagTable {
  author_id: string;
  article_id: string;
  tag: string;
}

/** Whose favourite an article is, kept with the article. */
export interface FavoriteTable {
  author_id: string;
  article_id: string;
  user_id: string;
  created_at: Date;
}

/** A comment, kept with the article; numbers count up from 1 within it. */
export interface CommentTable {
  author_id: string;
  article_id: string;
  number: number;
  commenter_id: string;
  body: string;
  created_at: Date;
  updated_at: Date;
}

/** All tables of Conduit by name. */
export interface Tables {
  users: UserTable;
  follows: FollowTable;
  articles: ArticleTable;
  article_tags: ArticleTagTable;
  favorites: FavoriteTable;
  comments: CommentTable;
}
