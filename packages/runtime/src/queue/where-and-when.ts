/** What a broker's message says, beside the rest, about whose database it is from and when it may be handled. */
import type { MessagePriority } from "../kernel/event.ts";
import type { BrokerMessage } from "./broker.ts";

/** Reads it from what was stored, times in ms since the Unix epoch; what is missing or cannot be read is left out. */
export function whereAndWhen(stored: {
  readonly [name: string]: unknown;
}): Pick<BrokerMessage, "database" | "dueAt" | "priority"> {
  const { database, dueAt, priority } = stored;
  return {
    ...(typeof database === "string" ? { database } : {}),
    ...(typeof dueAt === "number" ? { dueAt: new Date(dueAt) } : {}),
    ...(isPriority(priority) ? { priority } : {}),
  };
}

function isPriority(value: unknown): value is MessagePriority {
  return value === "high" || value === "normal" || value === "low";
}
