/**
 * What one unit of work, such as a request, has to see of each shard and what it has seen: the session guarantees.
 *
 * - *Read your writes*, *monotonic reads*: reads see at least the positions the unit was given.
 * - Once it has written to a shard, its further reads there go to the leader.
 * - At its end `settle` gives positions that cover all it wrote and read, to be handed to the session's next one.
 *
 * Followers are used only within a unit of work: what runs outside of one, such as a job or a start, reads from leaders. States:
 *
 * - *held*: leaders answer, because what reads have to see is not known yet.
 * - *open*: followers may answer.
 * - *over*: as outside of any. What goes on after the unit, such as a stream or a job that it started, belongs to nobody's session.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { laterOf, noPositions, type Position, type Positions } from "./position.ts";

/** A server that can say how far its log has got: what was read from it or committed there before the call is covered. */
export interface PositionSource {
  /** Raises `UnavailableError` when the server cannot answer in time. */
  positionNow(): Promise<Position>;
  /** Whose position covers this one's too, for when it cannot be asked any more: a follower's leader. */
  readonly coveredBy?: PositionSource | undefined;
}

/** A server that was asked for a read, and whether it has answered one. */
interface Reader {
  readonly server: PositionSource;
  hasAnswered: boolean;
}

/** Shared by everything done in one unit of work. */
export class ReadContext {
  /** Nothing in the unit waits for a server past this, in the monotonic ms of the system's clock; default: no such limit. */
  deadlineAt = Number.POSITIVE_INFINITY;
  private required: Positions;
  // Made when needed: most units touch one shard, and many none.
  private writers: Map<number, PositionSource> | undefined;
  private readers: Map<number, Reader[]> | undefined;
  private isHeld = false;
  private hasEnded = false;

  constructor(required: Positions = noPositions) {
    this.required = required;
  }

  /** What reads of the shard have to see at least. */
  requiredOf(shard: number): Position | undefined {
    return this.required.get(shard);
  }

  /** Reads from now on see at least these too. */
  require(positions: Positions): void {
    this.required = laterOf(this.required, positions);
  }

  /** Something may have been committed on the shard's leader. */
  noteWrite(shard: number, leader: PositionSource): void {
    this.writers ??= new Map();
    this.writers.set(shard, leader);
  }

  /** Something was read from the server. */
  noteRead(shard: number, server: PositionSource): void {
    this.reader(shard, server).hasAnswered = true;
  }

  /** Something is being read from the server, which may not answer. */
  noteAsked(shard: number, server: PositionSource): void {
    this.reader(shard, server);
  }

  /** The servers of the shard that were asked. A further read that another one answers could see less than these gave. */
  readersOf(shard: number): readonly { readonly server: PositionSource }[] | undefined {
    return this.readers?.get(shard);
  }

  hasWritten(shard: number): boolean {
    return this.writers?.has(shard) ?? false;
  }

  /** Shards on whose leaders something may have been committed here. */
  writtenShards(): readonly number[] {
    return [...(this.writers?.keys() ?? [])];
  }

  get hasWrites(): boolean {
    return this.writers !== undefined;
  }

  /** Whether the shard's leader has to answer reads: something was written to it here, or the unit is held. */
  needsLeader(shard: number): boolean {
    return this.isHeld || this.hasWritten(shard);
  }

  /** Leaders answer from now on. */
  hold(): void {
    this.isHeld = true;
  }

  /** Ends {@link ReadContext.hold}. */
  release(): void {
    this.isHeld = false;
  }

  get isOver(): boolean {
    return this.hasEnded;
  }

  /** Ends the unit for good. */
  end(): void {
    this.hasEnded = true;
  }

  /** Whether there is anything to settle. */
  get isTouched(): boolean {
    return this.writers !== undefined || this.readers !== undefined;
  }

  /**
   * Positions that cover all that was required, written and read. Raises `UnavailableError` when a leader written to cannot be asked;
   * of a follower that cannot be asked any more the leader is; if neither can, what was read may be newer than the
   * positions say.
   */
  async settle(): Promise<Positions> {
    const written = [...(this.writers ?? [])].map(
      async ([shard, leader]) => [shard, await leader.positionNow()] as const,
    );
    const read = [...(this.readers ?? [])].flatMap(([shard, servers]) =>
      // The leader's position after a write covers what was read before it.
      this.hasWritten(shard)
        ? []
        : servers
            .filter((each) => each.hasAnswered)
            .map(async ({ server }) => {
              const position = await server
                .positionNow()
                .catch(() => server.coveredBy?.positionNow().catch(() => undefined));
              return position === undefined ? undefined : ([shard, position] as const);
            }),
    );
    const found = (await Promise.all([...written, ...read])).filter((each) => each !== undefined);
    return found.reduce<Positions>((all, entry) => laterOf(all, new Map([entry])), this.required);
  }

  private reader(shard: number, server: PositionSource): Reader {
    this.readers ??= new Map();
    const known = this.readers.get(shard);
    const found = known?.find((each) => each.server === server);
    if (found !== undefined) return found;
    const reader = { server, hasAnswered: false };
    if (known === undefined) this.readers.set(shard, [reader]);
    else known.push(reader);
    return reader;
  }
}

const storage = new AsyncLocalStorage<ReadContext | undefined>();

/** Does the work, and all that it starts, in the context. */
export function inReadContext<R>(context: ReadContext, work: () => R): R {
  return storage.run(context, work);
}

/** Does the work, and all that it starts, outside of any context: it reads from leaders, and no session learns of it. */
export function onLeaders<R>(work: () => R): R {
  return storage.run(undefined, work);
}

/** The context of the work under way; undefined outside of any, and in one that is over. */
export function readContext(): ReadContext | undefined {
  const context = storage.getStore();
  return context?.isOver === true ? undefined : context;
}
