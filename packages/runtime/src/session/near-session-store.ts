/**
 * Reads sessions from a near copy of their store, such as a Redis replica in this region, wherever nobody can tell the difference
 * but by the time it takes. Everything else goes to the store itself.
 *
 * The copy lags. A read is answered by it if all of this holds; else the store is asked:
 *
 * - *Proved*: the caller knows the latest revision that its client was told of, and the copy has that one or a later one.
 * - *Unchanged*: nobody has changed the session through this process, or told it of a change elsewhere, within the last `staleMsMax`,
 *   unless the caller's revision is that change's or later.
 * - *Fresh*: the copy is known to have all that was changed longer than `staleMsMax` ago (`copy-age.ts`), so it is behind by no more
 *   in what no client can prove: that the session was revoked by somebody else.
 * - *There*: a copy that has no such session may not have it yet. Nobody is signed out by a copy.
 *
 * So a session that was revoked, by whomever, is good for reads near a copy for `staleMsMax` more, and never for writes: what may
 * write proves nothing (`session-reads.ts`). Revisions are compared and never trusted: they order one session's states only while
 * the store loses none, and a store that took over with fewer is known by its new connection, which ends freshness.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import type { CopyAge } from "./copy-age.ts";
import type { SessionRecord, SessionStore } from "./session-store.ts";
import { hashToken } from "./sessions.ts";

/** A store with a copy near by. */
export interface NearSessionStore extends SessionStore {
  /**
   * A request of the token's session was dealt with by another process, which may have changed its record: for `staleMsMax` from now on
   * this process reads it where sessions are changed. To be called before its answer is passed on.
   */
  changedElsewhere(token: string): void;
  /**
   * Whose session the token's is, to choose where its request is carried out: that never changes, so any state of it will do. It may
   * have ended. Undefined for nobody.
   */
  ownerOf(token: string): Promise<string | undefined>;
  stats(): NearSessionStats;
}

/** Reads since the start: those the copy answered, and the others by why it did not. */
export interface NearSessionStats {
  readonly near: number;
  /** The caller had no revision: it may write, its client brought no note, or it was told that something changed lately. */
  readonly unproved: number;
  /** The session was changed through this process lately. */
  readonly changed: number;
  /** The copy was not known to be fresh. */
  readonly stale: number;
  /** The copy did not answer. */
  readonly unreachable: number;
  /** It had no such session. */
  readonly absent: number;
  /** It had an older revision. */
  readonly older: number;
}

/** Settings of {@link nearSessionStore}. */
export interface NearSessionStoreOptions {
  /** Where sessions are changed. */
  readonly store: SessionStore;
  readonly copy: Pick<SessionStore, "read">;
  readonly age: CopyAge;
  readonly clock?: Clock;
  readonly log?: Logger;
  /** How far behind, in ms, the copy may be; default 2,000. */
  readonly staleMsMax?: number;
  /** Sessions and users whose changes are remembered at once; past it everything counts as changed. Default 20,000. */
  readonly changesMax?: number;
}

/** A change through this process; infinite for one that no revision proves. */
interface Change {
  readonly revision: number;
  readonly endsAt: number;
}

type Reason = Exclude<keyof NearSessionStats, "near">;

/** Makes one store of both. */
export function nearSessionStore(options: NearSessionStoreOptions): NearSessionStore {
  const { store, copy, age, clock = systemClock, log = silentLogger, staleMsMax = 2_000 } = options;
  const changes = new Changes({ clock, keepMs: staleMsMax, changesMax: options.changesMax ?? 20_000 });
  const counters = { near: 0, unproved: 0, changed: 0, stale: 0, unreachable: 0, absent: 0, older: 0 };

  /** The copy's record, or why it will not do. */
  async function readNear(tokenHash: Buffer, leastRevision: number | undefined): Promise<SessionRecord | Reason> {
    if (leastRevision === undefined) return "unproved";
    const isChanged = () => changes.has(nameOf(tokenHash), leastRevision);
    if (isChanged()) return "changed";
    const { era } = age;
    if (age.ageMs() > staleMsMax) return "stale";
    let record: SessionRecord | undefined;
    try {
      record = await copy.read(tokenHash);
    } catch (error) {
      log.debug({ error }, "a copy of the sessions did not answer; they are read where they are changed");
      age.doubt();
      return "unreachable";
    }
    // The answer may come from before, or from a server that has taken the copy's place.
    if (age.era !== era) return "stale";
    if (record === undefined) return "absent";
    if (record.revision < leastRevision) return "older";
    const isUserChanged = record.userId !== null && changes.has(record.userId, Number.POSITIVE_INFINITY);
    return isUserChanged || isChanged() ? "changed" : record;
  }

  async function ownerOf(tokenHash: Buffer): Promise<string | undefined> {
    const isUsed = age.ageMs() <= staleMsMax;
    const record = isUsed ? await copy.read(tokenHash).catch(() => age.doubt()) : undefined;
    return (record ?? (await store.read(tokenHash)))?.userId ?? undefined;
  }

  /** Whether it succeeds or not: what failed may have been done. */
  async function changing<T>(name: string, work: () => Promise<T>, revisionOf?: (result: T) => number | undefined) {
    let revision: number | undefined;
    try {
      const result = await work();
      revision = revisionOf?.(result);
      return result;
    } finally {
      changes.add(name, revision ?? Number.POSITIVE_INFINITY);
    }
  }

  return {
    capabilities: store.capabilities,
    async read(tokenHash, { leastRevision } = {}) {
      const found = await readNear(tokenHash, leastRevision);
      if (typeof found === "string") {
        counters[found]++;
        return store.read(tokenHash);
      }
      counters.near++;
      return found;
    },
    ownerOf: (token) => ownerOf(hashToken(token)),
    changedElsewhere: (token) => changes.add(nameOf(hashToken(token)), Number.POSITIVE_INFINITY),
    stats: () => ({ ...counters }),

    // No copy has it yet.
    create: (record) => store.create(record),
    // Nobody is told of it.
    touch: (tokenHash, seenAt, unlessSeenSince) => store.touch(tokenHash, seenAt, unlessSeenSince),
    update: (tokenHash, patch) =>
      changing(
        nameOf(tokenHash),
        () => store.update(tokenHash, patch),
        (updated) => updated?.revision,
      ),
    noteWrite: (tokenHash, wrote) =>
      changing(
        nameOf(tokenHash),
        () => store.noteWrite(tokenHash, wrote),
        (revision) => revision,
      ),
    noteSeen: (tokenHash, seen) =>
      changing(
        nameOf(tokenHash),
        () => store.noteSeen(tokenHash, seen),
        (revision) => revision,
      ),
    rotate: (tokenHash, record, how) => changing(nameOf(tokenHash), () => store.rotate(tokenHash, record, how)),
    revoke: (tokenHash) => changing(nameOf(tokenHash), () => store.revoke(tokenHash)),
    // The session that is kept is read where it is changed too, for as long.
    revokeAllOf: (userId, except) => changing(userId, () => store.revokeAllOf(userId, except)),
    sweep: (sweep) => store.sweep(sweep),
  };
}

function nameOf(tokenHash: Buffer): string {
  return tokenHash.toString("hex");
}

/** What was changed lately, by session or user; bounded. */
class Changes {
  private readonly clock: Clock;
  private readonly keepMs: number;
  private readonly changesMax: number;
  /** In the order of their ends, as each is kept for as long. */
  private readonly latest = new Map<string, Change>();
  /** Until then everything counts as changed: there was more than could be remembered. */
  private allUntil = Number.NEGATIVE_INFINITY;

  constructor(options: { readonly clock: Clock; readonly keepMs: number; readonly changesMax: number }) {
    this.clock = options.clock;
    this.keepMs = options.keepMs;
    this.changesMax = options.changesMax;
  }

  add(name: string, revision: number): void {
    const now = this.clock.monotonic();
    this.forgetBefore(now);
    const before = this.latest.get(name);
    this.latest.delete(name);
    if (this.latest.size >= this.changesMax) {
      this.latest.clear();
      this.allUntil = now + this.keepMs;
    }
    this.latest.set(name, { revision: Math.max(revision, before?.revision ?? 0), endsAt: now + this.keepMs });
  }

  /** Whether there was one that the revision does not prove. */
  has(name: string, revision: number): boolean {
    const now = this.clock.monotonic();
    if (now < this.allUntil) return true;
    const change = this.latest.get(name);
    if (change === undefined || now >= change.endsAt) return false;
    return change.revision > revision || change.revision === Number.POSITIVE_INFINITY;
  }

  private forgetBefore(now: number): void {
    for (const [name, { endsAt }] of this.latest) {
      if (endsAt > now) return;
      this.latest.delete(name);
    }
  }
}
