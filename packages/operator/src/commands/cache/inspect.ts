/** `rungs cache inspect`: one key, in each process and in the shared level. */
import type { LevelInspection } from "rungs/cache";
import type { Command, CommandContext } from "../../command.ts";
import { NotFoundError, UsageError } from "../../exit-code.ts";
import { duration, plain, shorten } from "../../output.ts";
import { askProcesses, cacheFlags } from "./common.ts";

interface Level extends LevelInspection {
  /** A process's name, or "shared". */
  readonly where: string;
}

/** The command. */
export const inspect: Command = {
  definition: {
    meta: {
      name: "inspect",
      description: "Show where a key is, its age and tags, and why it would not be served",
    },
    args: { key: { type: "positional", description: "The key, from top or the app's code" }, ...cacheFlags },
  },
  examples: [
    ["rungs cache inspect article:hello", "in each process, and in the shared cache"],
    ["rungs cache inspect article:hello --json", "for programs"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const [key] = values.words;
    if (key === undefined)
      throw new UsageError("Which key? Try: rungs cache inspect article:hello, or rungs cache top");
    const told = await askProcesses({ about: "cache.inspect", key }, { of: "all", values, context });
    const shared = told.find(({ answer }) => answer.shared !== null)?.answer.shared;
    const levels: Level[] = [
      ...told.map(({ process, answer }) => ({ where: process, ...answer.local })),
      ...(shared == null ? [] : [{ where: "shared", ...shared }]),
    ];
    const loading = told.filter(({ answer }) => answer.isLoading).map(({ process }) => process);
    context.output.json({ key, loading, levels });
    if (!context.output.isJson && loading.length === 0 && levels.every(({ notServed }) => notServed === "absent")) {
      throw new NotFoundError(`No level holds the key ${plain(key)}. Keys that are read: rungs cache top`);
    }
    show({ levels, loading }, context);
  },
};

/** Why it would not be served, in words. */
const reasons: Readonly<Record<string, string>> = {
  absent: "not there",
  over: "its time is over",
  unheard: "invalidations are not heard: Redis is away",
  withheld: "too large or of no kind to be shared",
  unreachable: "the shared cache does not answer",
};

function show(
  { levels, loading }: { readonly levels: readonly Level[]; readonly loading: readonly string[] },
  { output }: CommandContext,
): void {
  const time = (ms: number | null) => (ms === null ? "-" : duration(ms));
  output.table({
    head: ["WHERE", "SERVED", "AGE", "FRESH FOR", "THEN OLD", "AS OF", "BYTES"],
    right: [2, 3, 4, 5, 6],
    rows: levels.map((of) => [
      of.where,
      servedOf(of),
      time(of.ageMs),
      time(of.freshMs),
      time(of.staleMs),
      of.asOf === null ? "-" : String(of.asOf),
      of.bytes === null ? "-" : of.bytes.toLocaleString("en-US"),
    ]),
  });
  const tags = new Set(levels.flatMap((of) => of.tags ?? []));
  if (tags.size > 0) output.line(`\ntags: ${[...tags].map((tag) => shorten(tag, 200)).join(", ")}`);
  if (loading.length > 0) output.line(`being loaded by ${loading.join(", ")}`);
}

function servedOf({ notServed, endedBy, isNegative, freshMs }: Level): string {
  if (notServed === "invalidated") return `no: ${shorten(endedBy ?? "", 60)} was invalidated`;
  if (notServed !== null) return `no: ${reasons[notServed] ?? notServed}`;
  return `yes${freshMs === 0 ? ", old while it is refreshed" : ""}${isNegative ? " (as missing)" : ""}`;
}
