/**
 * The port of what carries invalidations between the processes of an app.
 *
 * All processes hear all invalidations in one order, that of their *numbers*. Numbers only grow, also when the server starts
 * anew with nothing or is replaced by a copy that missed the last ones: each is at least the server's time in microseconds,
 * and above any that its announcer has heard of.
 */

/** Tags, or everything. */
export type InvalidatedTags = readonly string[] | "everything";

/**
 * How far the databases had got with the commits that an invalidation stands for: by shard, a text that whoever routes reads
 * understands. An empty text: committed there, but it is not known how far. Undefined: nothing is known of any shard.
 */
export type CommitMarks = Readonly<Record<string, string>>;

/** One invalidation as it is heard. */
export interface HeardInvalidation {
  readonly number: number;
  /** The number before it; 0 when the server knew of none. */
  readonly previous: number;
  /** Who announced it. */
  readonly origin: string;
  readonly tags: InvalidatedTags;
  /** Absent from processes of a version without them. */
  readonly upTo?: CommitMarks | undefined;
}

/** What the server remembers. */
export interface RememberedInvalidations {
  /** In order; the first may not be the next one, and there may be more. */
  readonly page: readonly HeardInvalidation[];
  /** Whether there is nothing after the page. */
  readonly isLast: boolean;
  /** The newest number. Above the page's last, or the one asked for, if what came between is not remembered. */
  readonly newest: number;
}

/** What hears the channel. None of these may throw. */
export interface InvalidationListener {
  onInvalidation(heard: HeardInvalidation): void;
  /** The mark of this listener has come back, behind everything announced before it, whose newest number is given. */
  onMark(mark: string, newest: number): void;
  /** Invalidations may have been missed; later ones are heard. */
  onGap(): void;
}

/** Options of {@link InvalidationChannel.announce}. */
export interface AnnounceOptions {
  readonly origin: string;
  /** The number given is higher than this one. */
  readonly above: number;
  readonly upTo?: CommitMarks | undefined;
  /** For announcements made while a new connection is prepared; default false. */
  readonly isAhead?: boolean;
}

/** Carries invalidations. Methods raise `UnavailableError` when the server does not answer in time. */
export interface InvalidationChannel {
  /** Tells all processes, this one included; gives the number. Doing it twice is harmless. */
  announce(tags: InvalidatedTags, options: AnnounceOptions): Promise<number>;
  /**
   * Sends a mark to the listener of `origin`, to find out whether everything is heard. An origin that has not sent one for
   * `deadAfterMs`, and has not left, is taken for dead: it may not have told its last changes, so everything is invalidated.
   */
  mark(origin: string, mark: string, options: { readonly deadAfterMs: number }): Promise<void>;
  /** The origin has told everything, and will send no more marks. */
  leave(origin: string): Promise<void>;
  /** The oldest invalidations after the number that the server still remembers, for one who missed some. */
  since(number: number): Promise<RememberedInvalidations>;
  /** Resolves once everything announced from then on is heard. One listener a channel. */
  listen(origin: string, listener: InvalidationListener): Promise<void>;
  /** Has the work done with each new connection before it is used otherwise, because the server may have been replaced. */
  beforeUse(work: () => Promise<void>): Promise<void>;
  close(): Promise<void>;
}
