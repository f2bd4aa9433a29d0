/**
 * Writes messages in the publisher's transaction where there is a broker: one row a message in the outbox. What the broker does not
 * carry goes to the job table, one row a handler, as without a broker: delayed messages, and those of another priority that have
 * no key. With a key the order of the key rules, so they go with the others of it.
 *
 * An event that has a handler in another database goes by the broker in any case, with when it is due and its priority: whoever handles
 * it keeps it until then.
 */
import type { Publication } from "../../kernel/event.ts";
import { priorities } from "./job-writer.ts";

export interface OutboxWriterOptions {
  /** Names of the handlers of an event; messages that have none are not stored. */
  handlersOf(event: string): readonly string[];
  /** Makes a message's id, a UUID. */
  newId(): string;
  /** Whether the handler of that name is in another database; default: none is. */
  isElsewhere?(handler: string): boolean;
}

/** The part of the database tier's `MessageWriter` that knows SQL. */
export interface OutboxWriter {
  /** The values of the messages for {@link OutboxWriter.insertSql}; undefined when nobody handles them. */
  values(publications: readonly Publication[]): readonly unknown[] | undefined;
  /** Stores them where the condition holds. Raises SQLSTATE RQ001 when the outbox is full. */
  insertSql(condition: string): string;
}

/** Makes the writer. */
export function outboxWriter({ handlersOf, newId, isElsewhere = () => false }: OutboxWriterOptions): OutboxWriter {
  const isForBroker = (message: Publication & { readonly handlers: readonly string[] }) =>
    isDueAtOnce(message) || message.handlers.some(isElsewhere);
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
        atOnce.map(({ options: { priority = "normal" } }) => priorities.indexOf(priority)),
        atOnce.map(({ options: { delayMs = 0 } }) => (delayMs > 0 ? delayMs : null)),
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
  insert into rungs_outbox (message_id, event, version, key, payload, published_at, priority, due_at)
  select m.message_id, m.event, m.version, m.key, m.payload, clock_timestamp(), m.priority,
    clock_timestamp() + m.delay_ms * interval '1 ms'
  from unnest($1::uuid[], $2::text[], $3::int2[], $4::text[], $5::json[], $6::int2[], $7::float8[])
    with ordinality m(message_id, event, version, key, payload, priority, delay_ms, position)
  where case when ${condition} then (select rungs_publish_jobs($8::json)) is not false else false end
    and case when (select is_outbox_full from rungs_queue) then rungs_refuse_publishing() else true end
  order by m.position`;

function isDueAtOnce({ options: { key, priority = "normal", delayMs = 0 } }: Publication): boolean {
  return delayMs <= 0 && (priority === "normal" || key !== undefined);
}
