/** Writes messages in the publisher's transaction: one row a handler that waits for the event. */
import type { MessagePriority, Publication } from "../../kernel/event.ts";

/**
 * Writes jobs from eight arrays. The order by makes sequences follow the order of publishing; a delayed message with a key
 * starts in state 2. Only where the condition holds.
 */
export const insertSql = (condition: string) => `
  insert into rungs_jobs (job_id, handler, event, key, payload, priority, state, run_at, published_at, version)
  select m.job_id, m.handler, m.event, m.key, m.payload, m.priority,
    case when m.key is not null and m.delay_ms > 0 then 2 else 0 end,
    clock_timestamp() + m.delay_ms * interval '1 ms', clock_timestamp(), m.version
  from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::json[], $6::int2[], $7::float8[], $8::int2[])
    with ordinality m(job_id, handler, event, key, payload, priority, delay_ms, version, position)
  where ${condition} order by m.position`;

/** Priorities as stored: lower goes first. */
export const priorities: readonly MessagePriority[] = ["high", "normal", "low"];

/**
 * The eight arrays that store the messages for their handlers; undefined when nobody handles any of them.
 * `handlersOf` names an event's handlers, `newId` makes a message's id.
 */
export function jobValues(
  publications: readonly Publication[],
  handlersOf: (event: string) => readonly string[],
  newId: () => string,
): unknown[] | undefined {
  const jobs = publications.flatMap(({ event, version, payload, options }) => {
    const message = { id: newId(), event, version, text: JSON.stringify(payload), ...options };
    return handlersOf(event).map((handler) => ({ ...message, handler }));
  });
  if (jobs.length === 0) return undefined;
  return [
    jobs.map(({ id }) => id),
    jobs.map(({ handler }) => handler),
    jobs.map(({ event }) => event),
    jobs.map(({ key }) => key ?? null),
    jobs.map(({ text }) => text),
    jobs.map(({ priority = "normal" }) => priorities.indexOf(priority)),
    jobs.map(({ delayMs = 0 }) => Math.max(0, delayMs)),
    jobs.map(({ version }) => version),
  ];
}
