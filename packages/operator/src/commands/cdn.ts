/** `rungs cdn`: the cache in front of the app. Alone it tells how much comes from it; the commands below it are in `cdn/`. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { UnavailableError } from "rungs";
import type { Command, CommandContext } from "../command.ts";
import { varnishFolder } from "../stack/front/varnish.ts";
import { findProgram } from "../stack/process/find-program.ts";
import { cdnFlags, noCdn, stackEdge } from "./cdn/common.ts";

/** Counters since Varnish started, and what it holds now. */
interface EdgeFigures {
  readonly hits: number;
  /** Of them, old ones served while a new one was fetched or the app did not answer. */
  readonly staleHits: number;
  readonly misses: number;
  /** Requests that went to the app because their answers are not shared. */
  readonly passes: number;
  /** Hits in all requests; null before the first. */
  readonly hitRatio: number | null;
  readonly objects: number;
  readonly bytes: number;
  /** Let go because memory was full. */
  readonly evicted: number;
  readonly originFailures: number;
  readonly uptimeSeconds: number;
}

/** The command and those below it. */
export const cdn: Command = {
  definition: {
    meta: { name: "cdn", description: "Show how much of the traffic the CDN of the running stack takes" },
    args: cdnFlags,
  },
  examples: [
    ["rungs cdn", "hits, misses, what goes past it, memory"],
    ["rungs cdn inspect /article/hello", "one address: kept or not, age, keys, why not"],
    ["rungs cdn purge articles", "let go of every list of articles"],
    ["rungs cdn --json", "for programs"],
  ],
  commands: {
    inspect: async () => (await import("./cdn/inspect.ts")).inspect,
    purge: async () => (await import("./cdn/purge.ts")).purge,
  },
  async run(values, context) {
    const edge = await stackEdge(values, context);
    if (edge === undefined) throw noCdn();
    const figures = together(await Promise.all(edge.folders.map((folder) => figuresOf(folder, context))));
    context.output.json(figures);
    show(figures, context);
  },
};

async function figuresOf(folder: string, { environment, signal }: CommandContext): Promise<EdgeFigures> {
  const program = findProgram("varnishstat", environment) ?? "varnishstat";
  let text: string;
  try {
    const options = { signal, timeout: 10_000, maxBuffer: 8 * 1024 * 1024 };
    text = (await promisify(execFile)(program, ["-n", varnishFolder(folder), "-j", "-1"], options)).stdout;
  } catch (cause) {
    signal.throwIfAborted();
    throw new UnavailableError("CDN_UNREACHABLE", "varnishstat could not read the running Varnish. See: rungs status", {
      canRetry: true,
      cause,
    });
  }
  const { counters } = JSON.parse(text) as { counters: Record<string, { value: number } | undefined> };
  const value = (name: string) => counters[`MAIN.${name}`]?.value ?? 0;
  const hits = value("cache_hit");
  const misses = value("cache_miss");
  const passes = value("s_pass");
  const all = hits + misses + passes;
  return {
    hits,
    staleHits: value("cache_hit_grace"),
    misses,
    passes,
    hitRatio: all === 0 ? null : hits / all,
    objects: value("n_object"),
    bytes: counters["SMA.s0.g_bytes"]?.value ?? 0,
    evicted: value("n_lru_nuked"),
    originFailures: value("backend_fail") + value("fetch_failed"),
    uptimeSeconds: value("uptime"),
  };
}

/** Of all regions. */
function together(all: readonly EdgeFigures[]): EdgeFigures {
  const sum = (name: Exclude<keyof EdgeFigures, "hitRatio">) =>
    all.reduce((total, figures) => total + figures[name], 0);
  const [hits, misses, passes] = [sum("hits"), sum("misses"), sum("passes")];
  return {
    ...{ hits, misses, passes, staleHits: sum("staleHits"), objects: sum("objects"), bytes: sum("bytes") },
    hitRatio: hits + misses + passes === 0 ? null : hits / (hits + misses + passes),
    ...{ evicted: sum("evicted"), originFailures: sum("originFailures") },
    uptimeSeconds: Math.min(...all.map(({ uptimeSeconds }) => uptimeSeconds)),
  };
}

function show(figures: EdgeFigures, { output }: CommandContext): void {
  const number = (value: number) => value.toLocaleString("en-US");
  const ratio = figures.hitRatio === null ? "-" : `${(figures.hitRatio * 100).toFixed(1)} %`;
  output.table({
    head: ["WHAT", "NUMBER"],
    right: [1],
    rows: [
      ["hit ratio", ratio],
      ["hits", number(figures.hits)],
      ["  of them old", number(figures.staleHits)],
      ["misses", number(figures.misses)],
      ["past the CDN", number(figures.passes)],
      ["answers held", number(figures.objects)],
      ["memory", `${(figures.bytes / 1024 / 1024).toFixed(1)} MB`],
      ["let go for memory", number(figures.evicted)],
      ["failures of the app", number(figures.originFailures)],
      ["running for", `${number(figures.uptimeSeconds)} s`],
    ],
  });
}
