/**
 * Invalidations over Redis 6.2 or newer: publish and subscribe, numbered by a script in the same step.
 *
 * Keys, under a prefix and in one slot: `{cache}:number`, the newest number; `{cache}:log`, a stream of the last 10,000
 * invalidations or so, for processes that start or missed some; `{cache}:processes`, when each last sent a mark. Channels: `{cache}:invalidations`, and
 * `{cache}:marks:<origin>` for the marks of one process. Redis writes what it publishes to a subscriber in the order of
 * publishing, whatever the channel, so a mark comes behind everything announced before it.
 */
import { type Logger, silentLogger } from "../../kernel/log.ts";
import type { Redis } from "../../redis/redis.ts";
import { redisScript } from "../../redis/redis-script.ts";
import type {
  AnnounceOptions,
  HeardInvalidation,
  InvalidatedTags,
  InvalidationChannel,
  InvalidationListener,
} from "../invalidation-channel.ts";

/** Settings of {@link redisInvalidationChannel}. */
export interface RedisInvalidationChannelOptions {
  /** Not closed with the channel. */
  readonly redis: Redis;
  /** Before every key and channel; default "rungs:". */
  readonly prefix?: string;
  readonly log?: Logger;
}

const pageMax = 1_000;

/** The newest number, begun anew above ARGV[1] by a server that knows none or a lower one. */
const helpers = `
local function timeAbove(number)
  local time = redis.call('TIME')
  return math.max(time[1] * 1000000 + time[2], number + 1)
end
local function textOf(number)
  return string.format('%.0f', number)
end
local function newestOf(atLeast)
  local last = tonumber(redis.call('GET', KEYS[1]) or '-1')
  if last < 0 or last < atLeast then
    last = timeAbove(atLeast)
    redis.call('SET', KEYS[1], textOf(last))
  end
  return last
end
`;

const announcing = `${helpers}
local function announce(above, channel, publish, tags, origin, upTo)
  local last = tonumber(redis.call('GET', KEYS[1]) or '0')
  local text = textOf(timeAbove(math.max(last, above)))
  local message = '{"number":' .. text .. ',"previous":' .. textOf(last) .. ',"origin":' .. origin .. ',"tags":' .. tags
  if upTo then message = message .. ',"upTo":' .. upTo end
  message = message .. '}'
  redis.call('SET', KEYS[1], text)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', text .. '-0', 'm', message)
  redis.call(publish, channel, message)
  return text
end
`;

/**
 * Keys: number, log. Arguments: a number to be above, channel, how to publish, tags as JSON, origin as JSON, and the commits'
 * marks as JSON if there are any. Gives the number.
 */
const announceScript = redisScript(`${announcing}
return announce(tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
`);

/**
 * Keys: number, log, processes. Arguments: channel, how to publish, channel of the marks, mark as JSON, the process, milliseconds
 * after which one without a mark is taken for dead. For the dead everything is invalidated, by the first who notices.
 */
const markScript = redisScript(`${announcing}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[3], textOf(now), ARGV[5])
local dead = redis.call('ZRANGE', KEYS[3], '-inf', textOf(now - ARGV[6]), 'BYSCORE', 'LIMIT', 0, 100)
if #dead > 0 then
  redis.call('ZREM', KEYS[3], unpack(dead))
  announce(0, ARGV[1], ARGV[2], '"everything"', '"the dead"')
end
redis.call(ARGV[2], ARGV[3], '{"mark":' .. ARGV[4] .. ',"newest":' .. textOf(newestOf(0)) .. '}')
return #dead
`);

/** Keys: number, log. Arguments: the number after which, how many. Gives the newest number and the messages. */
const sinceScript = redisScript(`${helpers}
local newest = newestOf(tonumber(ARGV[1]))
local found = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
local messages = {}
for i, entry in ipairs(found) do messages[i] = entry[2][2] end
return { textOf(newest), messages }
`);

/** Makes the channel. Its methods raise `REDIS_UNREACHABLE` when Redis cannot be reached. */
export function redisInvalidationChannel(options: RedisInvalidationChannelOptions): InvalidationChannel {
  const { redis, prefix = "rungs:", log = silentLogger } = options;
  const keys = [`${prefix}{cache}:number`, `${prefix}{cache}:log`] as const;
  const processes = `${prefix}{cache}:processes`;
  const channel = `${prefix}{cache}:invalidations`;
  const marksOf = (origin: string) => `${prefix}{cache}:marks:${origin}`;
  const publish = redis.isCluster ? "SPUBLISH" : "PUBLISH";
  const leaves: (() => unknown)[] = [];

  function receive(text: string, listener: InvalidationListener): void {
    try {
      const message = JSON.parse(text);
      if ("mark" in message) listener.onMark(message.mark, message.newest);
      else listener.onInvalidation(message);
    } catch (error) {
      log.error({ error }, "an invalidation could not be read; everything cached here is dropped");
      listener.onGap();
    }
  }

  return {
    async announce(tags: InvalidatedTags, { origin, above, upTo, isAhead = false }: AnnounceOptions) {
      const told = upTo === undefined ? [] : [JSON.stringify(upTo)];
      const args = [String(above), channel, publish, JSON.stringify(tags), JSON.stringify(origin), ...told];
      return Number(await redis.run(announceScript, keys, args, { isRepeatable: true, isAhead }));
    },
    async mark(origin, mark, { deadAfterMs }) {
      const args = [channel, publish, marksOf(origin), JSON.stringify(mark), origin, String(deadAfterMs)];
      await redis.run(markScript, [...keys, processes], args, { isRepeatable: true });
    },
    async leave(origin) {
      await redis.command(processes, ["ZREM", processes, origin], { isRepeatable: true });
    },
    async since(number) {
      const reply = await redis.run(sinceScript, keys, [String(number), String(pageMax)], { isRepeatable: true });
      const [newest, messages] = reply as [string, string[]];
      const page = messages.map((message) => JSON.parse(message) as HeardInvalidation);
      return { page, isLast: page.length < pageMax, newest: Number(newest) };
    },
    async listen(origin, listener) {
      leaves.push(redis.onGap((channels) => channels.includes(channel) && listener.onGap()));
      for (const name of [marksOf(origin), channel]) {
        leaves.push(await redis.subscribe(name, (text) => receive(text, listener)));
      }
    },
    beforeUse: (work) => redis.beforeUse(work),
    async close() {
      await Promise.all(leaves.splice(0).map((leave) => leave()));
    },
  };
}
