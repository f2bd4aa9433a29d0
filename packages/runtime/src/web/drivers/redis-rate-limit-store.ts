/**
 * Limits in Redis, shared by all processes: one script, one round trip for all limits of a request; in a Cluster one for each
 * limit. Redis's own clock decides, so that the processes' clocks need not agree.
 */
import type { Redis } from "../../redis/redis.ts";
import { redisScript } from "../../redis/redis-script.ts";
import type { RateLimitStore, RateRequest, RateVerdict } from "../rate-limit.ts";

/**
 * Keys: one a limit. Arguments: for each its interval and its span, in microseconds. Gives for each whether it was allowed,
 * how long to wait and when it is whole again, in microseconds. The same arithmetic as `judgeRate`.
 */
const takeScript = redisScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local all = true
local judged = {}
for i = 1, #KEYS do
  local interval = tonumber(ARGV[2 * i - 1])
  local span = tonumber(ARGV[2 * i])
  local due = math.max(tonumber(redis.call('GET', KEYS[i]) or now), now)
  -- A clock that was set back must lock nobody out.
  if due - now > span then due = now + span end
  local next = due + interval
  -- One microsecond for rounding.
  local allowed = next - span <= now + 1
  if not allowed then all = false end
  judged[i] = { allowed, due, next, span }
end
local reply = {}
for i = 1, #KEYS do
  local allowed, due, next, span = unpack(judged[i])
  if all then redis.call('SET', KEYS[i], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1) end
  local kept = allowed and next or due
  reply[3 * i - 2] = allowed and 1 or 0
  reply[3 * i - 1] = string.format('%.0f', allowed and 0 or math.max(1, next - span - now))
  reply[3 * i] = string.format('%.0f', kept - now)
end
return reply
`);

/** Settings of {@link redisRateLimitStore}. */
export interface RedisRateLimitStoreOptions {
  readonly redis: Redis;
  /** Before every key; default "rungs:". */
  readonly prefix?: string;
}

/** Opens the store. */
export function redisRateLimitStore({ redis, prefix = "rungs:" }: RedisRateLimitStoreOptions): RateLimitStore {
  async function takeTogether(requests: readonly RateRequest[]): Promise<RateVerdict[]> {
    const keys = requests.map(({ limit, key }) => `${prefix}rate:${limit.name}:${key}`);
    const steps = requests.map(({ limit }) => {
      const intervalUs = 60_000_000 / limit.perMinute;
      return { intervalUs, spanUs: intervalUs * limit.burst };
    });
    const args = steps.flatMap(({ intervalUs, spanUs }) => [String(intervalUs), String(spanUs)]);
    const reply = ((await redis.run(takeScript, keys as [string, ...string[]], args)) as unknown[]).map(Number);
    return steps.map(({ intervalUs, spanUs }, index) => {
      const [allowed = 0, waitUs = 0, resetUs = 0] = reply.slice(3 * index, 3 * index + 3);
      const remaining = Math.floor((Math.max(0, spanUs - resetUs) + 1) / intervalUs);
      return { isAllowed: allowed === 1, remaining, retryAfterMs: waitUs / 1_000, resetMs: resetUs / 1_000 };
    });
  }

  return {
    async take(requests) {
      if (requests.length === 0) return [];
      if (!redis.isCluster) return takeTogether(requests);
      return (await Promise.all(requests.map((request) => takeTogether([request])))).flat();
    },
  };
}
