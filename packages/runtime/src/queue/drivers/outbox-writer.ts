/**
 * Writes messages in the publisher's transaction where there is a broker: one row a message in the outbox. What the broker does not
 * carry goes to the job table, one row a handler, as without a broker: delayed messages, and those of another priority that have
 * no key. With a key the order of the key rules, so they go with the others of it.
 */
import type { Publication } from "../../kernel/event.ts";
import { priorities } from "./job-writer.ts";

export interface OutboxWriterOptions {
  /** Names of the handlers of an event; messages that have none are not stored. */
  handlersOf(event: string): readonly string[];
  /** Makes a message's id, a UUID. */
  newId(): string;
}

/** The part of the database tier's `MessageWriter` that knows SQL. */
export interface OutboxWriter {
  /** The values of the messages for {@link OutboxWriter.insertSql}; undefined when nobody handles them. */
  values(publications: readonly Publication[]): readonly unknown[] | undefined;
  /** Stores them where the condition holds. Raises SQLSTATE RQ001 when the outbox is full. */
  insertSql(condition: string): string;
}

/** Makes the writer. */
export function outboxWriter({ handlersOf, newId }: OutboxWriterOptions): OutboxWriter {
  return {
    values(publications) {
      const messages = publications
        .map((message) => ({ ...message, handlers: handlersOf(message.event) }))
        .filter(({ handlers }) => handlers.length > 0)
        .map((message) => ({ ...message, id: newId() }));
      if (messages.length === 0) return undefined;
      const atOnce = messages.filter(isForBroker);
      const jobs = messages
        .filter((message) => !isForBroker(message))
        .flatMap(({ id, event, version, payload, options: { key, priority = "normal", delayMs = 0 }, handlers }) => {
          const job = { id, event, version, payload, key: key ?? null, delay_ms: Math.max(0, delayMs) };
          return handlers.map((handler) => ({ ...job, handler, priority: priorities.indexOf(priority) }));
        });
      return [
        atOnce.map(({ id }) => id),
        atOnce.map(({ event }) => event),
        atOnce.map(({ version }) => version),
        atOnce.map(({ options: { key } }) => key ?? null),
        atOnce.map(({ payload }) => JSON.stringify(payload)),
        jobs.length === 0 ? null : JSON.stringify(jobs),
      ];
    },
    insertSql,
  };
}

/**
 * One statement, because it may stand in a WITH clause. The first condition has no columns in it, so PostgreSQL judges it once and
 * before it reads any row, also when there are only jobs to write; a subquery in CASE is run only where it is come to.
 */
const insertSql = (condition: string) => `
  insert into rungs_outbox (message_id, event, version, key, payload, published_at)
  select m.message_id, m.event, m.version, m.key, m.payload, clock_timestamp()
  from unnest($1::uuid[], $2::text[], $3::int2[], $4::text[], $5::json[])
    with ordinality m(message_id, event, version, key, payload, position)
  where case when ${condition} then (select rungs_publish_jobs($6::json)) is not false else false end
    and case when (select is_outbox_full from rungs_queue) then rungs_refuse_publishing() else true end
  order by m.position`;

function isForBroker({ options: { key, priority = "normal", delayMs = 0 } }: Publication): boolean {
  return delayMs <= 0 && (priority === "normal" || key !== undefined);
}
