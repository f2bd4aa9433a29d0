/** `rungs cache`: the cache of the running stack. Alone it tells how much comes from it; the commands below it are in `cache/`. */
import type { CacheFigures } from "rungs/operations";
import type { Command } from "../command.ts";
import type { Output } from "../output.ts";
import { askProcesses, cacheFlags, type Told } from "./cache/common.ts";

/** Sums over all web processes since each started. */
interface CacheSums {
  readonly processes: number;
  readonly reads: number;
  /** Reads answered by the process's own level, also with old values. */
  readonly localHits: number;
  readonly localHitRatio: number | null;
  /** What was missing there and found in the shared level; null without one. */
  readonly sharedHits: number | null;
  /** Of the looks into it that found something to serve or nothing. */
  readonly sharedHitRatio: number | null;
  readonly loads: number;
  readonly loadErrors: number;
  readonly waits: number;
  /** Looks at a key that another process loads; null without a shared level. */
  readonly sharedWaits: number | null;
  readonly staleServed: number;
  readonly invalidations: number;
  readonly entries: number;
  readonly bytes: number;
}

/** The command and those below it. */
export const cache: Command = {
  definition: {
    meta: { name: "cache", description: "Show how much the cache of the running stack takes, by level" },
    args: cacheFlags,
  },
  examples: [
    ["rungs cache", "hit ratios, loads, waits, memory, by process and in all"],
    ["rungs cache top", "the keys read most"],
    ["rungs cache inspect article:hello", "one key: where it is, its age and tags, why it would not be served"],
    ["rungs cache purge articles", "end what bears a tag, in all processes"],
    ["rungs cache --json", "for programs"],
  ],
  commands: {
    inspect: async () => (await import("./cache/inspect.ts")).inspect,
    purge: async () => (await import("./cache/purge.ts")).purge,
    top: async () => (await import("./cache/top.ts")).top,
  },
  async run(values, context) {
    const told = await askProcesses({ about: "cache.figures" }, { of: "all", values, context });
    const all = sumOf(told);
    context.output.json({ all, processes: told.map(({ process, answer }) => ({ process, ...answer })) });
    show(told, all, context.output);
  },
};

function sumOf(told: readonly Told<CacheFigures>[]): CacheSums {
  const figures = told.map(({ answer }) => answer.cache);
  const sum = (name: keyof CacheFigures["cache"]) => figures.reduce((total, of) => total + (of[name] ?? 0), 0);
  const hasShared = figures.some(({ sharedHits }) => sharedHits !== undefined);
  const [hits, old, misses] = [sum("hits"), sum("staleServed"), sum("misses")];
  const [found, foundOld, notFound] = [sum("sharedHits"), sum("sharedStaleServed"), sum("sharedMisses")];
  return {
    processes: told.length,
    reads: hits + old + misses,
    localHits: hits + old,
    localHitRatio: ratio(hits + old, misses),
    sharedHits: hasShared ? found + foundOld : null,
    sharedHitRatio: hasShared ? ratio(found + foundOld, notFound) : null,
    loads: sum("loads"),
    loadErrors: sum("loadErrors"),
    waits: sum("waits"),
    sharedWaits: hasShared ? sum("sharedWaits") : null,
    staleServed: old + foundOld,
    invalidations: sum("invalidations"),
    entries: sum("entries"),
    bytes: sum("bytes"),
  };
}

function ratio(hits: number, misses: number): number | null {
  return hits + misses === 0 ? null : hits / (hits + misses);
}

function show(told: readonly Told<CacheFigures>[], all: CacheSums, output: Output): void {
  if (told.every(({ answer }) => answer.isOff)) {
    output.line("The cache is turned off (--cache on turns it on).");
    return;
  }
  const columns = [...told.map((one) => ({ name: one.process, of: sumOf([one]) })), { name: "all", of: all }];
  const percent = (of: number | null) => (of === null ? "-" : `${(of * 100).toFixed(1)} %`);
  const number = (of: number | null) => of?.toLocaleString("en-US") ?? "-";
  const rows: [string, (of: CacheSums) => string][] = [
    ["reads", (of) => number(of.reads)],
    ["from the process", (of) => percent(of.localHitRatio)],
    ["of the rest, shared", (of) => percent(of.sharedHitRatio)],
    ["loads", (of) => number(of.loads)],
    ["loads that failed", (of) => number(of.loadErrors)],
    ["waits for a load", (of) => number(of.waits)],
    ["waits, other process", (of) => number(of.sharedWaits)],
    ["served old", (of) => number(of.staleServed)],
    ["invalidations", (of) => number(of.invalidations)],
    ["entries", (of) => number(of.entries)],
    ["memory", (of) => `${(of.bytes / 1024 / 1024).toFixed(1)} MB`],
  ];
  output.table({
    head: ["WHAT", ...columns.map(({ name }) => name.toUpperCase())],
    right: columns.map((_, index) => index + 1),
    rows: rows.map(([what, of]) => [what, ...columns.map((column) => of(column.of))]),
  });
}
