/**
 * Shared cache on Redis 6.2 or newer: one server, or whatever answers for one. Commands of the same moment share a round trip.
 *
 * Keys, under a prefix: `cache:<key>`, and `lease:<key>` which holds its holder's token. Values are written in base64, since the
 * shared way to Redis carries text; they are compressed before, where they are large.
 */
import { randomBytes } from "node:crypto";
import { RungsError, UnavailableError } from "../../kernel/errors.ts";
import type { Redis } from "../../redis/redis.ts";
import { type RedisScript, redisScript } from "../../redis/redis-script.ts";
import type { Acquired, FoundValue, SharedCacheStore } from "../shared-cache-store.ts";

/** Settings of {@link redisCacheStore}. */
export interface RedisCacheStoreOptions {
  /**
   * Gives the way to Redis; undefined while there is none. Its `commandMs` bounds every call; it should be short, since a load is
   * the alternative.
   */
  readonly redis: () => Redis | undefined;
  /** Before every key; default "rungs:". */
  readonly prefix?: string;
}

/** Keys: entry. */
const readScript = redisScript(`
local value = redis.call('GET', KEYS[1])
if not value then return false end
return { value, redis.call('PTTL', KEYS[1]) }
`);

/** Keys: entry, lease. Arguments: token, milliseconds. Sent twice, it gives the lease all the same. */
const acquireScript = redisScript(`
local won = 0
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[2]) == ARGV[1] then won = 1 end
local value = redis.call('GET', KEYS[1])
if not value then return { won } end
return { won, value, redis.call('PTTL', KEYS[1]) }
`);

/** Keys: entry, lease. Arguments: value, milliseconds, token or "". */
const writeScript = redisScript(`
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
return 1
`);

/** Keys: lease. Arguments: token, milliseconds; 0 to end it. */
const renewScript = redisScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`);

/** Makes the store. */
export function redisCacheStore({ redis, prefix = "rungs:" }: RedisCacheStoreOptions): SharedCacheStore {
  const entryOf = (key: string) => `${prefix}cache:${key}`;
  const leaseOf = (key: string) => `${prefix}lease:${key}`;
  const found = (value: unknown, remainingMs: unknown): FoundValue => ({
    bytes: Buffer.from(String(value), "base64"),
    remainingMs: Number(remainingMs),
  });

  async function reach<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    const way = redis();
    try {
      if (way === undefined) throw new Error("it has not been reached yet");
      return await work(way);
    } catch (error) {
      if (error instanceof RungsError && error.code !== "REDIS_UNREACHABLE") throw error;
      const message = `The shared cache cannot be used: ${error instanceof Error ? error.message : error}`;
      throw new UnavailableError("CACHE_STORE_UNREACHABLE", message, { canRetry: true, cause: error });
    }
  }
  const run = (script: RedisScript, keys: readonly [string, ...string[]], args: readonly string[] = []) =>
    reach((way) => way.run(script, keys, args, { isRepeatable: true }));

  return {
    capabilities: { isShared: true, resolutionMs: 1, valueBytesMax: 8 * 1024 * 1024 },
    async read(key) {
      const reply = (await run(readScript, [entryOf(key)])) as [string, number] | null;
      return reply === null ? undefined : found(...reply);
    },
    async acquire(key, leaseMs): Promise<Acquired> {
      const token = randomBytes(12).toString("base64url");
      const args = [token, String(Math.ceil(leaseMs))];
      const reply = (await run(acquireScript, [entryOf(key), leaseOf(key)], args)) as [number, string?, number?];
      const [won, value, remainingMs] = reply;
      return {
        lease: won === 1 ? token : undefined,
        found: value === undefined ? undefined : found(value, remainingMs),
      };
    },
    renew: async (key, lease, leaseMs) =>
      (await run(renewScript, [leaseOf(key)], [lease, String(Math.ceil(leaseMs))])) === 1,
    async write(key, bytes, { lifeMs, lease = "" }) {
      const args = [bytes.toString("base64"), String(Math.max(1, Math.ceil(lifeMs))), lease];
      await run(writeScript, [entryOf(key), leaseOf(key)], args);
    },
    async release(key, lease) {
      await run(renewScript, [leaseOf(key)], [lease, "0"]);
    },
    async delete(key) {
      await reach((way) => way.command(entryOf(key), ["DEL", entryOf(key)], { isRepeatable: true }));
    },
    check: () => reach((way) => way.check()),
    stats() {
      const { commands = 0, failures = 0, connections = 0 } = redis()?.stats() ?? {};
      return { commands, failures, connections };
    },
    async close() {
      await redis()?.close();
    },
  };
}
