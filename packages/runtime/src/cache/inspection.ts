/** What the levels of a cache say of one key, for people who look. Looking changes no counter and loads nothing. */

/** Why an entry would not be served now. */
export type NotServed =
  /** There is none. */
  | "absent"
  /** One of its tags, or everything, was invalidated after its load began. */
  | "invalidated"
  /** Its time is over; it may still be there for the grace. */
  | "over"
  /** Invalidations have not been heard for longer than the bound, so what is older than that is not served. */
  | "unheard"
  /** Its value is too large or of no kind that can be shared: each process loads it for itself. */
  | "withheld"
  /** The shared cache did not answer, or is left alone after failures. */
  | "unreachable";

/** An entry of one level. Times in milliseconds. */
export interface LevelInspection {
  /** Null: it would be served. */
  readonly notServed: NotServed | null;
  /** The tag that was invalidated, or "everything"; null when that is not the reason. */
  readonly endedBy: string | null;
  /** All below is null when there is no entry. */
  readonly ageMs: number | null;
  /** How long it is still fresh; 0 when it is not. */
  readonly freshMs: number | null;
  /** How long after that it may be served while it is refreshed. */
  readonly staleMs: number | null;
  readonly tags: readonly string[] | null;
  /** Number of the last invalidation heard before its load began: the process's own count, or the shared one of all processes. */
  readonly asOf: number | null;
  /** The thing was looked for and is not there. */
  readonly isNegative: boolean | null;
  /** As stored in the shared cache; null for the process's own level. */
  readonly bytes: number | null;
}

/** One key in one process. */
export interface KeyInspection {
  readonly local: LevelInspection;
  /** Null without a shared cache. */
  readonly shared: LevelInspection | null;
  /** A load of it runs in this process. */
  readonly isLoading: boolean;
}

/** No entry, for this reason. */
export function noEntry(notServed: NotServed): LevelInspection {
  return {
    ...{ notServed, endedBy: null, ageMs: null, freshMs: null, staleMs: null },
    ...{ tags: null, asOf: null, isNegative: null, bytes: null },
  };
}

const keyPrefix = "key=";

/** The tag that every entry of this key bears of itself: invalidating it ends this one key in all processes. */
export function keyTag(key: string): string {
  return keyPrefix + key;
}

/** Tags as the app named them. */
export function namedTags(tags: readonly string[], key: string): string[] {
  return tags.filter((tag) => tag !== keyTag(key));
}
