/**
 * The session guarantees over requests, where databases have copies that may lag: a session reads its own writes, and never
 * something older than it has read before, whichever process and copy serves it.
 *
 * - *Held*: a request that brings a session's token reads the newest until its session has been loaded, because what the session
 *   has seen is not known before. One that may write (an unsafe method) is held to its end: it reads in order to decide.
 * - *Open*: reads are as new as the session and the client's own note ask. A request without either asks for nothing.
 * - *Settled*, before the answer: how far the databases had got is noted in the session and handed to the client. What cannot be
 *   noted is not answered: the caller gets the store's own error.
 *
 * Writes are always noted in the session. Reads are not when the client keeps the note, as it is then as good; a browser is
 * trusted with that only while it loads a page, since of answers to requests it sends at once the last one's cookie wins.
 */
import {
  isNothing,
  latestSeen,
  newerPart,
  nothingSeen,
  type ReadUnit,
  type ReadUnits,
  type Seen,
  type SeenListener,
} from "./seen.ts";
import type { Sessions } from "./sessions.ts";
import type { SeenSigner } from "./signed-seen.ts";

/** What a request brings. */
export interface RequestFacts {
  /** The token of its session, live or not. */
  readonly token: string | undefined;
  /** Signed notes, from whom has them. */
  readonly notes: readonly string[];
  /** Whether the client keeps, for its next request, the note that it is given. */
  readonly keepsNote: boolean;
  /** Whether it wants one though it has no session. */
  readonly wantsNote: boolean;
  readonly mayWrite: boolean;
}

/** One request. */
export interface RequestReads {
  readonly unit: ReadUnit;
  /**
   * To be done once, before the answer: notes what was written and read. Gives the note for the client; undefined when there is
   * none to give, or `canCarry` is false. Raises `UnavailableError`.
   */
  settle(sessions: Pick<Sessions, "noteSeen">, options: { readonly canCarry: boolean }): Promise<string | undefined>;
}

/** Counters since the start. */
export interface SessionReadsStats {
  readonly requests: number;
  /** Requests whose session was told, and those whose client alone has the note. */
  readonly notedInSession: number;
  readonly notedByClient: number;
  /** Notes of clients that were believed, and those that were not. */
  readonly notesTaken: number;
  readonly notesRefused: number;
  /** Answers that were held back because nothing could be noted. */
  readonly failures: number;
}

/** All requests of a process. */
export interface SessionReads extends SeenListener {
  begin(facts: RequestFacts): RequestReads;
  stats(): SessionReadsStats;
}

/** Notes that one request may bring. */
const notesMax = 8;

/** Makes the policy. */
export function sessionReads(options: { readonly units: ReadUnits; readonly signer: SeenSigner }): SessionReads {
  const { units, signer } = options;
  const requests = new WeakMap<ReadUnit, Request>();
  const counters = {
    requests: 0,
    notedInSession: 0,
    notedByClient: 0,
    notesTaken: 0,
    notesRefused: 0,
    failures: 0,
  };
  const current = () => {
    const unit = units.current();
    return unit === undefined ? undefined : requests.get(unit);
  };

  function believed(notes: readonly string[]): Seen {
    let seen = nothingSeen;
    for (const note of notes.slice(0, notesMax)) {
      const said = signer.read(note);
      if (said === undefined) counters.notesRefused++;
      else counters.notesTaken++;
      seen = latestSeen(seen, said ?? nothingSeen);
    }
    return seen;
  }

  return {
    begin(facts) {
      counters.requests++;
      const request = new Request(facts, {
        unit: units.begin(),
        carried: believed(facts.notes),
        signer,
        counters,
      });
      requests.set(request.unit, request);
      return request;
    },
    loaded: (token, seen) => current()?.loaded(token, seen),
    started: (token) => current()?.started(token),
    stats: () => ({ ...counters }),
  };
}

class Request implements RequestReads {
  readonly unit: ReadUnit;
  private readonly facts: RequestFacts;
  private readonly signer: SeenSigner;
  private readonly counters: { -readonly [K in keyof SessionReadsStats]: number };
  private readonly carried: Seen;
  private readonly keepsNote: boolean;
  private readonly begun = new Set<string>();
  /** What the session's record says; undefined while that is not known. */
  private recorded: Seen | undefined;
  private hasSession: boolean;
  private isSettled = false;

  constructor(
    facts: RequestFacts,
    around: {
      readonly unit: ReadUnit;
      readonly carried: Seen;
      readonly signer: SeenSigner;
      readonly counters: { -readonly [K in keyof SessionReadsStats]: number };
    },
  ) {
    this.facts = facts;
    this.unit = around.unit;
    this.signer = around.signer;
    this.counters = around.counters;
    this.hasSession = facts.token !== undefined;
    this.carried = around.carried;
    this.keepsNote = facts.keepsNote && !isNothing(this.carried);
    this.unit.require(this.carried);
    if (this.hasSession || facts.mayWrite) this.unit.hold();
  }

  loaded(token: string, seen: Seen | undefined): void {
    if (token !== this.facts.token) return;
    this.hasSession = seen !== undefined;
    this.recorded = seen ?? nothingSeen;
    this.unit.require(this.recorded);
    if (!this.facts.mayWrite) this.unit.release();
  }

  started(token: string): void {
    this.begun.add(token);
  }

  async settle(
    sessions: Pick<Sessions, "noteSeen">,
    { canCarry }: { readonly canCarry: boolean },
  ): Promise<string | undefined> {
    if (this.isSettled) return undefined;
    this.isSettled = true;
    try {
      return await this.note(sessions, canCarry);
    } catch (error) {
      this.counters.failures++;
      throw error;
    } finally {
      this.unit.end();
    }
  }

  private async note(sessions: Pick<Sessions, "noteSeen">, canCarry: boolean): Promise<string | undefined> {
    const isFollowed = this.hasSession || this.begun.size > 0;
    if (!isFollowed && !this.facts.wantsNote) return undefined;
    const { hasWrites } = this.unit;
    const seen = await this.unit.settle();
    const text = canCarry ? this.textOf(seen) : undefined;
    const isKept = this.keepsNote && text !== undefined && !hasWrites;
    const tokens = [...this.begun].map((token) => ({ token, part: seen }));
    if (this.hasSession && !isKept) {
      const recorded = this.recorded ?? nothingSeen;
      // What the client brought it has still.
      const known = hasWrites ? recorded : latestSeen(recorded, this.carried);
      tokens.push({ token: this.facts.token as string, part: newerPart(seen, known) });
    }
    const told = tokens.filter(({ part }) => !isNothing(part));
    await Promise.all(told.map(({ token, part }) => sessions.noteSeen(token, part)));
    if (told.length > 0) this.counters.notedInSession++;
    else if (text !== undefined) this.counters.notedByClient++;
    return text;
  }

  /** The client's own note, while it says all there is to say. */
  private textOf(seen: Seen): string | undefined {
    const [own, ...others] = this.facts.notes;
    const isSame = others.length === 0 && !isNothing(this.carried) && isNothing(newerPart(seen, this.carried));
    return isSame ? own : this.signer.sign(seen);
  }
}
