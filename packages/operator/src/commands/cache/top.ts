/** `rungs cache top`: the keys read most. */
import type { ArgsDef } from "citty";
import type { HottestKeys } from "rungs/cache";
import type { Command } from "../../command.ts";
import { shorten } from "../../output.ts";
import { wholeNumber } from "../../parse.ts";
import { askProcesses, cacheFlags, type Told } from "./common.ts";

const numberDefault = 20;
const numberMax = 256;
/** Of each process: what is hot in all may be further down in one. */
const askedFor = 256;

interface HotKeyOfAll {
  readonly key: string;
  readonly reads: number;
  readonly errorMax: number;
  /** Of all reads; null before the first. */
  readonly share: number | null;
}

/** The command. */
export const top: Command = {
  definition: {
    meta: { name: "top", description: "List the keys read most, estimated from every 64th read" },
    args: {
      number: {
        type: "string",
        valueHint: "n",
        description: `Keys to list (default ${numberDefault}, at most ${numberMax})`,
      },
      ...cacheFlags,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs cache top", "the twenty hottest"],
    ["rungs cache top --number 5 --json", "for programs"],
  ],
  async run(values, context) {
    const { output } = context;
    const number = wholeNumber(values, { name: "number", min: 1, max: numberMax, fallback: numberDefault });
    const told = await askProcesses({ about: "cache.top", keysMax: askedFor }, { of: "all", values, context });
    const { reads, keys } = joined(told);
    const shown = keys.slice(0, number);
    output.json({ reads, keys: shown });
    if (shown.length === 0) return output.line("Nothing has been read yet.");
    output.table({
      head: ["KEY", "READS", "AT MOST TOO MANY", "SHARE"],
      right: [1, 2, 3],
      rows: shown.map(({ key, reads: count, errorMax, share }) => [
        shorten(key, 80),
        `~${count.toLocaleString("en-US")}`,
        errorMax.toLocaleString("en-US"),
        share === null ? "-" : `${(share * 100).toFixed(1)} %`,
      ]),
    });
  },
};

function joined(told: readonly Told<HottestKeys>[]): { readonly reads: number; readonly keys: HotKeyOfAll[] } {
  const reads = told.reduce((sum, { answer }) => sum + answer.reads, 0);
  const sums = new Map<string, { reads: number; errorMax: number }>();
  for (const { key, reads: count, errorMax } of told.flatMap(({ answer }) => answer.keys)) {
    const before = sums.get(key) ?? { reads: 0, errorMax: 0 };
    sums.set(key, { reads: before.reads + count, errorMax: before.errorMax + errorMax });
  }
  const keys = [...sums].map(([key, of]) => ({ key, ...of, share: reads === 0 ? null : of.reads / reads }));
  return { reads, keys: keys.sort((a, b) => b.reads - a.reads) };
}
