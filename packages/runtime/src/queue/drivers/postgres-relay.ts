/** The relay of a shard in PostgreSQL: joins the policy of `relay.ts` to the shard's outbox. */
import { type OutboxRelayOptions, type Relay, relayOutbox } from "../relay.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";
import { postgresOutbox } from "./postgres-outbox.ts";

export type { Relay, RelayStats } from "../relay.ts";

/** Bounds and intervals as in {@link OutboxRelayOptions}. */
export interface RelayOptions extends Omit<OutboxRelayOptions, "shard" | "outbox"> {
  /** The shard's number, which its messages carry, and its database with the tables of `queueMigrations`. */
  readonly shard: { readonly number: number; readonly database: SqlDatabase };
}

/** Starts at once and raises nothing; see {@link relayOutbox}. */
export function startRelay({ shard, ...options }: RelayOptions): Relay {
  return relayOutbox({ ...options, shard: shard.number, outbox: postgresOutbox(shard.database) });
}
