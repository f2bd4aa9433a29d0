/** Subscriptions of a process: one a topic, shared by all its listeners, and each message made into text once. */
import type { Logger } from "../kernel/log.ts";
import { eventText } from "./event-stream.ts";
import type { FanOut, LiveMessage } from "./live.ts";

/** A message as listeners get it. */
export interface TopicMessage {
  readonly topic: string;
  readonly event: string;
  readonly id: string | undefined;
  /** The event as text, without its id. */
  readonly text: string;
}

/** Hears the messages of topics. */
export type TopicListener = (message: TopicMessage) => void;

export interface SharedTopics {
  /** Resolves once messages sent from then on arrive. Raises what the fan-out raises; nothing is then left subscribed. */
  listen(topic: string, listener: TopicListener): Promise<() => void>;
  /** Topics with at least one listener. */
  count(): number;
}

interface Subscription {
  readonly listeners: Set<TopicListener>;
  readonly ready: Promise<() => Promise<void>>;
}

export function sharedTopics({ fanOut, log }: { readonly fanOut: FanOut; readonly log: Logger }): SharedTopics {
  const subscriptions = new Map<string, Subscription>();

  function subscribe(topic: string): Subscription {
    const listeners = new Set<TopicListener>();
    const receive = ({ event, data, id }: LiveMessage) => {
      const message = { topic, event, id, text: eventText(event, JSON.stringify(data) ?? "null") };
      for (const listener of listeners) listener(message);
    };
    const subscription = { listeners, ready: fanOut.subscribe(topic, receive) };
    subscriptions.set(topic, subscription);
    return subscription;
  }

  function leave(topic: string, subscription: Subscription, listener: TopicListener): void {
    const { listeners, ready } = subscription;
    if (!listeners.delete(listener) || listeners.size > 0) return;
    // Whoever comes next makes a subscription of their own, while this one is being ended.
    if (subscriptions.get(topic) === subscription) subscriptions.delete(topic);
    ready
      .then((unsubscribe) => unsubscribe())
      .catch((error: unknown) => log.warn({ topic, error }, "a topic could not be left"));
  }

  return {
    async listen(topic, listener) {
      const subscription = subscriptions.get(topic) ?? subscribe(topic);
      subscription.listeners.add(listener);
      try {
        await subscription.ready;
      } catch (error) {
        if (subscriptions.get(topic) === subscription) subscriptions.delete(topic);
        throw error;
      }
      return () => leave(topic, subscription, listener);
    },
    count: () => subscriptions.size,
  };
}
