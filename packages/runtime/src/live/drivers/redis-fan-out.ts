/**
 * Fan-out through Redis: publish and subscribe, sharded in a Cluster. Nothing is stored: a process that is not connected at
 * that moment misses the message, and hears of that as a gap once it is connected again.
 */
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { Redis } from "../../redis/redis.ts";
import type { FanOut, LiveMessage } from "../live.ts";

/** Settings of {@link redisFanOut}. */
export interface RedisFanOutOptions {
  /** Not closed with the fan-out. */
  readonly redis: Redis;
  /** Before the topic in the channel's name; default "rungs:". */
  readonly prefix?: string;
  /** Hears of listeners that throw and of messages that cannot be read. */
  readonly log?: Logger;
}

/** Makes the fan-out. Its methods raise `REDIS_UNREACHABLE` when Redis cannot be reached. */
export function redisFanOut({ redis, prefix = "rungs:", log = silentLogger }: RedisFanOutOptions): FanOut {
  const channelOf = (topic: string) => `${prefix}live:${topic}`;
  const topicOf = (channel: string) => channel.slice(channelOf("").length);
  const leaves = new Set<() => Promise<void>>();
  const gapListeners = new Set<(topics: readonly string[]) => void>();
  const endGaps = redis.onGap((channels) => {
    const topics = channels.filter((channel) => channel.startsWith(channelOf(""))).map(topicOf);
    log.warn({ topics: topics.length }, "live messages may have been lost while Redis was not connected");
    for (const listener of gapListeners) listener(topics);
  });

  function receive(topic: string, text: string, listener: (message: LiveMessage) => void): void {
    try {
      listener(JSON.parse(text) as LiveMessage);
    } catch (error) {
      log.error({ topic, error }, "a listener failed");
    }
  }

  return {
    publish: (topic, { event, data, id }) =>
      redis.publish(
        channelOf(topic),
        JSON.stringify({ event, data: data ?? null, ...(id === undefined ? {} : { id }) }),
      ),

    async subscribe(topic, listener) {
      const leave = await redis.subscribe(channelOf(topic), (text) => receive(topic, text, listener));
      leaves.add(leave);
      return async () => {
        leaves.delete(leave);
        await leave();
      };
    },

    onGap(listener) {
      gapListeners.add(listener);
      return () => void gapListeners.delete(listener);
    },

    async close() {
      endGaps();
      await Promise.all([...leaves].map((leave) => leave()));
      leaves.clear();
    },
  };
}
