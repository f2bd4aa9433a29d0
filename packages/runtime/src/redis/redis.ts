/**
 * A way to Redis for the drivers of a process: one server, the master behind Sentinels, or a Cluster.
 *
 * Every command has a deadline over all its tries. What Redis did not carry out for certain (it said so, or there was no
 * connection) is tried again within it, as is whatever the caller calls repeatable; all else fails at once.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../kernel/clock.ts";
import { RungsError, UnavailableError } from "../kernel/errors.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";
import { type Random, systemRandom } from "../kernel/random.ts";
import type { ChannelListener, RedisTls } from "./load-redis.ts";
import { parseRedisAddress } from "./redis-address.ts";
import {
  type Failure,
  failureOf,
  LinkLostError,
  messageOf,
  NotConnectedError,
  setupProblem,
  unreachable,
} from "./redis-errors.ts";
import type { LinkTimes } from "./redis-link.ts";
import { clusterRoutes, type LinkMaker, masterRoutes, type RedisRoutes } from "./redis-routes.ts";
import type { RedisScript } from "./redis-script.ts";
import { redisSubscriber } from "./redis-subscriber.ts";

/** How a command is sent. */
export interface SendOptions {
  /** Carrying it out twice does no harm; default false. */
  readonly isRepeatable?: boolean;
  /** Goes ahead of {@link Redis.beforeUse}; for the work done there. Default false. */
  readonly isAhead?: boolean;
}

/** A way to Redis. Every method raises `REDIS_UNREACHABLE` when it cannot be reached in time. */
export interface Redis {
  /** Keys of several slots cannot be changed in one step. */
  readonly isCluster: boolean;
  /** Sends a command on one key, or on keys of the same slot. Raises the server's own error for a mistake. */
  command(key: string, args: readonly string[], options?: SendOptions): Promise<unknown>;
  /** Runs a script, in one round trip once the server knows it. The keys must be of one slot. */
  run(
    script: RedisScript,
    keys: readonly [string, ...string[]],
    args: readonly string[],
    options?: SendOptions,
  ): Promise<unknown>;
  /** Sends a message to a channel, as sharded pub/sub in a Cluster. */
  publish(channel: string, message: string): Promise<void>;
  /** Resolves once messages sent from then on are heard. Gives how to end it. */
  subscribe(channel: string, listener: ChannelListener): Promise<() => Promise<void>>;
  /** Hears that messages of these channels may have been lost, once new ones are heard again. Gives how to end it. */
  onGap(listener: (channels: readonly string[]) => void): () => void;
  /**
   * Has the work done now, and again after each new connection, before anything else is sent by it: for what a server that
   * took over may not know. While it fails, commands fail.
   */
  beforeUse(work: () => Promise<void>): Promise<void>;
  /** Resolves when Redis answers; every master of a Cluster. */
  check(): Promise<void>;
  stats(): RedisStats;
  close(): Promise<void>;
}

/** Counters since the start. */
export interface RedisStats {
  readonly commands: number;
  /** Further tries of commands. */
  readonly retries: number;
  readonly failures: number;
  /** Connections made for commands. */
  readonly connections: number;
}

/** Settings of {@link openRedis}. */
export interface RedisOptions {
  /** As in `redis-address.ts`. Holds a secret: it is neither logged nor repeated in errors. */
  readonly url: string;
  /** For messages; default "Redis". */
  readonly name?: string;
  /** Certificates that sign the servers', in PEM, for `rediss`; default those Node trusts. */
  readonly ca?: string | undefined;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Bound of a command, over all its tries; default 1,000 ms. */
  readonly commandMs?: number;
  /** Bound of a connection; default 1,000 ms. */
  readonly connectMs?: number;
  /** Between signs of life on a connection; default 2,000 ms. */
  readonly pingMs?: number;
  /** How long the opening waits for Redis; default 10,000 ms. */
  readonly openMs?: number;
  /** Whether a Redis that does not answer while it is opened is an error; default true. Else it is connected when it does. */
  readonly isNeeded?: boolean;
}

const triesMax = 8;
const openMsDefault = 10_000;
/** The first subscription has a connection made for it, which through Sentinels takes longer than a command. */
const firstSubscription = { tries: 50, waitMs: 100 };
/** A server that is loading, or a Cluster that is choosing, needs a moment. */
const elsewhereWaitMs = 50;

/**
 * Opens the way and waits until Redis answers. Raises `CONFIG_INVALID` for an address or a login that cannot work,
 * `PACKAGE_MISSING` without the package redis, and `REDIS_UNREACHABLE` after `openMs` unless it need not be there.
 */
export async function openRedis(options: RedisOptions): Promise<Redis> {
  const redis = new RedisConnection(options);
  try {
    await redis.open(options.openMs ?? openMsDefault);
  } catch (error) {
    if (options.isNeeded === false && error instanceof UnavailableError) return redis;
    await redis.close();
    throw error;
  }
  return redis;
}

class RedisConnection implements Redis {
  readonly isCluster: boolean;
  private readonly name: string;
  private readonly clock: Clock;
  private readonly times: LinkTimes;
  private readonly routes: RedisRoutes;
  private readonly subscriber: ReturnType<typeof redisSubscriber>;
  private readonly works: (() => Promise<void>)[] = [];
  private readonly recoveries = new Set<Promise<void>>();
  private hasSubscribed = false;
  private readonly counters = { commands: 0, retries: 0, failures: 0, connections: 0 };

  constructor(options: RedisOptions) {
    const { name = "Redis", log = silentLogger, clock = systemClock, random = systemRandom } = options;
    const address = parseRedisAddress(options.url);
    this.name = name;
    this.clock = clock;
    this.times = {
      commandMs: options.commandMs ?? 1_000,
      connectMs: options.connectMs ?? 1_000,
      pingMs: options.pingMs ?? 2_000,
    };
    const tls: RedisTls | undefined = address.isTls ? { ca: options.ca } : undefined;
    const make: LinkMaker = { name, address, tls, times: this.times, log, clock, random };
    this.isCluster = address.kind === "cluster";
    const onOpen = (drop: (error: Error) => void) => this.recover(drop);
    this.routes = this.isCluster ? clusterRoutes(make, onOpen) : masterRoutes(make, onOpen);
    this.subscriber = redisSubscriber(make, this.routes);
  }

  async open(openMs: number): Promise<void> {
    const giveUpAt = this.clock.monotonic() + openMs;
    for (;;) {
      try {
        return await this.routes.check(this.clock.monotonic() + Math.min(500, openMs));
      } catch (error) {
        const problem = setupProblem(this.name, this.routes.problem() ?? error) ?? setupProblem(this.name, error);
        if (problem !== undefined) throw problem;
        if (this.clock.monotonic() >= giveUpAt) {
          throw unreachable(this.name, messageOf(error), { canRetry: true, cause: error });
        }
        await sleep(25);
      }
    }
  }

  command(key: string, args: readonly string[], options: SendOptions = {}): Promise<unknown> {
    return this.attempt(key, (deadlineAt) => this.routes.send(key, args, deadlineAt), options);
  }

  run(
    script: RedisScript,
    keys: readonly [string, ...string[]],
    args: readonly string[],
    options: SendOptions = {},
  ): Promise<unknown> {
    const tail = [String(keys.length), ...keys, ...args];
    const work = async (deadlineAt: number) => {
      try {
        return await this.routes.send(keys[0], ["EVALSHA", script.sha1, ...tail], deadlineAt);
      } catch (error) {
        if (failureOf(error) !== "unknownScript") throw error;
        // EVAL also teaches the server the script.
        return this.routes.send(keys[0], ["EVAL", script.source, ...tail], deadlineAt);
      }
    };
    return this.attempt(keys[0], work, options);
  }

  async publish(channel: string, message: string): Promise<void> {
    await this.command(channel, [this.isCluster ? "SPUBLISH" : "PUBLISH", channel, message]);
  }

  async subscribe(channel: string, listener: ChannelListener): Promise<() => Promise<void>> {
    for (let tries = 1; ; tries++) {
      try {
        const leave = await this.subscriber.subscribe(channel, listener);
        this.hasSubscribed = true;
        return leave;
      } catch (error) {
        const isPatient = !this.hasSubscribed && this.routes.problem() === undefined && tries < firstSubscription.tries;
        if (!isPatient || failureOf(error) !== "lost") throw this.translate(error);
        await sleep(firstSubscription.waitMs);
      }
    }
  }

  onGap(listener: (channels: readonly string[]) => void): () => void {
    return this.subscriber.onGap(listener);
  }

  async beforeUse(work: () => Promise<void>): Promise<void> {
    this.works.push(work);
    await work();
  }

  async check(): Promise<void> {
    try {
      await this.routes.check(this.clock.monotonic() + this.times.commandMs);
    } catch (error) {
      throw this.translate(error);
    }
  }

  stats(): RedisStats {
    return { ...this.counters };
  }

  async close(): Promise<void> {
    await Promise.all([this.routes.close(), this.subscriber.close()]);
  }

  /** A new connection: commands wait until the work that must precede them is done, or the connection is given up. */
  private recover(drop: (error: Error) => void): void {
    this.counters.connections++;
    if (this.works.length === 0) return;
    const recovery = (async () => {
      for (const work of this.works) await work();
    })();
    this.recoveries.add(recovery);
    recovery
      .catch((error: unknown) => {
        drop(new LinkLostError(`what must precede its use failed: ${messageOf(error)}`, { cause: error }));
      })
      .finally(() => this.recoveries.delete(recovery));
  }

  private async attempt(
    key: string,
    work: (deadlineAt: number) => Promise<unknown>,
    { isRepeatable = false, isAhead = false }: SendOptions,
  ): Promise<unknown> {
    this.counters.commands++;
    const deadlineAt = this.clock.monotonic() + this.times.commandMs;
    for (let tries = 1; ; tries++) {
      try {
        // Nothing may come between these checks and the sending.
        for (;;) {
          if (!this.routes.isOpen(key)) await this.routes.waitUntilOpen(key, deadlineAt);
          else if (!isAhead && this.recoveries.size > 0) await this.waitForRecovery(deadlineAt);
          else return await work(deadlineAt);
        }
      } catch (error) {
        const failure = failureOf(error);
        const isTriedAgain =
          failure === "elsewhere" || (failure === "lost" && (isRepeatable || error instanceof NotConnectedError));
        const leftMs = deadlineAt - this.clock.monotonic();
        if (!isTriedAgain || tries >= triesMax || leftMs <= elsewhereWaitMs) throw this.failed(error, failure, key);
        this.counters.retries++;
        await this.routes.reconsider(key, error);
        if (failure === "elsewhere") await sleep(elsewhereWaitMs);
      }
    }
  }

  private async waitForRecovery(deadlineAt: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const ms = Math.max(0, deadlineAt - this.clock.monotonic());
      timer = setTimeout(() => reject(new NotConnectedError("it is being brought up to date")), ms);
    });
    try {
      await Promise.race([Promise.allSettled(this.recoveries), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  private failed(error: unknown, failure: Failure, key: string): unknown {
    if (failure === "mistake") return error;
    this.counters.failures++;
    this.routes.reconsider(key, error).catch(() => {});
    return this.translate(error, failure);
  }

  private translate(error: unknown, failure = failureOf(error)): unknown {
    if (error instanceof RungsError || failure === "mistake") return error;
    const canRetry = failure !== "lost" || error instanceof NotConnectedError;
    return unreachable(this.name, messageOf(error), { canRetry, cause: error });
  }
}
