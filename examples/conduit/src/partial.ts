/**
 * What people get while a shard is down: lists without its rows, names without its people. Only what cannot do without them fails.
 */
import { UnavailableError } from "rungs";
import type { Cache, LoadContext, ReadOptions } from "rungs/cache";
import type { Database, MergeOptions, Queries, ShardWindow } from "rungs/database";
import type { Seen } from "./domain/model.ts";
import type { Tables } from "./schema.ts";

/** Leave out shards that do not answer, and do not wait long for them: what is asked so is worth having without them. */
export const inPart = { onFailure: "partial", deadlineMs: 1_500 } as const;

/** Incomplete lists are asked for again soon. */
const partTtlMs = 1_000;

/** `db.everywhere`, complete or in part as the reader of the list decides. */
export type AskAll = <R extends object>(
  query: (shard: Queries<Tables>, window: ShardWindow) => Promise<readonly R[]>,
  merge?: Pick<MergeOptions<NoInfer<R>>, "orderBy" | "limit" | "offset">,
) => Promise<R[]>;

/**
 * Reads a list through the cache. Only complete ones are kept; while that is not possible, what the other shards have is given, and
 * `seen` is told. `load` asks by the `everywhere` it is given.
 */
export async function readList<V>(options: {
  readonly db: Database<Tables>;
  readonly cache: Cache;
  readonly key: string;
  readonly read: ReadOptions;
  readonly seen: Seen | undefined;
  readonly load: (everywhere: AskAll, context: LoadContext) => Promise<V>;
}): Promise<V> {
  const { db, cache, key, read, seen, load } = options;
  try {
    return await cache.read(key, read, (context) =>
      load((query, merge) => db.everywhere(query, { ...merge, deadlineMs: inPart.deadlineMs }), context),
    );
  } catch (error) {
    if (db.shardCount === 1 || !(error instanceof UnavailableError)) throw error;
    seen?.incomplete();
    const { staleMs: _, ...once } = { ...read, ttlMs: partTtlMs };
    return cache.read(`part:${key}`, once, (context) =>
      load(async (query, merge) => (await db.everywhere(query, { ...merge, ...inPart })).rows, context),
    );
  }
}
