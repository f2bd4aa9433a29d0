/** The heartbeat of one process over a Redis that sessions are changed in and a copy of it: a hash with a single number. */
import type { Redis } from "../../redis/redis.ts";
import { redisScript } from "../../redis/redis-script.ts";
import type { HeartbeatLine } from "../copy-age.ts";

/** Keys: the heartbeat. Arguments: the number, how long it is kept in ms. Beats of dead processes vanish by themselves. */
const beatScript = redisScript(`
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'b', ARGV[1])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', time[1] * 1000 + ARGV[2]))
return 1
`);

const keptMs = 60_000;

/** Opens the line. `id` is this process's own, such as a random UUID. */
export function redisHeartbeat(options: {
  readonly redis: Redis;
  readonly copy: Redis;
  readonly id: string;
  /** Before every key; default "rungs:". */
  readonly prefix?: string;
}): HeartbeatLine {
  const { redis, copy, id, prefix = "rungs:" } = options;
  const key = `${prefix}beat:${id}`;
  return {
    // Not tried again: the next one comes soon.
    write: async (beat) => void (await redis.run(beatScript, [key], [String(beat), String(keptMs)])),
    read: async () => Number((await copy.command(key, ["HGET", key, "b"])) ?? 0),
    async onConnect(listener) {
      await redis.beforeUse(async () => listener());
      await copy.beforeUse(async () => listener());
    },
  };
}
