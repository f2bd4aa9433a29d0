/** Messages as RabbitMQ carries them: the payload is the body, as JSON; everything else is in properties. */
import type { BrokerMessage } from "../broker.ts";
import { whereAndWhen } from "../where-and-when.ts";
import type { AmqpEnvelope, AmqpMessage } from "./rabbitmq-client.ts";

/** What goes into the exchange. Persistent, and refused when no queue takes it. */
export function encodeMessage(
  message: BrokerMessage,
  to: { readonly exchange: string; readonly routingKey: string },
): { readonly envelope: AmqpEnvelope; readonly body: Buffer } {
  const { id, event, version, key, payload, publishedAt, shard, database, dueAt, priority } = message;
  const headers = {
    ...{ version, shard, publishedAt: publishedAt.getTime() },
    ...(key === null ? {} : { key }),
    ...(database === undefined ? {} : { database }),
    ...(dueAt === undefined ? {} : { dueAt: dueAt.getTime() }),
    ...(priority === undefined ? {} : { priority }),
  };
  return {
    envelope: {
      ...to,
      mandatory: true,
      durable: true,
      messageId: id,
      type: event,
      contentType: "application/json",
      headers,
    },
    body: Buffer.from(JSON.stringify(payload ?? null)),
  };
}

/** The message; undefined when it is not one of ours or was damaged. */
export function decodeMessage({ messageId, type, headers, body }: AmqpMessage): BrokerMessage | undefined {
  const { version, shard, publishedAt, key = null } = headers ?? {};
  if (typeof messageId !== "string" || typeof type !== "string" || Buffer.isBuffer(body)) return undefined;
  if (typeof version !== "number" || typeof shard !== "number" || typeof publishedAt !== "number") return undefined;
  if (key !== null && typeof key !== "string") return undefined;
  const message = {
    id: messageId,
    event: type,
    version,
    key,
    payload: body,
    publishedAt: new Date(publishedAt),
    shard,
  };
  return { ...message, ...whereAndWhen(headers ?? {}) };
}
