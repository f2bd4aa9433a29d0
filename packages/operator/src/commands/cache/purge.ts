/** `rungs cache purge`: ends cached entries by tag or key, in all processes. */
import type { ArgsDef } from "citty";
import type { Command } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { counted } from "../../output.ts";
import { askProcesses, cacheFlags } from "./common.ts";

const tagsMax = 1_000;

/** The command. */
export const purge: Command = {
  definition: {
    meta: { name: "purge", description: "End what bears one of these tags, or one key, in all processes" },
    args: {
      key: { type: "string", valueHint: "key", description: "End one key alone" },
      ...cacheFlags,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs cache purge articles", "every entry with the tag"],
    ["rungs cache purge articles user:bob", "with one of two tags"],
    ["rungs cache purge --key article:hello", "one key, whatever its tags"],
  ],
  wordsMax: tagsMax,
  async run(values, context) {
    const tags = [...new Set(values.words)];
    const key = values.text("key");
    const keys = key === undefined ? [] : [key];
    if (tags.length + keys.length === 0) {
      throw new UsageError("Which tags? Try: rungs cache purge articles, or --key article:hello");
    }
    const [told] = await askProcesses({ about: "cache.purge", tags, keys }, { of: "one", values, context });
    context.output.json({ purged: true, tags, keys, by: told?.process });
    const what = [
      ...(tags.length > 0 ? [counted(tags.length, "tag")] : []),
      ...(keys.length > 0 ? [counted(keys.length, "key")] : []),
    ];
    context.output.line(`${what.join(" and ")} purged, told to all processes by ${told?.process}.`);
  },
};
