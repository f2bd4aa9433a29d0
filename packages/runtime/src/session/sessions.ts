/**
 * Server-side sessions: an opaque random token for the client, a record under its hash for us.
 *
 * Both the browser's cookie and the API's bearer token are such tokens. States of a session:
 *
 * - *live*: made by `start` or `rotate`; `load` gives it. Each use moves its idle end, noted at most every `touchEveryMs`.
 * - *ended*: unused for `idleMs`, or `absoluteMs` old. `load` gives undefined; `sweep` deletes the record.
 * - *gone*: revoked, rotated away or swept. Nothing brings it back: a late touch or update of a gone session does nothing.
 *
 * A sign-in always rotates, so that a token planted before it opens nothing after it (session fixation; OWASP Session
 * Management Cheat Sheet, "Renew the Session ID After Any Privilege Level Change").
 */
import { createHash } from "node:crypto";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import { nothingSeen, type Seen, type SeenListener } from "./seen.ts";
import type { SessionData, SessionPatch, SessionRecord, SessionStore } from "./session-store.ts";
import type { WriteMarks } from "./write-marks.ts";

/** A live session. */
export interface Session {
  /** A UUID; null while nobody has signed in. */
  readonly userId: string | null;
  /** The token the client holds. A secret: never log it. */
  readonly token: string;
  readonly createdAt: Date;
  /** Absolute end of life. */
  readonly expiresAt: Date;
  readonly data: SessionData;
}

/** Every method raises `UnavailableError` when the store cannot answer: an outage signs nobody out. */
export interface Sessions {
  /** Starts a session for the user, or an anonymous one for null. */
  start(userId: string | null, data?: SessionData): Promise<Session>;
  /**
   * Starts a session for the user in place of the token's, which opens nothing afterwards. Call it at each sign-in.
   * The old data is carried over if the old session was live and anonymous or the same user's; never between users.
   */
  rotate(token: string, userId: string | null): Promise<Session>;
  /**
   * The live session of a token; undefined for an unknown, ended or malformed one. One read of the store. With `marks`, what
   * is read from the cache afterwards is not older than what the session's requests have changed.
   */
  load(token: string): Promise<Session | undefined>;
  /** Changes some fields of a session's data, null removing one; gives the data afterwards, undefined without a session. */
  update(token: string, patch: SessionPatch): Promise<SessionData | undefined>;
  /** How many changes this process has made since its start, for {@link Sessions.noteWrites}; 0 without `marks`. */
  writesSoFar(): number;
  /**
   * Notes in the session that its request may have made the changes of this process up to now; to be done before the request is
   * answered. Raises `CACHE_INVALIDATION_DELAYED` while the other processes cannot be told of them.
   */
  noteWrites(token: string): Promise<void>;
  /** Notes how far the databases had got that the session's request wrote to and read from; see `seen.ts`. */
  noteSeen(token: string, seen: Seen): Promise<void>;
  /** Ends a session; gives whether there was one. */
  revoke(token: string): Promise<boolean>;
  /** Ends all sessions of the user, but for the one of `exceptToken` if given; gives how many. */
  revokeAll(userId: string, exceptToken?: string): Promise<number>;
  /** Deletes ended sessions in bounded batches until none is left or the signal says stop; gives how many. */
  sweep(signal?: AbortSignal): Promise<number>;
}

/** Settings of {@link createSessions}. */
export interface SessionsOptions {
  readonly store: SessionStore;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Logger;
  /** Numbers what requests change, where several processes cache; default none. */
  readonly marks?: WriteMarks | undefined;
  /** Holds requests to what their sessions have seen, where databases have copies; default none. */
  readonly seen?: SeenListener | undefined;
  /** A session unused for this long ends; default 30 days. */
  readonly idleMs?: number;
  /** A session ends this long after its start; default 90 days. */
  readonly absoluteMs?: number;
  /** Use is noted at most this often, so that reads do not become writes; default 5 minutes. Idle ends are this inexact. */
  readonly touchEveryMs?: number;
}

const dayMs = 24 * 60 * 60 * 1_000;
/** 256 bits; OWASP's Session Management Cheat Sheet asks for 64 at least. */
const tokenBytes = 32;
/** Characters of a token: 32 bytes in base64url without padding. */
const tokenCharacters = 43;
const tokenPattern = /^[A-Za-z0-9_-]{43}$/;
/** Notes of use under way at once; past it a note is left to the session's next use. */
const touchesMax = 1_000;
const sweepBatchSessions = 1_000;
const sweepBatchesMax = 1_000;

/** Makes the session policy over a store. Raises `CONFIG_INVALID` for times that contradict each other. */
export function createSessions(options: SessionsOptions): Sessions {
  const { store, clock = systemClock, random = systemRandom, log = silentLogger, marks, seen } = options;
  const { idleMs = 30 * dayMs, absoluteMs = 90 * dayMs, touchEveryMs = 5 * 60 * 1_000 } = options;
  checkTimes({ idleMs, absoluteMs, touchEveryMs });
  const touching = new Set<string>();

  function newSession(userId: string | null, data: SessionData): { token: string; record: SessionRecord } {
    const token = Buffer.from(random.bytes(tokenBytes)).toString("base64url");
    const now = clock.now();
    const createdAt = new Date(now);
    const expiresAt = new Date(now + absoluteMs);
    return {
      token,
      record: {
        tokenHash: hashToken(token),
        userId,
        createdAt,
        lastSeenAt: createdAt,
        expiresAt,
        data,
        wrote: marks?.newest() ?? 0,
        seen: nothingSeen,
        revision: 0,
      },
    };
  }

  function changed(token: string, revision: number | undefined): void {
    if (revision !== undefined) seen?.changed(token, revision);
  }

  function isLive(record: SessionRecord, now: number): boolean {
    return now < record.expiresAt.getTime() && now - record.lastSeenAt.getTime() < idleMs;
  }

  /** Not awaited: the reader need not wait for it, and a lost note only makes a session idle a little sooner. */
  function noteUse(token: string, tokenHash: Buffer, now: number): void {
    if (touching.size >= touchesMax || touching.has(token)) return;
    touching.add(token);
    store
      .touch(tokenHash, new Date(now), new Date(now - touchEveryMs))
      .catch((error: unknown) => log.warn({ error }, "the use of a session could not be noted"))
      .finally(() => touching.delete(token));
  }

  async function start(userId: string | null, data: SessionData = {}): Promise<Session> {
    const { token, record } = newSession(userId, data);
    await store.create(record);
    seen?.started(token);
    return sessionOf(token, record);
  }

  return {
    start,

    async rotate(token, userId) {
      if (!isToken(token)) return start(userId);
      const oldHash = hashToken(token);
      const old = await store.read(oldHash);
      const keepsData = old !== undefined && isLive(old, clock.now()) && (old.userId === null || old.userId === userId);
      const fresh = newSession(userId, {});
      const record = { ...fresh.record, wrote: Math.max(fresh.record.wrote, old?.wrote ?? 0) };
      const data = await store.rotate(oldHash, record, { keepsData });
      seen?.started(fresh.token);
      return sessionOf(fresh.token, { ...fresh.record, data });
    },

    async load(token) {
      if (!isToken(token)) {
        seen?.loaded(token, undefined);
        return undefined;
      }
      const tokenHash = hashToken(token);
      const leastRevision = seen?.leastRevision(token);
      let record = await store.read(tokenHash, { leastRevision });
      const now = clock.now();
      // A copy may not have heard of the last use: it ends nobody's session.
      if (leastRevision !== undefined && record !== undefined && !isLive(record, now))
        record = await store.read(tokenHash);
      if (record === undefined || !isLive(record, now)) {
        seen?.loaded(token, undefined);
        return undefined;
      }
      seen?.loaded(token, record);
      if (now - record.lastSeenAt.getTime() >= touchEveryMs) noteUse(token, tokenHash, now);
      if (marks !== undefined && record.wrote > 0) await marks.catchUp(record.wrote);
      return sessionOf(token, record);
    },

    writesSoFar: () => marks?.count() ?? 0,
    async noteWrites(token) {
      if (marks === undefined || !isToken(token)) return;
      changed(token, await store.noteWrite(hashToken(token), await marks.settled()));
    },

    async noteSeen(token, upTo) {
      if (isToken(token)) changed(token, await store.noteSeen(hashToken(token), upTo));
    },

    async update(token, patch) {
      if (!isToken(token)) return undefined;
      const updated = await store.update(hashToken(token), patch);
      changed(token, updated?.revision);
      return updated?.data;
    },
    revoke: async (token) => isToken(token) && store.revoke(hashToken(token)),
    revokeAll: (userId, exceptToken) =>
      store.revokeAllOf(userId, exceptToken === undefined ? undefined : hashToken(exceptToken)),

    async sweep(signal) {
      if (store.capabilities.expiresByItself) return 0;
      const now = clock.now();
      const idleSince = now - idleMs;
      const ended = {
        expiredAt: new Date(now),
        idleSince: new Date(idleSince),
        idleExpiresBy: new Date(idleSince + absoluteMs),
        sessionsMax: sweepBatchSessions,
      };
      let total = 0;
      for (let batch = 0; batch < sweepBatchesMax && signal?.aborted !== true; batch++) {
        const count = await store.sweep(ended);
        total += count;
        if (count === 0) break;
      }
      return total;
    },
  };
}

/** What a token is stored under. A fast hash will do: the token has 256 random bits, so there is nothing to guess. */
export function hashToken(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

function isToken(token: string): boolean {
  return token.length === tokenCharacters && tokenPattern.test(token);
}

function sessionOf(token: string, { userId, createdAt, expiresAt, data }: SessionRecord): Session {
  return { userId, token, createdAt, expiresAt, data };
}

function checkTimes(times: {
  readonly idleMs: number;
  readonly absoluteMs: number;
  readonly touchEveryMs: number;
}): void {
  const { idleMs, absoluteMs, touchEveryMs } = times;
  const isInOrder = touchEveryMs >= 0 && touchEveryMs < idleMs && idleMs <= absoluteMs && Number.isFinite(absoluteMs);
  if (isInOrder) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `Session times must satisfy 0 <= touchEveryMs < idleMs <= absoluteMs; they are ${touchEveryMs}, ${idleMs} and ${absoluteMs}.`,
  );
}
