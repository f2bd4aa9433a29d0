/**
 * The live policy: what services send reaches the streams of this process, each within its bounds.
 *
 * A stream ends when its client goes, is too slow or silent, when its session has ended, when its owner opened too many, when
 * it is old, and when the process stops. One timer does all that is due; nothing is timed a stream.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { ConfigError, UnavailableError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import { createCheckQueue } from "./check-queue.ts";
import { isEventName } from "./event-stream.ts";
import type { FanOut, LiveMessage, LiveSender } from "./live.ts";
import { ClientStream, type EndReason, type LiveStream, recheckEvent, type TopicRecord } from "./live-stream.ts";
import { sharedTopics } from "./shared-topics.ts";

/** What a client listens to. */
export interface OpenOptions {
  /** At most 10. */
  readonly topics: readonly string[];
  /** Whose stream it is, e.g. a user's id; bounds how many they have open in this process. */
  readonly owner: string;
  /** The position the client has seen last; undefined for a client that has just loaded what there is. */
  readonly lastEventId?: string | undefined;
  /** The record of one of the topics, so that nothing of it is lost or given twice. Without it there is no resuming. */
  readonly record?: TopicRecord | undefined;
  /** Whether the session still lives; asked again and again while the stream is open. Default: always. */
  readonly isAllowed?: (() => Promise<boolean>) | undefined;
}

/** Counters since the start, and what is open now. */
export interface LiveStats {
  readonly streams: number;
  readonly topics: number;
  readonly opened: number;
  /** Streams refused because too many were open or the process was stopping. */
  readonly refused: number;
  /** Messages given to `send`. */
  readonly published: number;
  /** Messages that `send` could not hand on, by reason. */
  readonly unsent: Readonly<Record<"invalid" | "tooLarge" | "failed" | "late", number>>;
  /** Messages handed to clients. */
  readonly delivered: number;
  readonly ended: Readonly<Record<EndReason, number>>;
}

/** The live tier, as services see it. */
export interface Live extends LiveSender {
  /**
   * Opens a stream: subscribed and, with a record, caught up. Raises `OVERLOADED` above the process's limit, `SHUTTING_DOWN`
   * while it stops, and what fan-out and record raise.
   */
  open(options: OpenOptions): Promise<LiveStream>;
  /** Has the streams that listen to the topic check their sessions now, in every process. Never raises. */
  recheck(topic: string): Promise<void>;
  stats(): LiveStats;
}

/** A live tier with its lifetime, for whoever made it. */
export interface RunningLive extends Live {
  /** Does what is due by the clock: heartbeats, checks, ends. A timer calls it; tests with a clock of their own do. */
  tick(): void;
  /** Ends all streams, refuses new ones, and resolves when their connections are gone, within `drainMs`. */
  drain(): Promise<void>;
}

/** Settings of {@link createLive}. */
export interface LiveOptions {
  readonly fanOut: FanOut;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Default 10,000. */
  readonly streamsMax?: number;
  /** Of one owner in this process; default 8. The oldest makes room. */
  readonly ownerStreamsMax?: number;
  /** Messages that may wait for one client; default 500. */
  readonly queueMessagesMax?: number;
  /** Bytes that may wait for one client; default 256 KiB. */
  readonly queueBytesMax?: number;
  /** Longest data of a message, as JSON; default 16 KiB. */
  readonly messageBytesMax?: number;
  /** Default 15 s. Proxies commonly close after 60 s of silence (nginx's `proxy_read_timeout`). */
  readonly heartbeatMs?: number;
  /** A connection that has not been free of what was written for this long is cut at a heartbeat; default 45 s. */
  readonly stalledMs?: number;
  /** A session that ended, ends its streams within this (and the time of one check) while the store answers; default 30 s. */
  readonly checkMs?: number;
  /** Longest life of a stream, give or take a fifth so that they do not all end together; default 30 min. */
  readonly lifeMs?: number;
  /** Bound of handing a message to the fan-out; default 2 s. */
  readonly sendMs?: number;
  /** What a drain waits before it cuts; default 1 s. */
  readonly drainMs?: number;
  /** How often {@link RunningLive.tick} is called; default 1 s. 0: never, the caller does. */
  readonly tickMs?: number;
}

const topicsMax = 10;
/** Sessions asked for at once; the others wait their turn. */
const checksMax = 50;

/** Makes the live tier of a process. */
export function createLive(options: LiveOptions): RunningLive {
  const hub = new LiveHub(options);
  const { tickMs = 1_000 } = options;
  if (tickMs > 0) hub.timer = setInterval(() => hub.tick(), tickMs).unref();
  return hub;
}

interface OpenStream {
  readonly stream: ClientStream;
  readonly owner: string;
  readonly topics: ReadonlySet<string>;
  readonly isAllowed: (() => Promise<boolean>) | undefined;
  readonly endsAt: number;
  readonly leave: (() => void)[];
  heartbeatAt: number;
  /** When the client is told to load afresh, after messages were lost. */
  resyncAt: number;
  checkAt: number;
}

class LiveHub implements RunningLive {
  timer: NodeJS.Timeout | undefined;
  private readonly options: Required<Omit<LiveOptions, "tickMs">>;
  private readonly topics: ReturnType<typeof sharedTopics>;
  /** Oldest first, as sets keep their order. */
  private readonly streams = new Set<OpenStream>();
  private readonly owners = new Map<string, Set<OpenStream>>();
  /** Ended, with a connection that is still closing. */
  private readonly closing = new Set<ClientStream>();
  private isDraining = false;
  private onAllClosed: () => void = () => {};
  private readonly checks = createCheckQueue<OpenStream>({
    concurrencyMax: checksMax,
    check: (entry) => this.check(entry),
  });
  private opened = 0;
  private refused = 0;
  private published = 0;
  private delivered = 0;
  private readonly unsent = { invalid: 0, tooLarge: 0, failed: 0, late: 0 };
  private readonly ended: Record<EndReason, number> = {
    closed: 0,
    slow: 0,
    stalled: 0,
    replaced: 0,
    expired: 0,
    revoked: 0,
    draining: 0,
    failed: 0,
  };

  constructor(options: LiveOptions) {
    this.options = {
      log: silentLogger,
      clock: systemClock,
      random: systemRandom,
      streamsMax: 10_000,
      ownerStreamsMax: 8,
      queueMessagesMax: 500,
      queueBytesMax: 256 * 1_024,
      messageBytesMax: 16 * 1_024,
      heartbeatMs: 15_000,
      stalledMs: 45_000,
      checkMs: 30_000,
      lifeMs: 30 * 60_000,
      sendMs: 2_000,
      drainMs: 1_000,
      ...options,
    };
    this.topics = sharedTopics({ fanOut: this.options.fanOut, log: this.options.log });
    this.options.fanOut.onGap?.((topics) => this.noteGap(topics));
  }

  async send(topic: string, message: LiveMessage): Promise<void> {
    this.published++;
    const problem = this.problemOf(message);
    if (problem === undefined) return this.publish(topic, message);
    this.unsent[problem]++;
    this.options.log.error({ topic, event: message.event, problem }, "a live message was not sent");
  }

  recheck(topic: string): Promise<void> {
    return this.publish(topic, { event: recheckEvent, data: null });
  }

  async open({ topics, owner, lastEventId, record, isAllowed }: OpenOptions): Promise<LiveStream> {
    this.refuseWhenFull();
    if (topics.length > topicsMax || (record !== undefined && !topics.includes(record.topic))) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `A stream listens to ${topics.length} topics; limit ${topicsMax}. A record is of one of them.`,
      );
    }
    const { entry, stream } = this.enter({ topics, owner, record, isAllowed });
    try {
      for (const topic of new Set(topics)) {
        const leave = await this.topics.listen(topic, (message) => stream.receive(message));
        entry.leave.push(leave);
        // It may have been replaced meanwhile, and nobody would leave the topic any more.
        if (!this.streams.has(entry)) leave();
      }
      await stream.open(lastEventId);
      if (!this.streams.has(entry)) throw endedEarly();
    } catch (error) {
      stream.end("failed");
      stream.closed();
      throw error;
    }
    this.opened++;
    return stream;
  }

  tick(): void {
    const now = this.options.clock.monotonic();
    for (const entry of this.streams) {
      if (now >= entry.endsAt) {
        entry.stream.end("expired", { retryMs: this.jitter(1_000) });
        continue;
      }
      if (now >= entry.heartbeatAt) {
        entry.heartbeatAt = now + this.options.heartbeatMs;
        entry.stream.heartbeat(now, this.options.stalledMs);
      }
      if (now >= entry.resyncAt) {
        entry.resyncAt = Number.POSITIVE_INFINITY;
        entry.stream.resync();
      }
      if (now >= entry.checkAt) this.checks.add(entry);
    }
  }

  async drain(): Promise<void> {
    this.isDraining = true;
    clearInterval(this.timer);
    for (const { stream } of this.streams) stream.end("draining", { retryMs: this.jitter(2_000) });
    if (this.closing.size === 0) return;
    await new Promise<void>((resolve) => {
      const cut = setTimeout(() => {
        for (const stream of this.closing) stream.cut();
        resolve();
      }, this.options.drainMs);
      this.onAllClosed = () => {
        clearTimeout(cut);
        resolve();
      };
    });
  }

  stats(): LiveStats {
    const { opened, refused, published, delivered } = this;
    const now = { streams: this.streams.size, topics: this.topics.count() };
    return { ...now, opened, refused, published, delivered, unsent: { ...this.unsent }, ended: { ...this.ended } };
  }

  /** Messages were lost on their way here. Clients are told over two seconds, so that they do not all load at once. */
  private noteGap(topics: readonly string[]): void {
    const lost = new Set(topics);
    const now = this.options.clock.monotonic();
    for (const entry of this.streams) {
      if (![...entry.topics].some((topic) => lost.has(topic))) continue;
      entry.resyncAt = Math.min(entry.resyncAt, now + 2_000 * this.options.random.next());
    }
  }

  private refuseWhenFull(): void {
    const { streamsMax } = this.options;
    if (!this.isDraining && this.streams.size < streamsMax) return;
    this.refused++;
    throw this.isDraining
      ? new UnavailableError("SHUTTING_DOWN", "The process is stopping; no stream is opened.", { canRetry: true })
      : new UnavailableError("OVERLOADED", `${this.streams.size} live streams are open; limit ${streamsMax}.`, {
          canRetry: true,
        });
  }

  private enter({ topics, owner, record, isAllowed }: OpenOptions) {
    const { clock, random, lifeMs, heartbeatMs, checkMs, queueMessagesMax, queueBytesMax } = this.options;
    const now = clock.monotonic();
    const stream: ClientStream = new ClientStream({
      record,
      queueMessagesMax,
      queueBytesMax,
      retryMs: this.jitter(2_000),
      onEnd: (reason, error) => this.leave(entry, reason, error),
      onClosed: () => {
        this.closing.delete(stream);
        if (this.closing.size === 0) this.onAllClosed();
      },
      onMessage: () => this.delivered++,
      onRecheck: () => this.checks.add(entry),
    });
    const entry: OpenStream = {
      stream,
      owner,
      topics: new Set(topics),
      isAllowed,
      endsAt: now + lifeMs * (0.8 + 0.4 * random.next()),
      leave: [],
      heartbeatAt: now + heartbeatMs,
      resyncAt: Number.POSITIVE_INFINITY,
      checkAt: now + checkMs,
    };
    this.streams.add(entry);
    const own = this.owners.get(owner) ?? new Set();
    this.owners.set(owner, own.add(entry));
    const [oldest] = own;
    if (own.size > this.options.ownerStreamsMax) oldest?.stream.end("replaced", { retryMs: 60_000 });
    return { entry, stream };
  }

  private leave(entry: OpenStream, reason: EndReason, error: unknown): void {
    this.ended[reason]++;
    this.streams.delete(entry);
    this.checks.drop(entry);
    this.closing.add(entry.stream);
    const own = this.owners.get(entry.owner);
    own?.delete(entry);
    if (own?.size === 0) this.owners.delete(entry.owner);
    for (const leave of entry.leave) leave();
    if (error !== undefined) this.options.log.warn({ error, reason }, "a live stream ended");
  }

  /** Asks whether the session lives. A store that cannot answer ends no stream: an outage signs nobody out. */
  private async check(entry: OpenStream): Promise<void> {
    entry.checkAt = this.options.clock.monotonic() + this.options.checkMs;
    try {
      if ((await entry.isAllowed?.()) === false) entry.stream.end("revoked", { retryMs: 60_000 });
    } catch (error) {
      this.options.log.warn({ error }, "the session of a live stream could not be checked");
    }
  }

  private problemOf(message: LiveMessage): "invalid" | "tooLarge" | undefined {
    if (!isEventName(message.event)) return "invalid";
    try {
      const json = JSON.stringify(message.data) ?? "null";
      return Buffer.byteLength(json) > this.options.messageBytesMax ? "tooLarge" : undefined;
    } catch {
      return "invalid";
    }
  }

  private async publish(topic: string, message: LiveMessage): Promise<void> {
    const { fanOut, log, sendMs } = this.options;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), sendMs);
    });
    try {
      if ((await Promise.race([fanOut.publish(topic, message), late])) !== "late") return;
      this.unsent.late++;
      log.warn({ topic, event: message.event, sendMs }, "a live message was not handed on in time");
    } catch (error) {
      this.unsent.failed++;
      log.warn({ topic, event: message.event, error }, "a live message could not be handed on");
    } finally {
      clearTimeout(timer);
    }
  }

  /** `ms` to twice that, so that clients do not come back in step. */
  private jitter(ms: number): number {
    return ms * (1 + this.options.random.next());
  }
}

function endedEarly(): UnavailableError {
  const message = "The stream was ended while it opened: the process stops, or its owner opened too many.";
  return new UnavailableError("OVERLOADED", message, { canRetry: true });
}
