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
 *
 * Where the session store has copies (`near-session-store.ts`), notes carry the latest revision of the session's record that the
 * client was told of, and a request *proves* it by its notes: a copy that has it may answer. Not proved is
 *
 * - what may write: it decides by the session, which may have been revoked;
 * - notes of which one names no revision or another session: the process that gave it may have made a later one;
 * - a client that carries the *mark*: its browser was told of a revision new to it within the last seconds, and of answers to requests
 *   sent at once the one that said so may not be the one whose note the browser has kept. The mark is a cookie of its own that is
 *   only ever set, so no answer can take it away, and it goes where the person goes, whatever region that is.
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
import { type NotedRevision, type SeenNote, type SeenSigner, sessionName } from "./signed-seen.ts";

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
  /** Whether the client carries the mark that it was told of a new revision lately. */
  readonly isMarked: boolean;
}

/** One request. */
export interface RequestReads {
  readonly unit: ReadUnit;
  /**
   * To be done once, before the answer: notes what was written and read. Gives the note for the client; undefined when there is
   * none to give, or `canCarry` is false. Raises `UnavailableError`.
   */
  settle(sessions: Pick<Sessions, "noteSeen">, options: { readonly canCarry: boolean }): Promise<string | undefined>;
  /** Whether a browser is to be given the mark with its note; known once it is settled. Always false without revisions. */
  readonly isToMark: boolean;
  /** To be done when its connection is gone. */
  end(): void;
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

/** Settings of {@link sessionReads}. */
export interface SessionReadsOptions {
  readonly units: ReadUnits;
  readonly signer: SeenSigner;
  /**
   * Whether notes carry revisions, for processes that read sessions from copies; default false. Processes of versions that know of none
   * refuse such notes, so all have to be of a later one when the first begins.
   */
  readonly hasRevisions?: boolean;
}

/** Makes the policy. */
export function sessionReads({ units, signer, hasRevisions = false }: SessionReadsOptions): SessionReads {
  const requests = new WeakMap<ReadUnit, Request>();
  const underWay = new RequestsByToken();
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

  function believed(notes: readonly string[]): SeenNote[] {
    const said = notes.slice(0, notesMax).map((note) => signer.read(note));
    const found = said.filter((note) => note !== undefined);
    counters.notesTaken += found.length;
    counters.notesRefused += said.length - found.length;
    return found;
  }

  return {
    begin(facts) {
      counters.requests++;
      const request = new Request(facts, {
        unit: units.begin(),
        carried: believed(facts.notes),
        ...{ hasRevisions, underWay, signer, counters },
      });
      requests.set(request.unit, request);
      return request;
    },
    loaded: (token, record) => current()?.loaded(token, record),
    started: (token) => current()?.started(token),
    changed: (token, revision) => underWay.changed(token, revision),
    leastRevision: (token) => (hasRevisions ? current()?.leastRevision(token) : undefined),
    stats: () => ({ ...counters }),
  };
}

/**
 * The requests under way, by the tokens they use. Who changes a session need not be in the unit of its request: an event of its body
 * is not.
 */
class RequestsByToken {
  private readonly requests = new Map<string, Set<Request>>();

  add(token: string, request: Request): void {
    const found = this.requests.get(token);
    if (found === undefined) this.requests.set(token, new Set([request]));
    else found.add(request);
  }

  remove(token: string, request: Request): void {
    const found = this.requests.get(token);
    found?.delete(request);
    if (found?.size === 0) this.requests.delete(token);
  }

  changed(token: string, revision: number): void {
    for (const request of this.requests.get(token) ?? []) request.changed(token, revision);
  }
}

class Request implements RequestReads {
  readonly unit: ReadUnit;
  private readonly facts: RequestFacts;
  private readonly signer: SeenSigner;
  private readonly counters: { -readonly [K in keyof SessionReadsStats]: number };
  private readonly underWay: RequestsByToken;
  private readonly hasRevisions: boolean;
  private readonly carried: Seen;
  private readonly carriedRecord: NotedRevision | undefined;
  private readonly keepsNote: boolean;
  private readonly begun = new Set<string>();
  /** Latest known revision of the records of this request's sessions, by token. */
  private readonly revisions = new Map<string, number>();
  /** What the session's record says; undefined while that is not known. */
  private recorded: Seen | undefined;
  private hasSession: boolean;
  private isSettled = false;

  constructor(
    facts: RequestFacts,
    around: {
      readonly unit: ReadUnit;
      readonly carried: readonly SeenNote[];
      readonly hasRevisions: boolean;
      readonly underWay: RequestsByToken;
      readonly signer: SeenSigner;
      readonly counters: { -readonly [K in keyof SessionReadsStats]: number };
    },
  ) {
    this.facts = facts;
    this.unit = around.unit;
    this.signer = around.signer;
    this.counters = around.counters;
    this.underWay = around.underWay;
    this.hasRevisions = around.hasRevisions;
    this.hasSession = facts.token !== undefined;
    this.carried = around.carried.reduce((all, { seen }) => latestSeen(all, seen), nothingSeen);
    this.carriedRecord = facts.token === undefined ? undefined : provedRecord(facts.token, around.carried);
    this.keepsNote = facts.keepsNote && !isNothing(this.carried);
    this.unit.require(this.carried);
    if (this.hasSession || facts.mayWrite) this.unit.hold();
    if (facts.token !== undefined) this.underWay.add(facts.token, this);
  }

  get isToMark(): boolean {
    const record = this.recordOf();
    if (record === undefined) return false;
    const known = record.session === this.carriedRecord?.session ? this.carriedRecord.revision : -1;
    return record.revision > known;
  }

  loaded(token: string, record: { readonly seen: Seen; readonly revision: number } | undefined): void {
    if (token !== this.facts.token) return;
    this.hasSession = record !== undefined;
    this.recorded = record?.seen ?? nothingSeen;
    if (record !== undefined) this.know(token, record.revision);
    this.unit.require(this.recorded);
    if (!this.facts.mayWrite) this.unit.release();
  }

  started(token: string): void {
    this.begun.add(token);
    this.underWay.add(token, this);
    this.know(token, 0);
  }

  changed(token: string, revision: number): void {
    this.know(token, revision);
  }

  leastRevision(token: string): number | undefined {
    if (token !== this.facts.token || this.facts.mayWrite || this.facts.isMarked) return undefined;
    return this.carriedRecord === undefined ? undefined : this.latestRevision(token);
  }

  end(): void {
    this.unit.end();
    if (this.facts.token !== undefined) this.underWay.remove(this.facts.token, this);
    for (const token of this.begun) this.underWay.remove(token, this);
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
      this.end();
    }
  }

  private async note(sessions: Pick<Sessions, "noteSeen">, canCarry: boolean): Promise<string | undefined> {
    const isFollowed = this.hasSession || this.begun.size > 0;
    if (!isFollowed && !this.facts.wantsNote) return undefined;
    const { hasWrites } = this.unit;
    const seen = await this.unit.settle();
    const { text, isWhole } = this.textOf(seen);
    const isKept = this.keepsNote && canCarry && isWhole && !hasWrites;
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
    else if (canCarry && text !== undefined) this.counters.notedByClient++;
    if (!canCarry) return undefined;
    // What was noted has changed the record.
    return told.length > 0 ? this.textOf(seen).text : text;
  }

  /** The client's own note, while it says all there is to say. Not whole: there are more shards than a note may name. */
  private textOf(seen: Seen): { readonly text: string | undefined; readonly isWhole: boolean } {
    const [own, ...others] = this.facts.notes;
    const record = this.recordOf();
    const isSame =
      others.length === 0 &&
      !isNothing(this.carried) &&
      isNothing(newerPart(seen, this.carried)) &&
      record?.session === this.carriedRecord?.session &&
      record?.revision === this.carriedRecord?.revision;
    if (isSame) return { text: own, isWhole: true };
    const text = this.signer.sign({ seen, record });
    if (text !== undefined || record === undefined) return { text, isWhole: text !== undefined };
    return { text: this.signer.sign({ seen: nothingSeen, record }), isWhole: false };
  }

  /** What its note says of the session that the client uses from now on. */
  private recordOf(): NotedRevision | undefined {
    const token = [...this.begun].at(-1) ?? (this.hasSession ? this.facts.token : undefined);
    const revision = token === undefined || !this.hasRevisions ? undefined : this.latestRevision(token);
    return token === undefined || revision === undefined ? undefined : { session: sessionName(token), revision };
  }

  private latestRevision(token: string): number | undefined {
    const known = this.revisions.get(token);
    const carried = token === this.facts.token ? this.carriedRecord?.revision : undefined;
    return known === undefined || carried === undefined ? (known ?? carried) : Math.max(known, carried);
  }

  private know(token: string, revision: number): void {
    this.revisions.set(token, Math.max(revision, this.revisions.get(token) ?? 0));
  }
}

/** The latest that the notes say, if each of them says one and of this session. */
function provedRecord(token: string, notes: readonly SeenNote[]): NotedRevision | undefined {
  const [first, ...others] = notes;
  if (first?.record === undefined) return undefined;
  const session = sessionName(token);
  let { revision } = first.record;
  for (const { record } of [first, ...others]) {
    if (record?.session !== session) return undefined;
    revision = Math.max(revision, record.revision);
  }
  return { session, revision };
}
