/**
 * How a session learns how far the databases had got that its requests wrote to and read from, so that its next request reads
 * nothing older, whichever process and whichever copy of a database serves it. Declared here for whoever routes reads over
 * copies; the read contexts of the database tier fit it.
 */

/**
 * How far each shard had got, by the shard's number: a text of {@link seenCharacters} hexadecimal digits whose order as text is
 * that of time. Absent: nothing is asked of the shard.
 */
export type Seen = Readonly<Record<string, string>>;

/** Nothing is asked of any shard. */
export const nothingSeen: Seen = Object.freeze({});

/** Length of each text. */
export const seenCharacters = 24;

/** The part of `later` that `known` does not cover. */
export function newerPart(later: Seen, known: Seen): Seen {
  return Object.fromEntries(Object.entries(later).filter(([shard, text]) => text > (known[shard] ?? "")));
}

/** Whether nothing is asked of any shard. */
export function isNothing(seen: Seen): boolean {
  return Object.keys(seen).length === 0;
}

/** The later of each shard. */
export function latestSeen(a: Seen, b: Seen): Seen {
  return { ...a, ...newerPart(b, a) };
}

/** One unit of work, such as a request: what it reads has to be as new as what is required. */
export interface ReadUnit {
  /** Does the work, and all that it starts, in the unit. */
  run<R>(work: () => R): R;
  /** Whether the caller is in it. */
  isCurrent(): boolean;
  /** What is read from now on is at least as new. */
  require(seen: Seen): void;
  /** What is read from now on is the newest there is. */
  hold(): void;
  /** Ends {@link ReadUnit.hold}. */
  release(): void;
  /** Whether something was written in it. */
  readonly hasWrites: boolean;
  /** What covers all that was required, read and written. Raises `UnavailableError` when what was written cannot be asked for. */
  settle(): Promise<Seen>;
  /** What is read after this belongs to no session. */
  end(): void;
}

/** Makes units. */
export interface ReadUnits {
  begin(): ReadUnit;
  /** The one under way. */
  current(): ReadUnit | undefined;
}

/** What hears of sessions as requests use them. */
export interface SeenListener {
  /** The token's session was loaded; undefined when there is none. What its unit reads from now on has to be as new. */
  loaded(token: string, record: { readonly seen: Seen; readonly revision: number } | undefined): void;
  /** A session was begun: what its unit writes is to be noted in it. */
  started(token: string): void;
  /** The token's record was changed, which made it this revision: whoever is answered from now on has to see it. */
  changed(token: string, revision: number): void;
  /**
   * The revision that the client of the unit under way has proved to be the latest it was told of; undefined while it may have been
   * told of a later one. A copy of the record that has it may answer.
   */
  leastRevision(token: string): number | undefined;
}
