/**
 * Moves sessions from one store to another while their people use them: whoever comes with a session that only the previous
 * store has, has it moved then.
 *
 * Several processes may move one session at once. It is *adopted* (made in the new store unless it is there) before it is
 * taken out of the previous one, so nobody is signed out in between. Only who made it there takes it out here; one who made
 * it and then finds nothing to take out came late, with a copy of a session that had been moved and ended meanwhile, and ends
 * it again.
 */
import type { SessionRecord, SessionStore } from "./session-store.ts";

/** A store that sessions can be moved to. */
export interface AdoptiveSessionStore extends SessionStore {
  /** Adds the session unless its hash is there; gives whether it was added. */
  adopt(record: SessionRecord): Promise<boolean>;
}

/** Settings of {@link adoptingSessionStore}. */
export interface AdoptingSessionStoreOptions {
  readonly store: AdoptiveSessionStore;
  readonly previous: SessionStore;
  /** Whether the previous store may still hold sessions; asked at each session that the new one does not know. */
  readonly hasPrevious: () => boolean;
}

/** Makes one store of both. The previous one's sessions are swept; all new ones are made in the new one. */
export function adoptingSessionStore({ store, previous, hasPrevious }: AdoptingSessionStoreOptions): SessionStore {
  async function move(tokenHash: Buffer): Promise<SessionRecord | undefined> {
    if (!hasPrevious()) return undefined;
    const record = await previous.read(tokenHash);
    if (record === undefined) return store.read(tokenHash);
    if (!(await store.adopt(record))) return store.read(tokenHash);
    if (await previous.revoke(tokenHash)) return record;
    await store.revoke(tokenHash);
    return undefined;
  }

  const readMoved = async (tokenHash: Buffer) => (await store.read(tokenHash)) ?? (await move(tokenHash));

  return {
    capabilities: { expiresByItself: false },
    create: (record) => store.create(record),
    read: (tokenHash) => readMoved(tokenHash),
    touch: (tokenHash, seenAt, unlessSeenSince) => store.touch(tokenHash, seenAt, unlessSeenSince),
    async update(tokenHash, patch) {
      const updated = await store.update(tokenHash, patch);
      if (updated !== undefined || (await move(tokenHash)) === undefined) return updated;
      return store.update(tokenHash, patch);
    },
    async noteWrite(tokenHash, wrote) {
      await readMoved(tokenHash);
      return store.noteWrite(tokenHash, wrote);
    },
    async noteSeen(tokenHash, seen) {
      // Done with most requests: nothing more is read once all have moved.
      if (hasPrevious()) await readMoved(tokenHash);
      return store.noteSeen(tokenHash, seen);
    },
    async rotate(tokenHash, record, options) {
      await readMoved(tokenHash);
      return store.rotate(tokenHash, record, options);
    },
    // The previous one first: what is no longer there is not moved any more.
    async revoke(tokenHash) {
      const wasThere = hasPrevious() && (await previous.revoke(tokenHash));
      return (await store.revoke(tokenHash)) || wasThere;
    },
    async revokeAllOf(userId, except) {
      const count = hasPrevious() ? await previous.revokeAllOf(userId, except) : 0;
      return count + (await store.revokeAllOf(userId, except));
    },
    sweep: (sweep) => (hasPrevious() ? previous.sweep(sweep) : Promise.resolve(0)),
  };
}
