/**
 * What happened, as data: the words that the database tier (which writes messages) and the queue tier (which delivers them)
 * share without knowing each other.
 */

/** A kind of message: its name and the check of its payload. Made by `defineEvent` of the queue tier. */
export interface EventType<P> {
  /** For example "article.published"; part of stored messages, so never reused for something else. */
  readonly name: string;
  /** Of the payload's schema: 1 until it was changed in a way that older payloads do not fit. Stored with each message. */
  readonly version: number;
  /** Gives the payload as stored. Raises `EVENT_INVALID` when it does not fit the event's schema. */
  check(payload: P): P;
}

/** Which of several waiting messages of one handler goes first. */
export type MessagePriority = "high" | "normal" | "low";

/** How one message is delivered. */
export interface PublishOptions {
  /** Messages of one key reach each handler in the order of their transactions. Default: no order. */
  readonly key?: string;
  /** Delivered no sooner than this after publishing; with a key, it takes its place in the order when due. Default 0. */
  readonly delayMs?: number;
  /** Default "normal". Within a key the order of the key rules. */
  readonly priority?: MessagePriority;
}

/** A message about to be written with a transaction. */
export interface Publication {
  readonly event: string;
  /** The event's. */
  readonly version: number;
  readonly payload: unknown;
  readonly options: PublishOptions;
}

/** Makes a message for a one-statement write; inside a transaction use its `publish`. Raises `EVENT_INVALID`. */
export function publication<P>(event: EventType<P>, payload: P, options: PublishOptions = {}): Publication {
  return { event: event.name, version: event.version, payload: event.check(payload), options };
}
