/**
 * One client's stream.
 *
 * States: *opening* (subscribed, nothing written), *live* (joined to a connection), *ended*. Messages without a position are
 * passed on as they come. Those of the recorded topic are passed on in the order of their positions, each once:
 *
 * - the position after the last one goes straight through;
 * - one at or before it was given already and is dropped;
 * - one further ahead means that others are on their way, sent later or lost: the stream then reads the record from where it
 *   stands until it has caught up. A message is sent after it was committed, and positions are committed in order, so that
 *   whatever lies before a position is in the record by the time its message arrives.
 *
 * An opening stream subscribes first and then reads the record, so nothing falls between. Where the record cannot help (too
 * much was missed, or it holds no such position), the event `reset` tells the client to load afresh.
 *
 * What the connection does not take waits in a bounded queue; a client that lets it overflow is cut off, and comes back to
 * resume.
 */
import { eventText, heartbeatText, positionOf, positionText, retryText } from "./event-stream.ts";
import type { LiveMessage } from "./live.ts";
import type { TopicMessage } from "./shared-topics.ts";

/** The record behind a topic, for resuming. Positions are decimal integers that go up in the order of their commits. */
export interface TopicRecord {
  /** Which of the stream's topics. */
  readonly topic: string;
  /** The newest position; "0" when there is none. */
  newest(): Promise<string>;
  /**
   * What came after a position, oldest first, each with its `id`; "gap" when that is too much, no longer kept, or when the
   * position lies past the newest. Called after the messages it must find were committed, so never answer from a follower.
   */
  after(position: string): Promise<readonly LiveMessage[] | "gap">;
}

/** The connection a stream writes to. */
export interface LiveSink {
  /** Takes text; false when it has enough until {@link LiveStream.writable} is called. */
  write(text: string): boolean;
  /** Bytes written that have not left this process. */
  waitingBytes(): number;
  /** Ends the connection after what was written. */
  end(): void;
  /** Ends it at once. */
  cut(): void;
}

/** Why a stream ended; also the `reason` in the data of its last event, `end`, where one could be written. */
export type EndReason =
  /** The client went away. */
  | "closed"
  /** More waited for the client than may. */
  | "slow"
  /** The connection took nothing for long. */
  | "stalled"
  /** The same owner opened more streams than allowed, and this was the oldest. The client must not come back by itself. */
  | "replaced"
  /** As old as a stream may get; the client comes back at once. */
  | "expired"
  /** The session has ended. */
  | "revoked"
  /** The process stops; the client comes back, to another. */
  | "draining"
  /** The record could not be read. */
  | "failed";

/** A client's stream, made by `Live.open`. */
export interface LiveStream {
  /** Joins it to a connection, whose headers may now be sent. */
  start(sink: LiveSink): void;
  /** The connection takes more. */
  writable(): void;
  /** The connection is gone. */
  closed(): void;
}

/** What a stream is given by the hub. */
export interface StreamOptions {
  readonly record: TopicRecord | undefined;
  readonly queueMessagesMax: number;
  readonly queueBytesMax: number;
  /** First wait before the client connects again. */
  readonly retryMs: number;
  /** Called once. */
  onEnd(reason: EndReason, error?: unknown): void;
  /** Called once, when the connection is gone as well. */
  onClosed(): void;
  /** Called for each message handed to the client. */
  onMessage(): void;
  /** Somebody asks that the session be checked now. */
  onRecheck(): void;
}

/** The event by which the processes tell each other to check sessions. */
export const recheckEvent = "rungs.recheck";

export class ClientStream implements LiveStream {
  private readonly options: StreamOptions;
  private sink: LiveSink | undefined;
  private queue: string[] = [];
  private queuedBytes = 0;
  private isWritable = false;
  private isEnded = false;
  private isGone = false;
  /** Of the last message given; -1 while opening. */
  private position = -1;
  /** The furthest position heard of. */
  private heard = -1;
  private isCatchingUp = true;
  /** Messages were lost while it was catching up. */
  private needsReset = false;
  /** The first heartbeat that found something waiting, while each one since has. */
  private blockedAt: number | undefined;

  constructor(options: StreamOptions) {
    this.options = options;
  }

  /** Finds its place in the record; the topics must be subscribed by now. Raises what the record raises. */
  async open(lastEventId: string | undefined): Promise<void> {
    const { record, retryMs } = this.options;
    this.enqueue(retryText(retryMs));
    if (record === undefined) {
      this.enqueue(lastEventId === undefined ? "\n" : `\n${eventText("reset", "{}")}`);
      return;
    }
    if (lastEventId === undefined) {
      this.position = numberOf(await record.newest());
      this.enqueue(`${positionText(this.position)}\n`);
    } else {
      this.enqueue("\n");
      await this.resume(lastEventId);
    }
    await this.catchUp();
  }

  start(sink: LiveSink): void {
    this.sink = sink;
    if (this.isEnded) sink.cut();
    else this.writable();
  }

  writable(): void {
    this.isWritable = true;
    if (this.sink === undefined || this.queue.length === 0) return;
    const text = this.queue.join("");
    this.queue = [];
    this.queuedBytes = 0;
    this.isWritable = this.sink.write(text);
  }

  closed(): void {
    this.end("closed");
    if (this.isGone) return;
    this.isGone = true;
    this.options.onClosed();
  }

  receive({ topic, event, id, text }: TopicMessage): void {
    if (this.isEnded) return;
    const position = topic === this.options.record?.topic ? positionOf(id) : undefined;
    if (event === recheckEvent) this.options.onRecheck();
    else if (position === undefined) this.give(text);
    else this.receiveAt(position, text);
  }

  private receiveAt(position: number, text: string): void {
    this.heard = Math.max(this.heard, position);
    if (this.isCatchingUp || position <= this.position) return;
    if (position === this.position + 1) {
      this.giveAt(position, text);
      return;
    }
    this.isCatchingUp = true;
    this.catchUp().catch((error: unknown) => this.end("failed", { error }));
  }

  /** Writes a sign of life; ends the stream when its connection has taken nothing for `stalledMs`. */
  heartbeat(now: number, stalledMs: number): void {
    if (this.isEnded || this.sink === undefined) return;
    if (this.queue.length === 0 && this.sink.waitingBytes() === 0) this.blockedAt = undefined;
    else this.blockedAt ??= now;
    if (this.blockedAt !== undefined && now - this.blockedAt >= stalledMs) this.end("stalled");
    else if (this.isWritable) this.write(heartbeatText);
  }

  /** Messages may have been lost on their way here: the client loads afresh what it shows. */
  resync(): void {
    if (this.isEnded) return;
    if (this.options.record === undefined) this.give(eventText("reset", "{}"));
    else if (this.isCatchingUp) this.needsReset = true;
    else {
      this.isCatchingUp = true;
      this.needsReset = true;
      this.catchUp().catch((error: unknown) => this.end("failed", { error }));
    }
  }

  end(reason: EndReason, { retryMs, error }: { readonly retryMs?: number; readonly error?: unknown } = {}): void {
    if (this.isEnded) return;
    this.isEnded = true;
    const { sink } = this;
    const isOrderly = retryMs !== undefined && this.isWritable;
    this.queue = [];
    this.options.onEnd(reason, error);
    if (sink === undefined || reason === "closed") return;
    if (isOrderly) {
      sink.write(retryText(retryMs) + eventText("end", JSON.stringify({ reason })));
      sink.end();
    } else sink.cut();
  }

  /** Cuts a connection that did not close after its orderly end. */
  cut(): void {
    if (!this.isGone) this.sink?.cut();
  }

  private async resume(lastEventId: string): Promise<void> {
    const { record } = this.options;
    const position = positionOf(lastEventId);
    const missed = position === undefined ? "gap" : await record?.after(lastEventId);
    this.position = position ?? 0;
    if (!this.giveMissed(missed)) await this.reset();
  }

  /** Each round moves the position forward, up to what was heard of at most. */
  private async catchUp(): Promise<void> {
    const { record } = this.options;
    while (!this.isEnded && record !== undefined && (this.needsReset || this.heard > this.position)) {
      if (this.needsReset) {
        this.needsReset = false;
        await this.reset();
        continue;
      }
      const before = this.position;
      const missed = await record.after(String(before));
      if (!this.giveMissed(missed) || this.position === before) await this.reset();
    }
    this.isCatchingUp = false;
  }

  /** False when they are a gap, or more than half the queue: the client then loads afresh. */
  private giveMissed(missed: readonly LiveMessage[] | "gap" | undefined): boolean {
    if (missed === undefined || missed === "gap") return false;
    const texts = missed.map(({ event, data }) => eventText(event, JSON.stringify(data) ?? "null"));
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    if (bytes > this.options.queueBytesMax / 2 || texts.length > this.options.queueMessagesMax / 2) return false;
    for (const [index, { id }] of missed.entries()) {
      const position = positionOf(id);
      if (position !== undefined && position > this.position) this.giveAt(position, texts[index] as string);
    }
    return true;
  }

  private async reset(): Promise<void> {
    this.position = numberOf(await this.options.record?.newest());
    this.heard = Math.min(this.heard, this.position);
    this.give(positionText(this.position) + eventText("reset", "{}"));
  }

  private giveAt(position: number, text: string): void {
    this.position = position;
    this.give(positionText(position) + text);
  }

  private give(text: string): void {
    if (this.isEnded) return;
    this.write(text);
    this.options.onMessage();
  }

  private write(text: string): void {
    if (this.sink === undefined || !this.isWritable) this.enqueue(text);
    else this.isWritable = this.sink.write(text);
  }

  private enqueue(text: string): void {
    this.queue.push(text);
    this.queuedBytes += Buffer.byteLength(text);
    const { queueMessagesMax, queueBytesMax } = this.options;
    if (this.queue.length > queueMessagesMax || this.queuedBytes > queueBytesMax) this.end("slow");
  }
}

/** The record's own word; it must be a position. */
function numberOf(id: string | undefined): number {
  const position = positionOf(id);
  if (position === undefined) throw new TypeError(`A topic's record gave "${id}", which is no position.`);
  return position;
}
