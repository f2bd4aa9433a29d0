/** What a process with handlers runs beside the job tables when there is a broker: the relays, and the broker as one more store. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../../kernel/clock.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { Broker, BrokerConsumer, Subscription } from "../broker.ts";
import { type BrokerStore, brokerStore } from "../broker-store.ts";
import { type NamedHandler, subscriptionOf } from "../handler.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";
import { postgresParking } from "./postgres-parking.ts";
import { type Relay, type RelayOptions, startRelay } from "./postgres-relay.ts";

/** Bounds of the relays; see {@link RelayOptions}. */
export type RelaySettings = Pick<RelayOptions, "pollMs" | "leaseMs" | "bytesMax">;

export interface BrokeredOptions<C> {
  readonly broker: Broker;
  readonly shards: readonly SqlDatabase[];
  /** Of all handlers of the app: the relay makes sure that each gets its copy. */
  readonly subscriptions: readonly Subscription[];
  /** Those that run here; none: nothing is taken out. */
  readonly own: readonly NamedHandler<C>[];
  /** Names of handlers that begin paused. */
  readonly paused: readonly string[];
  readonly relay?: RelaySettings;
  /** Name of the database that the shards are of; default: the app's own. */
  readonly database?: string;
  /** There may be something to claim from the store of that name. */
  readonly wake: (storeName: string) => void;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

/** At work. */
export interface Brokered {
  readonly store: BrokerStore;
  readonly relays: readonly Relay[];
  /** Something was published on the shard of that name. */
  committed(shardName: string): void;
  /** Takes nothing out for these handlers, and for all others again. */
  pauseOnly(handlers: readonly string[]): void;
  /** To be called once nothing that was begun is left. */
  stop(): Promise<void>;
}

/**
 * Unsettled deliveries of a handler here: enough that none waits for the network, and that a key with a long queue is parked in large
 * bites. More costs nothing but memory, because a sequence is delivered to one process only.
 */
const roomOf = (concurrency: number) => Math.max(200, concurrency * 4);
const consumeRetryMs = 1_000;
const idleEveryMs = 50;
const parkedWithinMs = 3_000;

/** Starts at once and raises nothing: a broker that is not there is tried again, and what is published meanwhile waits. */
export function startBrokered<C>(options: BrokeredOptions<C>): Brokered {
  const { broker, shards, subscriptions, own, paused, database: name, wake, log, clock, random } = options;
  const origin = name === undefined ? {} : { database: name };
  const store = brokerStore({
    name: broker.name,
    parking: postgresParking(shards),
    // What another database published waits on the first shard here, the one that is there in any case.
    placeOf: (message) => (message.database === name ? message.shard : 0),
    clock,
    onReady: () => wake(broker.name),
    onParked: (shard) => wake((shards[shard] as SqlDatabase).name),
  });
  const relays = shards.map((database, number) =>
    startRelay({ shard: { number, database }, ...origin, broker, subscriptions, clock, random, log, ...options.relay }),
  );
  const ofOwn = own.map(withRoom);
  // Each alone, where each can be put back in time alone.
  const consumed = broker.replay === undefined ? [ofOwn] : ofOwn.map((each) => [each]);
  const consuming = consumed.map((each) => keepConsuming({ broker, subscriptions: each, store, paused, log }));
  return {
    store,
    relays,
    committed(shardName) {
      shards.forEach(({ name }, number) => {
        if (name === shardName) relays[number]?.wake();
      });
    },
    pauseOnly(handlers) {
      for (const each of consuming) each.pauseOnly(handlers);
    },
    async stop() {
      await store.whenParked(parkedWithinMs);
      await Promise.all(consuming.map((each) => each.stop()));
      await Promise.all(relays.map((relay) => relay.stop()));
    },
  };
}

interface Consumption {
  pauseOnly(handlers: readonly string[]): void;
  stop(): Promise<void>;
}

type WithRoom = Subscription & { readonly room: number };

function withRoom<C>(handler: NamedHandler<C>): WithRoom {
  return { ...subscriptionOf(handler), room: roomOf(handler.options.concurrency) };
}

/**
 * Consumes from when the broker is there; a consumer comes back by itself after that. A paused handler keeps its place among the
 * consumers, except where it alone could be put back in time: it gives that up, once what began has ended, because nobody may be at
 * work on it then.
 */
function keepConsuming(options: {
  readonly broker: Broker;
  readonly subscriptions: readonly WithRoom[];
  readonly store: BrokerStore;
  readonly paused: readonly string[];
  readonly log: Logger;
}): Consumption {
  const { broker, subscriptions, store, log } = options;
  const ended = new AbortController();
  let paused = options.paused;
  let consumer: BrokerConsumer | undefined;
  let isTold = false;
  const isWanted = () => broker.replay === undefined || subscriptions.some(({ handler }) => !paused.includes(handler));
  const steer = () => {
    for (const { handler } of subscriptions) {
      if (paused.includes(handler)) consumer?.pause(handler);
      else consumer?.resume(handler);
    }
  };
  const begin = async () => {
    try {
      await broker.declare(subscriptions);
      consumer = await broker.consume({ subscriptions, deliver: (delivery) => store.deliver(delivery) });
      steer();
      if (isTold) log.info({ broker: broker.name }, "the broker answers: its messages are handled");
      isTold = false;
    } catch (error) {
      if (!isTold) log.warn({ broker: broker.name, error }, "no messages from the broker yet; trying again");
      isTold = true;
      await pause(consumeRetryMs, ended.signal);
    }
  };
  const end = async () => {
    if (subscriptions.some(({ handler }) => store.isAtWork(handler))) return pause(idleEveryMs, ended.signal);
    const closing = consumer;
    consumer = undefined;
    await closing?.close();
  };
  const work = async () => {
    while (!ended.signal.aborted && isWanted() !== (consumer !== undefined)) await (isWanted() ? begin() : end());
  };
  let working: Promise<void> | undefined;
  const workSoon = () => {
    if (subscriptions.length === 0 || ended.signal.aborted) return;
    working ??= work().finally(() => {
      working = undefined;
      if (isWanted() !== (consumer !== undefined)) workSoon();
    });
  };
  workSoon();
  return {
    pauseOnly(handlers) {
      paused = handlers;
      steer();
      workSoon();
    },
    async stop() {
      ended.abort();
      await working;
      await consumer?.close();
    },
  };
}

/** Ends early at a stop. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}
