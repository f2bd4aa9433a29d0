/** The live tier's port: what reaches the open pages of users, in whichever process each page is connected. */

/** One message on its way to those who listen to a topic. */
export interface LiveMessage {
  /** Name of the event, e.g. "notification". */
  readonly event: string;
  /** Sent as JSON. */
  readonly data: unknown;
  /**
   * Position in the topic's own record, for resuming: a client that reconnects says the last it saw. Messages without one are
   * hints that a client which was away does not get again.
   */
  readonly id?: string;
}

/** Carries messages to the listeners of every process. Delivery is at most once and in order per sender and topic. */
export interface FanOut {
  /** Resolves once the message is handed on; nobody need be listening. Raises what the carrier raises. */
  publish(topic: string, message: LiveMessage): Promise<void>;
  /** Resolves once messages published from then on, by any process, reach the listener. Gives how to end it. */
  subscribe(topic: string, listener: (message: LiveMessage) => void): Promise<() => Promise<void>>;
  /**
   * Hears that messages of these topics may have been lost, once new ones arrive again; gives how to end it. A carrier without
   * it never loses one while it is up.
   */
  onGap?(listener: (topics: readonly string[]) => void): () => void;
  close(): Promise<void>;
}

/** What services send by. */
export interface LiveSender {
  /** Sends to all who listen to the topic now. Never raises: a lost hint must not fail the work it tells of. */
  send(topic: string, message: LiveMessage): Promise<void>;
}
