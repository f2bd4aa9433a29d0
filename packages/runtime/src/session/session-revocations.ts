/**
 * The port that remembers which sessions were revoked, for a session store that can lose its last writes.
 *
 * A store that copies asynchronously forgets, when a copy takes over, what the copy had not received: among it revocations. A
 * session that was lost means signing in again; a revocation that was lost would give a thief his session back. So each is
 * noted durably before it is acknowledged, and done once more by a store that took over, before anything is read from it.
 */

/** Remembers revoked sessions by their hashes. Raises `UnavailableError` when it cannot. */
export interface SessionRevocations {
  /** Resolves once they are safe. */
  note(tokenHashes: readonly Buffer[]): Promise<void>;
  /** All that are remembered, in batches of at most `batchMax`. */
  noted(batchMax: number): AsyncIterable<readonly Buffer[]>;
  /** Forgets those noted longer ago than any store may lag behind; gives how many. */
  sweep(): Promise<number>;
}
