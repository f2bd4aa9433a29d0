/**
 * Conduit's tables, as Kysely types them.
 *
 * Everything about an author lives on the author's shard: profile, followers, articles with their tags, favourites and
 * comments. So one query on one shard answers an article page with all its flags, and a list asks each shard once.
 */
import type { Generated } from "kysely";
import type { UploadPurpose, UploadRendition } from "./domain/model.ts";

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

/** How many notifications a user has had and has read; numbers count up from 1 without gaps. */
export interface NotificationBoxTable {
  user_id: string;
  last_number: number;
  read_number: Generated<number>;
}

export interface NotificationTable {
  user_id: string;
  number: number;
  kind: "follow" | "favorite" | "comment" | "tip" | "video";
  actor_id: string | null;
  /** What it is about; with kind and actor it is told once. */
  subject_id: string;
  details: Readonly<Record<string, string | number>>;
  created_at: Date;
}

/** A file that a user sent, and what was made of it. */
export interface UploadTable {
  owner_id: string;
  upload_id: string;
  purpose: UploadPurpose;
  name: string;
  is_private: boolean;
  state: "received" | "processing" | "waiting" | "ready" | "failed";
  progress: number;
  message: string | null;
  renditions: readonly UploadRendition[];
  created_at: Date;
  updated_at: Date;
}

/** Kinds of accounts in the ledger; see `payments/ledger.ts`. */
export type LedgerAccount = "provider_receivable" | "clearing" | "fee_revenue" | "user_balance";

/** A running total, kept by the database from the lines. */
export interface LedgerAccountTable {
  owner_id: string;
  account: LedgerAccount;
  currency: string;
  type: Generated<"asset" | "transit" | "revenue" | "liability">;
  balance_minor: Generated<number>;
}

export interface LedgerEntryTable {
  owner_id: string;
  entry_id: string;
  kind: "tip_captured" | "tip_received";
  tip_id: string;
  booked_at: Date;
}

/** One line of an entry; debits are above zero. */
export interface LedgerLineTable {
  owner_id: string;
  entry_id: string;
  line: number;
  account: LedgerAccount;
  currency: string;
  amount_minor: number;
}

/** A tip as its payer asked for it, and what came of it. Amounts in minor units. */
export interface TipTable {
  payer_id: string;
  tip_id: string;
  payee_id: string;
  amount_minor: number;
  fee_minor: number;
  currency: string;
  message: string;
  state: Generated<"requested" | "charging" | "succeeded" | "declined" | "failed">;
  /** The provider's word when it came to nothing. */
  reason: string | null;
  /** The provider's id of the charge. */
  charge_id: string | null;
  version: Generated<number>;
  /** When to look after a tip without outcome. */
  check_at: Date;
  created_at: Date;
  updated_at: Date;
}

/** A completed tip, kept with the payee. */
export interface ReceivedTipTable {
  payee_id: string;
  tip_id: string;
  payer_id: string;
  amount_minor: number;
  fee_minor: number;
  currency: string;
  message: string;
  created_at: Date;
}

/** Notices of the payment provider that came before. */
export interface PaymentNoticeTable {
  payer_id: string;
  notice_id: string;
  received_at: Generated<Date>;
}

/** All tables of Conduit by name. */
export interface Tables {
  uploads: UploadTable & { size_bytes: number };
  ledger_accounts: LedgerAccountTable;
  ledger_entries: LedgerEntryTable;
  ledger_lines: LedgerLineTable;
  tips: TipTable;
  received_tips: ReceivedTipTable;
  payment_notices: PaymentNoticeTable;
  notification_boxes: NotificationBoxTable;
  notifications: NotificationTable;
  users: UserTable;
  follows: FollowTable;
  articles: ArticleTable;
  article_tags: ArticleTagTable;
  favorites: FavoriteTable;
  comments: CommentTable;
}
