/** What the CDN may keep of Conduit's answers to anonymous visitors: for how long when nothing purges it. */
import type {} from "rungs/cdn/fastify";

/** Writes purge what they change; the times bound what a lost purge costs, and an outage that visitors do not notice. */
const times = {
  sharedMaxAgeMs: 60_000,
  staleWhileRevalidateMs: 10_000,
  staleIfErrorMs: 60 * 60_000,
};

/** Route settings of public pages and API answers; their handlers name what they show by `reply.cacheTag`. */
export const shared = { cache: times };

/** Route settings of files, whose address is never used for another content; deleting one purges it. */
export const sharedFiles = {
  cache: { sharedMaxAgeMs: 24 * 60 * 60_000, staleIfErrorMs: 24 * 60 * 60_000, isForEveryone: true },
};
