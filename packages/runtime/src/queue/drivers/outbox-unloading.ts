/**
 * The way back from a broker: without one, what is left in the outboxes goes into the job tables, in the order of its keys.
 *
 * The relay does it, with the job table in the broker's place. So it is safe beside processes that still have the broker, and after a
 * crash: what comes twice is stored once, and steps that a broker's delivery made are not made again. What the broker itself still
 * holds stays there; let handlers drain it before it is taken away.
 */
import type { Clock } from "../../kernel/clock.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { BrokerMessage, Subscription } from "../broker.ts";
import type { RelayBroker } from "../relay-publisher.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";
import { postgresParking } from "./postgres-parking.ts";
import { type Relay, startRelay } from "./postgres-relay.ts";

export interface UnloadingOptions {
  /** By number, each with the tables of `queueMigrations`. */
  readonly shards: readonly SqlDatabase[];
  /** All handlers of the app. Messages of events that none of them handles stay where they are, and the log says so. */
  readonly subscriptions: readonly Subscription[];
  /** Jobs were stored on the shard of that name. */
  readonly stored: (shardName: string) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Processes that still have the broker may go on publishing for a while, and nobody is in a hurry. */
const pollMs = 200;

/** Begins where something is left: one question a shard. Raises what the databases raise. Gives how to stop. */
export async function unloadOutboxes(options: UnloadingOptions): Promise<() => Promise<void>> {
  const { shards, subscriptions, stored, clock, random, log } = options;
  const relays: Relay[] = [];
  for (const [number, database] of shards.entries()) {
    const sql = "select exists (select from rungs_outbox) as is_left";
    const [row] = await database.query<{ is_left: boolean }>(undefined, sql, []);
    if (row?.is_left !== true) continue;
    log.warn({ shard: database.name }, "messages were left for a broker that is gone: they become jobs");
    const broker = jobTableOf(shards, subscriptions, () => stored(database.name));
    relays.push(startRelay({ shard: { number, database }, broker, subscriptions, pollMs, clock, random, log }));
  }
  return async () => {
    await Promise.all(relays.map((relay) => relay.stop()));
  };
}

function jobTableOf(
  shards: readonly SqlDatabase[],
  subscriptions: readonly Subscription[],
  stored: () => void,
): RelayBroker {
  const parking = postgresParking(shards);
  const untried = { attempts: 0, delayMs: 0, error: null, isDead: false };
  const handlersOf = ({ event }: BrokerMessage) =>
    subscriptions.filter((subscription) => subscription.event === event).map(({ handler }) => handler);
  return {
    name: "the job table",
    async declare() {},
    async publish(messages) {
      const unhandled = messages.find((message) => handlersOf(message).length === 0);
      if (unhandled !== undefined) {
        const message = `No handler of this app handles "${unhandled.event}".`;
        throw new UnavailableError("BROKER_UNROUTABLE", message, { canRetry: true });
      }
      const jobs = messages.flatMap((message) =>
        handlersOf(message).map((handler) => ({ message, handler, ...untried })),
      );
      const [first] = messages;
      if (first === undefined) return;
      await parking.park(first.shard, jobs);
      stored();
    },
  };
}
