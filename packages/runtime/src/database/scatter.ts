/** Asking several shards at once: each within a deadline, the failure of one told or raised as the caller chose. */
import { ConfigError, UnavailableError } from "../kernel/errors.ts";
import type { KeysOptions, MergeOptions, MissingShard, PartialRows, Queries, Shard, ShardWindow } from "./database.ts";
import { checkParts, checkWindow, checkWindowRead, mergeRows, watchedWindow } from "./merge-rows.ts";
import { isRefusal } from "./sharding/owner-routing.ts";
import type { Lease } from "./sharding/placement-lease.ts";
import type { PlacementSource } from "./sharding/placement-watch.ts";

/** The shards of one database, as questions to all of them need them. */
export interface ScatterOptions<T> {
  readonly shards: readonly Shard<T>[];
  /** Names of the shards, for messages. */
  readonly names: readonly string[];
  /** Undefined where the placement cannot change. */
  readonly source: PlacementSource | undefined;
  /** Check that what shards give can be merged. */
  readonly isChecked: boolean;
  /** How long each shard has, in ms, unless the caller says otherwise; 0 for as long as it takes. */
  readonly deadlineMs: number;
}

/** Rows that one shard may give for one question, unless the caller says otherwise. */
const rowsMaxDefault = 100_000;
/** How often a question is asked again because keys moved meanwhile. */
const movesMax = 3;

type Failure = "fail" | "partial";
type Either<R> = Omit<MergeOptions<R>, "onFailure"> & { readonly onFailure?: Failure };

/** See {@link Database.everywhere}. */
export async function askEverywhere<T, R extends object>(
  options: ScatterOptions<T>,
  query: (shard: Queries<T>, window: ShardWindow) => Promise<readonly R[]>,
  merge: Either<R>,
): Promise<PartialRows<R>> {
  const { shards, isChecked } = options;
  const order = mergeOf(merge);
  checkWindow(order);
  const { limit = Number.MAX_SAFE_INTEGER, offset = 0, rowsMax = rowsMaxDefault } = merge;
  const isSingle = shards.length === 1;
  // A single shard skips the rows before the window itself; several cannot know which of theirs those are.
  const window = isSingle ? { limit, offset } : { limit: Math.min(offset + limit, Number.MAX_SAFE_INTEGER), offset: 0 };
  if (merge.limit !== undefined) refuseTooMany("the window asks each shard for", offset + limit, rowsMax);
  const watched = watchedWindow(window);
  const all = shards.map((_, shard) => shard);
  const ask = (shard: number) => query(shards[shard] as Shard<T>, isChecked ? watched.window : window);
  const { parts, missing } = await untilSettled(options.source, () => onShards(options, all, merge, ask));
  // An empty list would look like an answer.
  if (missing.length === shards.length) throw missing[0]?.error;
  for (const rows of parts) refuseTooMany("a shard gave", rows.length, rowsMax);
  if (isChecked) {
    checkWindowRead(watched.isRead(), order);
    checkParts(parts, order, window.limit);
  }
  return { rows: mergeRows(parts, isSingle ? { limit } : order), missing };
}

/** Questions about keys: where each is, and the shard of that number for queries about those keys. */
export interface KeyedScatterOptions<T> extends ScatterOptions<T> {
  readonly ownerOf: (key: string) => number | Promise<number>;
  readonly open: (shard: number, keys: readonly string[]) => Shard<T>;
}

/** See {@link Database.byKey}. */
export async function askByKey<T, R>(
  options: KeyedScatterOptions<T>,
  keys: readonly string[],
  query: (shard: Queries<T>, keys: readonly string[]) => Promise<readonly R[]>,
  settings: Omit<KeysOptions, "onFailure"> & { readonly onFailure?: Failure },
): Promise<PartialRows<R>> {
  const { parts, missing } = await untilSettled(options.source, async () => {
    const { groups, ownerless } = await groupByOwner(options, keys, settings.onFailure);
    const answers = await onShards(options, [...groups.keys()], settings, (shard) => {
      const group = groups.get(shard) as string[];
      return query(options.open(shard, group), group);
    });
    return { ...answers, missing: [...ownerless, ...answers.missing] };
  });
  return { rows: parts.flat(), missing };
}

async function groupByOwner<T>(
  { ownerOf }: KeyedScatterOptions<T>,
  keys: readonly string[],
  onFailure: Failure = "fail",
): Promise<{ readonly groups: ReadonlyMap<number, string[]>; readonly ownerless: readonly MissingShard[] }> {
  const groups = new Map<number, string[]>();
  const ownerless: MissingShard[] = [];
  for (const key of new Set(keys)) {
    try {
      // Without a promise where the owner is known: keys are many.
      const owner = ownerOf(key);
      const shard = typeof owner === "number" ? owner : await owner;
      const group = groups.get(shard);
      if (group === undefined) groups.set(shard, [key]);
      else group.push(key);
    } catch (error) {
      if (onFailure === "fail" || !(error instanceof UnavailableError)) throw error;
      ownerless.push({ shard: "no shard yet", error });
    }
  }
  return { groups, ownerless };
}

interface Answers<R> {
  readonly parts: readonly (readonly R[])[];
  readonly missing: readonly MissingShard[];
  /** Keys changed their owner meanwhile: a row may be counted twice, or not at all. */
  readonly isMoved: boolean;
}

/** Asks again, a few times, when keys moved during the question. */
async function untilSettled<R>(
  source: PlacementSource | undefined,
  ask: () => Promise<Answers<R>>,
): Promise<Answers<R>> {
  for (let moves = 0; ; moves++) {
    try {
      const answers = await ask();
      if (!answers.isMoved || moves >= movesMax) return answers;
    } catch (error) {
      if (source === undefined || !isRefusal(error) || moves >= movesMax) throw error;
      await source.refresh();
      await source.pause();
    }
  }
}

/** Asks the shards of these numbers at once. */
async function onShards<T, R>(
  options: ScatterOptions<T>,
  shards: readonly number[],
  {
    onFailure = "fail",
    deadlineMs = options.deadlineMs,
  }: { readonly onFailure?: Failure; readonly deadlineMs?: number },
  ask: (shard: number) => Promise<readonly R[]>,
): Promise<Answers<R>> {
  const { source, names } = options;
  const leases: Lease[] = [];
  const answers = await Promise.all(
    shards.map(async (shard): Promise<readonly R[] | MissingShard> => {
      const name = names[shard] as string;
      try {
        return await within(deadlineMs, name, async () => {
          if (source === undefined) return ask(shard);
          const lease = await source.obtainShard(shard);
          leases.push(lease);
          return ask(shard);
        });
      } catch (error) {
        if (onFailure === "fail" || !(error instanceof UnavailableError) || isRefusal(error)) throw error;
        return { shard: name, error };
      }
    }),
  );
  const missing = answers.filter(isMissing);
  return {
    parts: answers.filter((answer): answer is readonly R[] => !isMissing(answer)),
    missing,
    isMoved: source !== undefined && !leases.every((lease) => source.isLatest(lease)),
  };
}

function isMissing<R>(answer: readonly R[] | MissingShard): answer is MissingShard {
  return !Array.isArray(answer);
}

/** The work goes on after its deadline, until the server's own timeout ends it; nobody waits for it any more. */
async function within<R>(deadlineMs: number, name: string, work: () => Promise<R>): Promise<R> {
  if (deadlineMs === 0) return work();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(
        new UnavailableError(
          "SHARD_TIMEOUT",
          `${name} did not answer within ${deadlineMs} ms, the deadline of the question.`,
          {
            canRetry: true,
          },
        ),
      ),
    deadlineMs,
  );
  try {
    return await Promise.race([work(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function refuseTooMany(what: string, rows: number, rowsMax: number): void {
  if (rows <= rowsMax) return;
  throw new ConfigError(
    "MERGE_INVALID",
    `db.everywhere holds its rows in memory: ${what} ${rows} rows, limit ${rowsMax}. Page by cursor, or raise rowsMax.`,
  );
}

function mergeOf<R>({ orderBy, limit, offset }: Either<R>): MergeOptions<R> {
  return {
    ...(orderBy === undefined ? {} : { orderBy }),
    ...(limit === undefined ? {} : { limit }),
    ...(offset === undefined ? {} : { offset }),
  };
}
