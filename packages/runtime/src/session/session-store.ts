/**
 * The port of a session store. Sessions are kept under the hash of their token; the token itself is never stored.
 *
 * The store knows nothing of tokens, clocks or idle times: `sessions.ts` decides who is signed in, drivers only keep
 * records. Every driver passes `sessionStoreContract` of the private package `@rungs/contract`.
 */

import type { Seen } from "./seen.ts";

/** A value that JSON can carry. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [field: string]: JsonValue };

/** Small facts that belong to one session, by field; at most {@link sessionDataBytesMax} as JSON. Not for secrets. */
export type SessionData = Readonly<Record<string, JsonValue>>;

/** Changes to some fields of a session's data; null removes the field. Fields not named stay as they are. */
export type SessionPatch = SessionData;

/** Bound on one session's data, as JSON text: it is read with every request. */
export const sessionDataBytesMax = 4_096;

/** One session as stored. */
export interface SessionRecord {
  /** SHA-256 of the token. */
  readonly tokenHash: Buffer;
  /** A UUID; null while nobody has signed in. */
  readonly userId: string | null;
  readonly createdAt: Date;
  readonly lastSeenAt: Date;
  /** Absolute end of life, however much the session is used. */
  readonly expiresAt: Date;
  readonly data: SessionData;
  /** Number of the newest change that its requests made, see `write-marks.ts`; 0 for none. */
  readonly wrote: number;
  /** How far the databases had got that its requests wrote to and read from, see `seen.ts`. */
  readonly seen: Seen;
  /** Raised by every change of the record, below 2^48: of two states of one session the one with the higher number is the later. */
  readonly revision: number;
}

/** How a session is read. */
export interface SessionReadOptions {
  /**
   * The caller knows of no later revision than this, so that a copy which has it may answer. Default: the record is read where
   * sessions are changed. A store without copies takes no notice.
   */
  readonly leastRevision?: number | undefined;
}

/** What a driver can do. */
export interface SessionCapabilities {
  /** Ended sessions vanish from the store without {@link SessionStore.sweep}, which then does nothing and gives 0. */
  readonly expiresByItself: boolean;
}

/** Which sessions have ended. */
export interface SessionSweep {
  /** Sessions that expire at or before this have ended. */
  readonly expiredAt: Date;
  /** Sessions last seen at or before this have ended. */
  readonly idleSince: Date;
  /**
   * No idle session expires after this: one idle since `idleSince` was created before, and lives no longer than the
   * absolute limit. So an index on the end finds them, and noting a use need not maintain an index.
   */
  readonly idleExpiresBy: Date;
  /** Sessions deleted at most by one call. */
  readonly sessionsMax: number;
}

/**
 * Keeps sessions. Every method raises `UnavailableError` when the store cannot answer: an outage is never "no such
 * session". Data over its bound raises `UnsupportedError` with `SESSION_DATA_TOO_LARGE` and changes nothing.
 */
export interface SessionStore {
  readonly capabilities: SessionCapabilities;
  /** Adds a session; its hash must be new. */
  create(record: SessionRecord): Promise<void>;
  /** The session, ended or not; undefined when there is none. One round trip. */
  read(tokenHash: Buffer, options?: SessionReadOptions): Promise<SessionRecord | undefined>;
  /**
   * Moves `lastSeenAt` forward to `seenAt`, unless it is later than `unlessSeenSince` already: of many callers at once,
   * one writes. Never brings a session back.
   */
  touch(tokenHash: Buffer, seenAt: Date, unlessSeenSince: Date): Promise<void>;
  /** Merges the patch into the data, atomically by field; gives what is there afterwards, undefined when there is no session. */
  update(tokenHash: Buffer, patch: SessionPatch): Promise<Pick<SessionRecord, "data" | "revision"> | undefined>;
  /**
   * Puts `record` in place of the session of `tokenHash`, in one step: afterwards the old hash opens nothing. With
   * `keepsData` the old session's data is carried over, under the record's own; what it has seen always is, the later of each
   * shard. Gives the data of the new session, whose revision is the record's own.
   * When there is no old session (any more), the new one is made all the same.
   */
  rotate(tokenHash: Buffer, record: SessionRecord, options: { readonly keepsData: boolean }): Promise<SessionData>;
  /**
   * Raises `wrote` to the number, unless it is higher already or there is no session. Gives a revision that has it; undefined
   * without a session.
   */
  noteWrite(tokenHash: Buffer, wrote: number): Promise<number | undefined>;
  /**
   * Raises what the session has seen of each shard named, unless that is later already or there is no session. Gives a revision
   * that has it; undefined when nothing was named or there is no session.
   */
  noteSeen(tokenHash: Buffer, seen: Seen): Promise<number | undefined>;
  /** Gives whether there was one. */
  revoke(tokenHash: Buffer): Promise<boolean>;
  /** Revokes the user's sessions but for the one kept, if any; gives how many. */
  revokeAllOf(userId: string, except?: Buffer): Promise<number>;
  /** Deletes sessions that have ended, at most `sessionsMax`; gives how many. Safe to run in many processes at once. */
  sweep(sweep: SessionSweep): Promise<number>;
}
