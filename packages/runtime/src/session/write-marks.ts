/**
 * How a session learns what its requests changed, so that whichever process serves its next one shows it. Declared here for
 * whoever numbers changes over all processes; the cache's invalidation bus fits it.
 */

/** Numbers of changes, the same in all processes. */
export interface WriteMarks {
  /** How many changes this process has made since its start. */
  count(): number;
  /** The newest number this process knows of. */
  newest(): number;
  /** The number of this process's newest change; raises `UnavailableError` while the others cannot be told of it. */
  settled(): Promise<number>;
  /** Resolves, soon in any case, once nothing is served here that is older than the change of this number. */
  catchUp(number: number): Promise<void>;
}
