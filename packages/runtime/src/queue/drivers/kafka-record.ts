/** Messages as records of a topic: the key as text, everything else as JSON in the value. */
import type { BrokerMessage } from "../broker.ts";
import { whereAndWhen } from "../where-and-when.ts";

interface Stored {
  readonly id: string;
  readonly version: number;
  readonly payload: unknown;
  readonly publishedAt: string;
  readonly shard: number;
  readonly database?: string;
  readonly dueAt?: number;
  readonly priority?: string;
}

/** The record of a message, without its place. */
export function recordOf(message: BrokerMessage): { readonly key?: Uint8Array; readonly value: Uint8Array } {
  const { id, version, key, payload, publishedAt, shard, database, dueAt, priority } = message;
  const stored: Stored = {
    ...{ id, version, payload, publishedAt: publishedAt.toISOString(), shard },
    ...(database === undefined ? {} : { database }),
    ...(dueAt === undefined ? {} : { dueAt: dueAt.getTime() }),
    ...(priority === undefined ? {} : { priority }),
  };
  const value = Buffer.from(JSON.stringify(stored));
  return key === null ? { value } : { key: Buffer.from(key), value };
}

/** The message of a record. Raises an `Error` for what none of ours wrote; it never holds any of it. */
export function messageOf(
  event: string,
  record: { readonly key: Uint8Array | null; readonly value: Uint8Array | null },
): BrokerMessage {
  const stored = parsed(record.value);
  if (
    typeof stored.id !== "string" ||
    typeof stored.version !== "number" ||
    typeof stored.publishedAt !== "string" ||
    typeof stored.shard !== "number"
  ) {
    throw new Error("it lacks id, version, publishedAt or shard");
  }
  return {
    id: stored.id,
    event,
    version: stored.version,
    key: record.key === null || record.key === undefined ? null : Buffer.from(record.key).toString(),
    payload: stored.payload,
    publishedAt: new Date(stored.publishedAt),
    shard: stored.shard,
    ...whereAndWhen(stored),
  };
}

function parsed(value: Uint8Array | null): Partial<Stored> {
  if (value === null || value === undefined) throw new Error("it has no value");
  let content: unknown;
  try {
    content = JSON.parse(Buffer.from(value).toString());
  } catch {
    throw new Error("its value is not JSON");
  }
  if (typeof content !== "object" || content === null) throw new Error("its value is no JSON object");
  return content as Partial<Stored>;
}
