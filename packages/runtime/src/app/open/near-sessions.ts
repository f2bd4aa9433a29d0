/** Reading sessions in this process's region: the topology's `sessions.replica` becomes a copy near the session store. */
import { randomUUID } from "node:crypto";
import { ConfigError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Metrics } from "../../monitor/index.ts";
import { openRedis, type Redis } from "../../redis/redis.ts";
import { redisHeartbeat } from "../../session/drivers/redis-heartbeat.ts";
import { redisSessionStore } from "../../session/drivers/redis-session-store.ts";
import {
  type CopyAge,
  type NearSessionStore,
  nearSessionStore,
  openCopyAge,
  type SessionStore,
} from "../../session/index.ts";

/** Sessions with a copy near by. */
export interface NearSessions {
  readonly store: NearSessionStore;
  readonly age: CopyAge;
}

/** A copy is near by: one that takes longer is no better than the original. In ms. */
const copyMs = 300;
/** What the start waits for a copy that does not answer. In ms. */
const openMs = 1_000;

/**
 * Opens the copy at `url`; `lifecycle` learns how to close it. One that cannot be reached is no error: sessions are read where they
 * are changed until it can. Raises `CONFIG_INVALID` for sessions in a Cluster, and for a login that cannot work.
 */
export async function openNearSessions(options: {
  readonly url: string;
  readonly ca: string | undefined;
  readonly prefix: string | undefined;
  /** Where sessions are changed, and the Redis beneath. */
  readonly store: SessionStore;
  readonly redis: Redis;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}): Promise<NearSessions> {
  const { url, ca, store, redis, log, lifecycle } = options;
  if (redis.isCluster) {
    const message =
      "sessions.replica: a Cluster at sessions.url has no copy in one server; leave sessions.replica out.";
    throw new ConfigError("CONFIG_INVALID", message);
  }
  const copy = await openRedis({
    ...{ url, ca, log, name: "Redis replica of sessions", openMs, isNeeded: false },
    ...{ commandMs: copyMs, connectMs: copyMs },
  });
  lifecycle.started("redis replica", () => copy.close());
  const prefix = options.prefix === undefined ? {} : { prefix: options.prefix };
  const age = await openCopyAge({ line: redisHeartbeat({ redis, copy, id: randomUUID(), ...prefix }), log });
  lifecycle.started("heartbeat of sessions", async () => age.close());
  const near = nearSessionStore({ store, copy: await redisSessionStore({ redis: copy, ...prefix }), age, log });
  return { store: near, age };
}

/** Shows where sessions are read; nothing without a copy. */
export function showNearSessions(metrics: Metrics, near: NearSessions | undefined): void {
  if (near === undefined) return;
  metrics.registerGauge({
    name: "session_record_reads",
    help: "Sessions read since the start: near, from the copy in this region, or where they are changed, by why.",
    labelNames: ["kind"],
    read: () => Object.entries(near.store.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
  metrics.registerGauge({
    name: "session_copy_age_ms",
    help: "All that was changed longer ago than this is in this region's copy of the sessions; +Inf while that is not known.",
    read: () => [{ labels: {}, value: near.age.ageMs() }],
  });
}
