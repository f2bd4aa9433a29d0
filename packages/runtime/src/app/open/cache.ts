/** The cache of a process, by the topology joined with those of the others. */
import { memcachedCacheStore } from "../../cache/drivers/memcached-cache-store.ts";
import { redisCacheStore } from "../../cache/drivers/redis-cache-store.ts";
import { redisInvalidationChannel } from "../../cache/drivers/redis-invalidation-channel.ts";
import {
  type Cache,
  createCache,
  type InvalidationBus,
  type InvalidationTarget,
  localCacheStore,
  openInvalidationBus,
  type SharedCacheStore,
} from "../../cache/index.ts";
import { ConfigError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import { openRedis, type Redis } from "../../redis/redis.ts";
import { type Environment, Secret, type Topology } from "../../topology/index.ts";

/** The cache and what joins it with those of other processes, each undefined where there is none. */
export interface OpenCache {
  readonly cache: Cache;
  /** Without Redis there is none; with the cache off only where databases have copies. */
  readonly bus: InvalidationBus | undefined;
  readonly shared: SharedCacheStore | undefined;
}

/** A load is the alternative to a slow cache: well under what a page may take. */
const commandMs = 250;
/** The app starts without its cache when that does not answer for so long, and goes on trying. */
const firstTryMs = 2_000;
const retryMs = 1_000;

/** What the opening needs. */
export interface OpenCacheOptions {
  readonly topology: Topology;
  readonly environment: Environment;
  /** The sessions' Redis, if there is one: it carries the invalidations. */
  readonly redis: Redis | undefined;
  /** Told of each invalidation before the cache is: what has to know of commits, where databases have copies. */
  readonly first?: InvalidationTarget | undefined;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}

/**
 * Opens the cache; `lifecycle` learns how to close it. Raises `REDIS_UNREACHABLE` when the Redis that carries invalidations does
 * not answer in time, and `CONFIG_INVALID` when there is a shared cache and none that could.
 */
export async function openCache(options: OpenCacheOptions): Promise<OpenCache> {
  const { topology, first, log, lifecycle } = options;
  const { local, isEnabled } = topology.cache;
  if (!isEnabled && (first === undefined || options.redis === undefined)) {
    first?.stepChanged?.(true);
    return { cache: createCache({ store: null, first }), bus: undefined, shared: undefined };
  }
  const store = localCacheStore({ entriesMax: local.entries, bytesMax: local.bytes });
  const { shared, carrier }: Shared = isEnabled ? await openShared(options) : {};
  const redis = options.redis ?? carrier;
  if (redis === undefined) {
    first?.stepChanged?.(true);
    return { cache: createCache({ store, first }), bus: undefined, shared: undefined };
  }
  const channel = redisInvalidationChannel({ redis, log, ...prefixOf(topology) });
  const bus = await openInvalidationBus({ channel, first, log });
  lifecycle.started("invalidation bus", () => bus.close());
  // With the cache off, what it would drop still has to be known of.
  if (!isEnabled) return { cache: createCache({ store: null, bus }), bus, shared: undefined };
  return { cache: createCache({ store, bus, shared: shared && { store: shared, log } }), bus, shared };
}

interface Shared {
  readonly shared?: SharedCacheStore;
  /** The shared cache's own Redis, to carry invalidations where there is no other. */
  readonly carrier?: Redis;
}

async function openShared({ topology, environment, redis, log, lifecycle }: OpenCacheOptions): Promise<Shared> {
  const { url } = topology.cache;
  if (url === undefined) return {};
  const address = url instanceof Secret ? url.reveal(environment) : url;
  const prefix = prefixOf(topology);
  if (address.startsWith("memcached:")) {
    if (redis === undefined) {
      throw new ConfigError(
        "CONFIG_INVALID",
        "cache.url: memcached needs sessions.url, whose Redis carries invalidations.",
      );
    }
    const shared = memcachedCacheStore({ url: address, commandMs, ...prefix });
    lifecycle.started("shared cache", () => shared.close());
    return { shared };
  }
  if (redis === undefined) {
    const carrier = await openRedis({ url: address, log, name: "Redis of the cache", commandMs });
    lifecycle.started("shared cache", () => carrier.close());
    return { shared: redisCacheStore({ redis: () => carrier, ...prefix }), carrier };
  }
  const shared = redisCacheStore({ redis: await keepOpening(address, log, lifecycle), ...prefix });
  lifecycle.started("shared cache", () => shared.close());
  return { shared };
}

/** Opens the way to Redis, beside the start when that takes long. A wrong address or login ends the start. */
async function keepOpening(url: string, log: Logger, lifecycle: Lifecycle): Promise<() => Redis | undefined> {
  let opened: Redis | undefined;
  let isOver = false;
  const open = async (openMs: number) => {
    opened = await openRedis({ url, log, name: "Redis of the cache", commandMs, openMs });
    if (isOver) await opened.close();
  };
  const again = async () => {
    try {
      if (!isOver) await open(retryMs);
    } catch (error) {
      log.debug({ error }, "the shared cache cannot be reached yet");
      later();
    }
  };
  const later = () => void setTimeout(again, retryMs).unref();
  lifecycle.started("way to the shared cache", async () => {
    isOver = true;
  });
  try {
    await open(firstTryMs);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    log.warn({ error }, "the shared cache does not answer; the app starts without it and goes on trying");
    later();
  }
  return () => opened;
}

function prefixOf({ sessions: { prefix } }: Topology): { readonly prefix?: string } {
  return prefix === undefined ? {} : { prefix };
}
