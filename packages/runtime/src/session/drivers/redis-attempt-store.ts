/** Attempt counts in Redis, shared by all processes: a hash a key, which vanishes when two windows have passed. */
import type { Redis } from "../../redis/redis.ts";
import { redisScript } from "../../redis/redis-script.ts";
import type { AttemptStore } from "../attempt-store.ts";

/** Keys: counter. Arguments: window, change, milliseconds to live. Gives the counts of the window and of the one before. */
const addScript = redisScript(`
local index = tonumber(redis.call('HGET', KEYS[1], 'i') or '-1')
local current = tonumber(redis.call('HGET', KEYS[1], 'c') or '0')
local previous = tonumber(redis.call('HGET', KEYS[1], 'p') or '0')
if index ~= tonumber(ARGV[1]) then
  previous = index == tonumber(ARGV[1]) - 1 and current or 0
  current = 0
end
current = math.max(0, current + ARGV[2])
redis.call('HSET', KEYS[1], 'i', ARGV[1], 'c', current, 'p', previous)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { current, previous }
`);

/** Opens the store. `prefix` stands before every key; default "rungs:". */
export function redisAttemptStore({
  redis,
  prefix = "rungs:",
}: {
  readonly redis: Redis;
  readonly prefix?: string;
}): AttemptStore {
  const keyOf = (key: string) => `${prefix}attempts:${key}`;
  return {
    async add(key, { index, windowMs }, change) {
      const args = [String(index), String(change), String(Math.ceil(2 * windowMs))];
      const [current = 0, previous = 0] = (await redis.run(addScript, [keyOf(key)], args)) as number[];
      return { current: Number(current), previous: Number(previous) };
    },
    async clear(key) {
      await redis.command(keyOf(key), ["DEL", keyOf(key)], { isRepeatable: true });
    },
  };
}
