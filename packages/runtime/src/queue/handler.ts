/** Handlers: what a service does when something happened. */
import type { Subscription } from "./broker.ts";
import type { Event } from "./event.ts";

/** The part of a shard that a delivery needs to make effects happen once. */
export interface EffectShard<X> {
  transaction<R>(work: (tx: X) => Promise<R>): Promise<R>;
}

/** One message on its way into one handler. */
export interface Delivery<P> {
  /** The message's id, the same at every attempt: the idempotency key for calls to the world outside. */
  readonly id: string;
  readonly payload: P;
  /** 1 at the first try. */
  readonly attempt: number;
  readonly publishedAt: Date;
  /** Aborted when the time limit has passed or the process must end; pass it on to everything that waits. */
  readonly signal: AbortSignal;
  /**
   * Runs `work` in a transaction on that shard unless this message already committed it: its effects happen exactly once,
   * however often the message is delivered. Gives undefined when it had been done before. Name the step when a handler
   * has several on one shard. Raises `LEASE_LOST` when the message went to another worker meanwhile; let it pass.
   */
  once<X, R>(shard: EffectShard<X>, work: (tx: X) => Promise<R>, step?: string): Promise<R | undefined>;
  /** Ends the tries for good: the message goes to the dead letters with this reason. Never returns. */
  giveUp(reason: string): never;
}

/** How one handler is run. */
export interface HandlerOptions {
  /** Messages handled at the same time in one process; default 10. */
  readonly concurrency?: number;
  /** Tries before the message becomes a dead letter; default 20, about two hours with the default waits. */
  readonly attemptsMax?: number;
  /** Longest time of one try; default 30,000 ms. */
  readonly timeLimitMs?: number;
  /** Waits between tries double from `firstMs` (default 1,000) up to `maxMs` (default 600,000), each with jitter. */
  readonly backoff?: { readonly firstMs?: number; readonly maxMs?: number };
}

/** A handler of one event, not yet named. `C`: what the app gives its handlers beside the message. */
export interface Handler<C> {
  readonly event: Event<unknown>;
  readonly run: (delivery: Delivery<unknown>, context: C) => Promise<void>;
  readonly options: Required<Omit<HandlerOptions, "backoff">> & {
    readonly backoff: { firstMs: number; maxMs: number };
  };
}

/** A handler with the name that stored messages carry: the service's and its own. */
export interface NamedHandler<C> extends Handler<C> {
  readonly name: string;
}

/** What a broker and its relay know of a handler. */
export function subscriptionOf<C>({ name, event }: NamedHandler<C>): Subscription {
  return { handler: name, event: event.name };
}

/** Joins an event to what is done about it. */
export function handle<P, C = unknown>(
  event: Event<P>,
  run: (delivery: Delivery<P>, context: C) => Promise<void>,
  options: HandlerOptions = {},
): Handler<C> {
  const { concurrency = 10, attemptsMax = 20, timeLimitMs = 30_000, backoff = {} } = options;
  return {
    event: event as Event<unknown>,
    run: run as Handler<C>["run"],
    options: {
      concurrency,
      attemptsMax,
      timeLimitMs,
      backoff: { firstMs: backoff.firstMs ?? 1_000, maxMs: backoff.maxMs ?? 600_000 },
    },
  };
}

/**
 * The wait before the next try: exponential with equal jitter, half of it fixed and half random, so that tries neither
 * come at once nor in step (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
 */
export function backoffMs(
  attempt: number,
  { firstMs, maxMs }: { firstMs: number; maxMs: number },
  random: number,
): number {
  const full = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 40));
  return Math.round(full / 2 + (full / 2) * random);
}
