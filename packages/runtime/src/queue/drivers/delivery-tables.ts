/**
 * What a message has to carry when its handlers are in another database: when it is due and its priority, because it waits where it is
 * handled and not where it was published. Beside the functions of `outbox-tables.ts`, which processes of older apps call:
 *
 *   rungs_relay_next(...) is rungs_relay_take(...) with `priority` and `due_ms`, null for at once.
 *   rungs_park(..., priorities int2[], due_ms float8[]) takes them in. What has a key and is not due yet is in state 2, as at publishing:
 *       it does not hold up its key, and takes its place when due.
 */
import { take } from "./outbox-tables.ts";

export const deliveryTables =
  "alter table rungs_outbox add priority smallint not null default 1, add due_at timestamptz;";

const park = `
  create function rungs_park(
    message_ids uuid[], handlers text[], events text[], versions int2[], keys text[], payloads json[], published_ms float8[],
    attempts int4[], delays_ms float8[], errors text[], are_dead boolean[], priorities int2[], due_ms float8[]
  ) returns void language plpgsql as $body$
  begin
    insert into rungs_jobs
        (job_id, handler, event, version, key, payload, priority, state, run_at, published_at, attempts, error, via_broker)
      select m.id, m.handler, m.event, m.version, m.key, m.payload, m.priority,
        case when m.key is not null and to_timestamp(m.due_ms / 1000) > clock_timestamp() then 2 else 0 end,
        greatest(clock_timestamp() + m.delay_ms * interval '1 ms', to_timestamp(m.due_ms / 1000)),
        to_timestamp(m.published_ms / 1000), m.attempts, m.error, true
      from unnest(message_ids, handlers, events, versions, keys, payloads, published_ms, attempts, delays_ms, errors, are_dead,
          priorities, due_ms)
        with ordinality m(id, handler, event, version, key, payload, published_ms, attempts, delay_ms, error, is_dead,
          priority, due_ms, position)
      where not m.is_dead order by m.position
      on conflict (handler, job_id) where via_broker do nothing;
    insert into rungs_dead_jobs
        (job_id, handler, event, version, key, payload, priority, published_at, attempts, steps, error, via_broker)
      select m.id, m.handler, m.event, m.version, m.key, m.payload, m.priority,
        to_timestamp(m.published_ms / 1000), m.attempts, '{}', m.error, true
      from unnest(message_ids, handlers, events, versions, keys, payloads, published_ms, attempts, errors, are_dead, priorities)
        m(id, handler, event, version, key, payload, published_ms, attempts, error, is_dead, priority)
      where m.is_dead
      on conflict (handler, job_id) do nothing;
  end $body$;`;

export const deliveryFunctions = (planSettings: string) => {
  const columns = ", priority smallint, due_ms float8";
  const values = ", w.priority, extract(epoch from w.due_at)::float8 * 1000";
  return [park, take(planSettings, "rungs_relay_next", { columns, values })].join("\n");
};

/** Undoes {@link deliveryTables} and {@link deliveryFunctions}: what waits in the outbox is due at once. */
export const dropDelivery = `
  drop function rungs_relay_next;
  drop function rungs_park(uuid[], text[], text[], int2[], text[], json[], float8[], int4[], float8[], text[], boolean[], int2[], float8[]);
  alter table rungs_outbox drop priority, drop due_at;`;
