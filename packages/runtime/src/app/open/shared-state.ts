/** What the processes of an app share beside the database: sessions, counts and live messages, by the topology in Redis or not. */
import { readFile } from "node:fs/promises";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { ConfigError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import { localFanOut } from "../../live/drivers/local-fan-out.ts";
import { redisFanOut } from "../../live/drivers/redis-fan-out.ts";
import type { FanOut } from "../../live/index.ts";
import type { Metrics } from "../../monitor/index.ts";
import { openRedis, type Redis } from "../../redis/redis.ts";
import { databaseSessionRevocations } from "../../session/drivers/database-session-revocations.ts";
import { databaseSessionStore, type SqlDatabase } from "../../session/drivers/database-session-store.ts";
import { redisAttemptStore } from "../../session/drivers/redis-attempt-store.ts";
import { redisSessionStore } from "../../session/drivers/redis-session-store.ts";
import { type AttemptStore, adoptingSessionStore, localAttemptStore, type SessionStore } from "../../session/index.ts";
import { type Address, type Environment, Secret, type Topology } from "../../topology/index.ts";
import { fastifyRateLimit } from "../../web/drivers/fastify-rate-limit.ts";
import { localRateLimitStore } from "../../web/drivers/local-rate-limit-store.ts";
import { redisRateLimitStore } from "../../web/drivers/redis-rate-limit-store.ts";
import { type RateLimitStore, rateLimit } from "../../web/rate-limit.ts";
import { type NearSessions, openNearSessions } from "./near-sessions.ts";

/** The drivers a topology asks for. */
export interface SharedState {
  readonly sessions: SessionStore;
  readonly attempts: AttemptStore;
  readonly fanOut: FanOut;
  readonly rates: RateLimitStore;
  /** Undefined without Redis. */
  readonly redis: Redis | undefined;
  /** Undefined without `sessions.replica`. */
  readonly near: NearSessions | undefined;
  /** Deletes what is no longer needed; gives how many. */
  sweep(): Promise<number>;
}

/** Opens the drivers; `lifecycle` learns how to close them. Raises `REDIS_UNREACHABLE` when Redis does not answer in time. */
export async function openSharedState(options: {
  readonly topology: Topology;
  readonly environment: Environment;
  /** The home database's leader. */
  readonly home: SqlDatabase;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}): Promise<SharedState> {
  const { topology, environment, home, log, lifecycle } = options;
  const { url, replica, caFile, prefix } = topology.sessions;
  const addressOf = (address: Address) => (address instanceof Secret ? address.reveal(environment) : address);
  if (url === undefined) {
    const fanOut = localFanOut({ log });
    lifecycle.started("fan-out", () => fanOut.close());
    const sessions = databaseSessionStore({ database: home });
    const stores = { sessions, attempts: localAttemptStore(), rates: localRateLimitStore() };
    return { ...stores, fanOut, redis: undefined, near: undefined, sweep: async () => 0 };
  }
  const ca = caFile === undefined ? undefined : await readCertificates(caFile);
  const redis = await openRedis({ url: addressOf(url), ca, log, name: "Redis of sessions" });
  lifecycle.started("redis", () => redis.close());
  await warnOfEviction(redis, log);
  const keys = { redis, ...(prefix === undefined ? {} : { prefix }) };
  const fanOut = redisFanOut({ ...keys, log });
  lifecycle.started("fan-out", () => fanOut.close());
  const revocations = databaseSessionRevocations({ database: home });
  const store = await redisSessionStore({ ...keys, revocations });
  // Those of the time before there was a Redis move to it as their people come, and the last of them ends by itself.
  const askPrevious = async () => (await home.query(undefined, "select 1 from rungs_sessions limit 1", [])).length > 0;
  let hasPrevious = await askPrevious();
  const previous = databaseSessionStore({ database: home });
  const sessions = adoptingSessionStore({ store, previous, hasPrevious: () => hasPrevious });
  const near =
    replica === undefined
      ? undefined
      : await openNearSessions({ url: addressOf(replica), ca, prefix, store: sessions, redis, log, lifecycle });
  return {
    sessions: near?.store ?? sessions,
    near,
    attempts: redisAttemptStore(keys),
    rates: redisRateLimitStore(keys),
    fanOut,
    redis,
    async sweep() {
      hasPrevious = hasPrevious && (await askPrevious());
      return revocations.sweep();
    },
  };
}

/** Limits requests as the topology and the routes say; call it before routes are added. */
export function limitRequests(
  fastify: FastifyInstance,
  options: {
    readonly limits: Topology["web"]["limits"];
    readonly rates: RateLimitStore;
    readonly userOf: (request: FastifyRequest) => Promise<string | undefined>;
    readonly log: Logger;
    readonly metrics: Metrics;
  },
): void {
  const { limits = {}, rates, userOf, log, metrics } = options;
  const limitOf = (name: string, perMinute: number | undefined) =>
    perMinute === undefined ? undefined : rateLimit({ name, perMinute });
  const { stats } = fastifyRateLimit(fastify, {
    ...{ store: rates, userOf, log },
    address: limitOf("address", limits.addressPerMinute),
    user: limitOf("user", limits.userPerMinute),
  });
  metrics.registerGauge({
    name: "rate_limit_requests",
    help: "Requests under a limit since the start: allowed, refused, and judged by this process alone.",
    labelNames: ["kind"],
    read: () => Object.entries(stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

/** Shows how Redis serves this process. */
export function showRedis(metrics: Metrics, redis: Redis | undefined): void {
  if (redis === undefined) return;
  metrics.registerGauge({
    name: "redis_events",
    help: "Commands to Redis since the start, their further tries and failures, and connections made.",
    labelNames: ["kind"],
    read: () => Object.entries(redis.stats()).map(([kind, value]) => ({ labels: { kind }, value })),
  });
}

/** A Redis that may throw sessions out when it is full signs people out. One that does not say is taken to be right. */
async function warnOfEviction(redis: Redis, log: Logger): Promise<void> {
  const info = await redis.command("", ["INFO", "memory"]).catch(() => "");
  const [, policy = "noeviction"] = /^maxmemory_policy:(\S+)/m.exec(String(info)) ?? [];
  const isBounded = /^maxmemory:[1-9]/m.test(String(info));
  if (!isBounded || policy === "noeviction") return;
  log.warn({ policy }, "Redis evicts sessions when it is full; set its maxmemory-policy to noeviction");
}

async function readCertificates(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const message = `sessions.caFile: ${file} could not be read. Give the path of a file of certificates in PEM.`;
    throw new ConfigError("CONFIG_INVALID", message, { cause: error });
  }
}
