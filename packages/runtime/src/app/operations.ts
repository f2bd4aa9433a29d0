/**
 * What a running app answers to whoever operates it: questions about the memory of its process. They come from the launcher through
 * the channel that it opened with the process, and by no address: see `rungs cache`.
 */
import { z } from "zod";
import {
  type Cache,
  type CacheStats,
  type HottestKeys,
  type InvalidationBus,
  type InvalidationBusStats,
  type KeyInspection,
  keyTag,
} from "../cache/index.ts";
import { ConfigError } from "../kernel/errors.ts";
import type { BrokerBacklog, RunningQueue } from "../queue/index.ts";
import type { OpenRegions, RegionsReport } from "./open/regions.ts";
import type { RouteList, ServiceRoute } from "./route-list.ts";

const word = z.string().min(1).max(10_000);

const question = z.discriminatedUnion("about", [
  z.strictObject({ about: z.literal("routes") }),
  z.strictObject({ about: z.literal("queue.backlog") }),
  z.strictObject({ about: z.literal("regions") }),
  z.strictObject({ about: z.literal("cache.figures") }),
  z.strictObject({ about: z.literal("cache.inspect"), key: word }),
  z.strictObject({ about: z.literal("cache.top"), keysMax: z.int().min(1).max(256) }),
  z.strictObject({
    about: z.literal("cache.purge"),
    tags: z.array(word).max(1_000),
    keys: z.array(word).max(1_000),
  }),
]);

/** A question, or for `cache.purge` a request: ends what bears one of the tags and these keys, in all processes. */
export type OperatorQuestion = z.infer<typeof question>;

/** Answer to `cache.figures`. */
export interface CacheFigures {
  readonly isOff: boolean;
  readonly cache: CacheStats;
  /** Null without a bus: the process hears its own invalidations only. */
  readonly bus: InvalidationBusStats | null;
}

/** Answers by what was asked about. */
export interface OperatorAnswers {
  /** Those that this process serves. */
  readonly routes: readonly ServiceRoute[];
  /** What waits in the broker for the handlers of this process. */
  readonly "queue.backlog": readonly BrokerBacklog[];
  /** Null in a process without regions. */
  readonly regions: RegionsReport | null;
  readonly "cache.figures": CacheFigures;
  readonly "cache.inspect": KeyInspection;
  readonly "cache.top": HottestKeys;
  readonly "cache.purge": { readonly isPurged: true };
}

/**
 * Answers one question of the operator. Raises `CONFIG_INVALID` for one it does not know, and `CACHE_INVALIDATION_DELAYED` for a
 * purge that the other processes cannot be told of yet, and `BROKER_UNREACHABLE`.
 */
export async function answerOperator(
  asked: unknown,
  {
    cache,
    bus,
    routes,
    queue,
    regions,
  }: {
    readonly cache: Cache;
    readonly bus: InvalidationBus | undefined;
    readonly routes: RouteList;
    readonly queue: RunningQueue;
    readonly regions: OpenRegions | undefined;
  },
): Promise<OperatorAnswers[OperatorQuestion["about"]]> {
  const parsed = question.safeParse(asked);
  if (!parsed.success) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `This process does not know the question: ${z.prettifyError(parsed.error)}`,
    );
  }
  const { data } = parsed;
  switch (data.about) {
    case "routes":
      return routes.all();
    case "queue.backlog":
      return queue.backlog();
    case "regions":
      return regions?.report() ?? null;
    case "cache.figures":
      return { isOff: cache.isOff, cache: cache.stats(), bus: bus?.stats() ?? null };
    case "cache.inspect":
      return cache.inspect(data.key);
    case "cache.top":
      return cache.hottest(data.keysMax);
    case "cache.purge":
      await cache.invalidate([...data.tags, ...data.keys.map(keyTag)]);
      await bus?.settled();
      return { isPurged: true };
  }
}
