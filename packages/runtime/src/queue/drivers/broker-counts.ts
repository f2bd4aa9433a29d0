/** What waits outside of the job tables: in the outboxes, and in the broker. */
import type { Broker } from "../broker.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";
import { declaredHandlers } from "./postgres-pauses.ts";

/** How much of a handler waits in one of those places. */
export interface WaitingElsewhere {
  readonly handler: string;
  readonly count: number;
  /** Of the oldest, in ms; undefined where that cannot be known. */
  readonly age: number | undefined;
}

interface Places {
  readonly shards: readonly SqlDatabase[];
  readonly home: SqlDatabase;
  readonly broker: Broker;
  /** What a place answers, or the other value where it may be passed over. */
  reached<R>(place: { readonly name: string }, ask: () => Promise<R>, otherwise: R): Promise<R>;
}

const outboxSql = `
  select h.handler, count(*)::int as count, (extract(epoch from clock_timestamp() - min(o.published_at)) * 1000)::float8 as age
  from rungs_outbox o join rungs_events e on e.name = o.event cross join unnest(e.handlers) h(handler)
  group by h.handler`;

/**
 * Asks all, along the way of a message, so that none on its way from one place to the next is missed; the job tables come last. The
 * broker counts what is being handled, too: it cannot tell. Raises what they raise.
 */
export async function waitingElsewhere({ shards, home, broker, reached }: Places): Promise<WaitingElsewhere[]> {
  const outboxes = await Promise.all(
    shards.map((shard) => reached(shard, () => shard.query<WaitingElsewhere>(undefined, outboxSql, []), [])),
  );
  const subscriptions = await declaredHandlers(home);
  const backlog = await reached(broker, () => broker.backlog(subscriptions), []);
  return [
    ...outboxes.flat(),
    ...backlog.map(({ handler, messages }) => ({ handler, count: messages, age: undefined })),
  ].filter(({ count }) => count > 0);
}
