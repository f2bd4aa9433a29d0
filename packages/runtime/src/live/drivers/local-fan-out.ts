/** Fan-out within one process: all that rung 1 needs. */
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { FanOut, LiveMessage } from "../live.ts";

/** Makes a fan-out for the streams of this process. `log` hears of listeners that throw. */
export function localFanOut({ log = silentLogger }: { readonly log?: Logger } = {}): FanOut {
  const topics = new Map<string, Set<(message: LiveMessage) => void>>();
  return {
    async publish(topic, message) {
      const listeners = topics.get(topic);
      if (listeners === undefined) return;
      // As any other carrier would bring it: what JSON does not keep is lost here too, and later changes stay with the sender.
      const carried: LiveMessage = JSON.parse(JSON.stringify({ ...message, data: message.data ?? null }));
      for (const listener of listeners) {
        try {
          listener(carried);
        } catch (error) {
          log.error({ topic, error }, "a listener failed");
        }
      }
    },

    async subscribe(topic, listener) {
      // Its own function, so that one listener may subscribe twice.
      const own = (message: LiveMessage) => listener(message);
      const listeners = topics.get(topic) ?? new Set();
      topics.set(topic, listeners.add(own));
      return async () => {
        listeners.delete(own);
        if (listeners.size === 0 && topics.get(topic) === listeners) topics.delete(topic);
      };
    },

    async close() {
      topics.clear();
    },
  };
}
