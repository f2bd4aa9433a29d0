/**
 * The way back from a broker: without one, what is left in the outboxes goes into the job tables, in the order of its keys.
 *
 * The relay does it, with the job table in the broker's place. So it is safe beside processes that still have the broker, and after a
 * crash: what comes twice is stored once, and steps that a broker's delivery made are not made again. What the broker itself still
 * holds stays there; let handlers drain it before it is taken away.
 */
import { setTimeout as sleep } from "node:timers/promises";
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
const askAgainMs = 2_000;

/** Begins on each shard once it is there, where something is left: one question a shard. Raises nothing. Gives how to stop. */
export function unloadOutboxes(options: UnloadingOptions): () => Promise<void> {
  const ended = new AbortController();
  const begun = options.shards.map((_, number) => unload(options, number, ended.signal));
  return async () => {
    ended.abort();
    const relays = await Promise.all(begun);
    await Promise.all(relays.map((relay) => relay?.stop()));
  };
}

async function unload(options: UnloadingOptions, number: number, signal: AbortSignal): Promise<Relay | undefined> {
  const { shards, subscriptions, stored, clock, random, log } = options;
  const database = shards[number] as SqlDatabase;
  const sql = "select exists (select from rungs_outbox) as is_left";
  while (!signal.aborted) {
    try {
      const [row] = await database.query<{ is_left: boolean }>(undefined, sql, []);
      if (row?.is_left !== true || signal.aborted) return undefined;
      log.warn({ shard: database.name }, "messages were left for a broker that is gone: they become jobs");
      const broker = jobTableOf(shards, subscriptions, () => stored(database.name));
      return startRelay({ shard: { number, database }, broker, subscriptions, pollMs, clock, random, log });
    } catch {
      // A shard that is down is asked again; that it is down, others say.
      await sleep(askAgainMs, undefined, { signal, ref: false }).catch(() => {});
    }
  }
  return undefined;
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
