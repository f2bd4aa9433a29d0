/**
 * What the session store does in Redis, each in one step.
 *
 * A session is a hash: `u` the user ("" for nobody), `c` created, `s` last seen, `e` end (milliseconds since the epoch), `w` the
 * number of its newest change (if any), `r` its revision (none: 0; see below), `p` + a shard's number how far the session has seen it, and a
 * field `d` + JSON of its name for each field of data, holding the value as JSON. So two requests that change different fields of
 * one session change different fields in Redis.
 *
 * Arguments that several scripts take: the *head* is user, created, seen, end, expiry, the bound of the data in bytes, the number
 * of the newest change, what was seen as a JSON object, and the revision;
 * *data* is names and values in turn, up to the last argument.
 *
 * A revision is the time of its change in milliseconds, or one more than the last: so what a server gives that took over is higher than
 * what the last one gave for changes that are lost, and a copy that still has those does not pass for one that has the new ones.
 */
import { redisScript } from "../../redis/redis-script.ts";

/** A name is one longer than its JSON, which stands for the colon. */
const helpers = `
local function given(from)
  local data = {}
  for i = from, #ARGV do data[#data + 1] = ARGV[i] end
  return data
end
local function sizeOf(data)
  local size = 2
  for i = 1, #data, 2 do size = size + #data[i] + #data[i + 1] end
  if #data > 2 then size = size + #data / 2 - 1 end
  return size
end
local function dataOf(key)
  local all = redis.call('HGETALL', key)
  local data = {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == 'd' then
      data[#data + 1] = all[i]
      data[#data + 1] = all[i + 1]
    end
  end
  return data
end
local function merge(data, over)
  local at = {}
  for i = 1, #data, 2 do at[data[i]] = i + 1 end
  for i = 1, #over, 2 do
    if at[over[i]] then
      data[at[over[i]]] = over[i + 1]
    else
      data[#data + 1] = over[i]
      data[#data + 1] = over[i + 1]
    end
  end
  return data
end
local function raise(key, field, text)
  local known = redis.call('HGET', key, field)
  if not known or known < text then redis.call('HSET', key, field, text) end
end
local function seenOf(key)
  local all = redis.call('HGETALL', key)
  local seen = {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == 'p' then
      seen[#seen + 1] = all[i]
      seen[#seen + 1] = all[i + 1]
    end
  end
  return seen
end
local function raiseAll(key, seen)
  for i = 1, #seen, 2 do raise(key, seen[i], seen[i + 1]) end
end
local function revise(key)
  local time = redis.call('TIME')
  local next = tonumber(redis.call('HGET', key, 'r') or '0') + 1
  local revision = string.format('%.0f', math.max(next, time[1] * 1000 + math.floor(time[2] / 1000)))
  redis.call('HSET', key, 'r', revision)
  return revision
end
local function write(key, head, data)
  redis.call('HSET', key, 'u', ARGV[head], 'c', ARGV[head + 1], 's', ARGV[head + 2], 'e', ARGV[head + 3])
  for i = 1, #data, 2 do redis.call('HSET', key, data[i], data[i + 1]) end
  if ARGV[head + 6] ~= '0' then redis.call('HSET', key, 'w', ARGV[head + 6]) end
  for shard, text in pairs(cjson.decode(ARGV[head + 7])) do raise(key, 'p' .. shard, text) end
  if ARGV[head + 8] ~= '0' then redis.call('HSET', key, 'r', ARGV[head + 8]) end
  redis.call('PEXPIREAT', key, ARGV[head + 4])
end
`;

/** Keys: session. Arguments: head, data. Gives 0 when the data is too large. */
export const createScript = redisScript(`${helpers}
local data = given(10)
if sizeOf(data) > tonumber(ARGV[6]) then return 0 end
redis.call('DEL', KEYS[1])
write(KEYS[1], 1, data)
return 1
`);

/** Keys: session. Arguments: head, data. Gives whether it was made: not if it was there. */
export const adoptScript = redisScript(`${helpers}
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
write(KEYS[1], 1, given(10))
return 1
`);

/**
 * Keys: session. Arguments: seen, unless seen since, how long an idle session lives ("" for no bound), slack of the expiry.
 * Gives whether it was noted.
 */
export const touchScript = redisScript(`${helpers}
local seen = tonumber(redis.call('HGET', KEYS[1], 's') or '')
if not seen or seen >= tonumber(ARGV[1]) or seen > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 's', ARGV[1])
revise(KEYS[1])
local ends = tonumber(redis.call('HGET', KEYS[1], 'e'))
if ARGV[3] ~= '' then ends = math.min(ends, ARGV[1] + ARGV[3]) end
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends + ARGV[4]))
return 1
`);

/** Keys: session. Arguments: number of a change. Raises the session's to it. Gives the revision, false without a session. */
export const noteWriteScript = redisScript(`${helpers}
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local old = tonumber(redis.call('HGET', KEYS[1], 'w') or '0')
if old < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'w', ARGV[1]) end
return revise(KEYS[1])
`);

/**
 * Keys: session. Arguments: fields and how far the session has seen each, in turn. Raises them to it. Gives the revision, false
 * without a session.
 */
export const noteSeenScript = redisScript(`${helpers}
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
raiseAll(KEYS[1], given(1))
return revise(KEYS[1])
`);

/** Keys: session. Arguments: bound, how many names are to go, those names, data. Gives the revision and the data; 0 when too large, false without a session. */
export const updateScript = redisScript(`${helpers}
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local gone = {}
for i = 3, 2 + ARGV[2] do gone[ARGV[i]] = true end
local kept = {}
local old = dataOf(KEYS[1])
for i = 1, #old, 2 do
  if not gone[old[i]] then
    kept[#kept + 1] = old[i]
    kept[#kept + 1] = old[i + 1]
  end
end
local set = given(3 + ARGV[2])
local data = merge(kept, set)
if #set > 0 and sizeOf(data) > tonumber(ARGV[1]) then return 0 end
for i = 3, 2 + ARGV[2] do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = 1, #set, 2 do redis.call('HSET', KEYS[1], set[i], set[i + 1]) end
return { revise(KEYS[1]), data }
`);

/** Keys: session. Takes it away; gives its user, data and what it has seen, false when there was none. */
export const takeScript = redisScript(`${helpers}
local user = redis.call('HGET', KEYS[1], 'u')
if not user then return false end
local data = dataOf(KEYS[1])
local seen = seenOf(KEYS[1])
redis.call('DEL', KEYS[1])
return { user, data, seen }
`);

/**
 * Keys: old session, new session. Arguments: head, "1" to carry the old data over, data. Gives the old session's user (false
 * without one) and the new one's data; 0, with nothing changed, when that is too large.
 */
export const rotateScript = redisScript(`${helpers}
local user = redis.call('HGET', KEYS[1], 'u')
local data = given(11)
if user and ARGV[10] == '1' then data = merge(dataOf(KEYS[1]), data) end
if sizeOf(data) > tonumber(ARGV[6]) then return 0 end
local seen = seenOf(KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
write(KEYS[2], 1, data)
raiseAll(KEYS[2], seen)
return { user, data }
`);

/**
 * Keys: the list of a user's sessions. Arguments: hash, its end. The list holds each from before it is made until after it is
 * gone; those past their end are dropped here, and the whole list when the last has ended.
 */
export const enlistScript = redisScript(`
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] .. '000')
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last[2]))
return 1
`);
