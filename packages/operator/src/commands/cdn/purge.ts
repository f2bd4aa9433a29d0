/** `rungs cdn purge`: lets the CDN go of what bears a tag. */
import type { ArgsDef } from "citty";
import { siteKey, surrogateKey } from "rungs/cdn";
import type { Command } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { counted } from "../../output.ts";
import { cdnFlags, cdnToPurge } from "./common.ts";

const tagsMax = 1_000;
const withinMs = 30_000;

/** The command. */
export const purge: Command = {
  definition: {
    meta: { name: "purge", description: "Purge what bears one of these tags (or keys, as inspect shows them)" },
    args: {
      all: { type: "boolean", description: "Purge everything that the app shares" },
      hard: { type: "boolean", description: "Keep nothing for an outage of the app (default: keep it)" },
      ...cdnFlags,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs cdn purge articles", "every list of articles"],
    [
      "rungs cdn purge article:0192f0c1-0000-7000-8000-000000000001 user:bob",
      "tags as the app's writes invalidate them",
    ],
    ["rungs cdn purge --all", "the whole site"],
  ],
  wordsMax: tagsMax,
  async run(values, context) {
    const { output, signal } = context;
    const tags = values.isSet("all") ? [siteKey] : values.words;
    if (tags.length === 0) throw new UsageError("Which tags? Try: rungs cdn purge articles, or --all");
    const cdn = await cdnToPurge(values, context);
    const keys = [...new Set(tags.map(surrogateKey))];
    for (let at = 0; at < keys.length; at += cdn.keysMax) {
      await cdn.purge(keys.slice(at, at + cdn.keysMax), {
        soft: !values.isSet("hard"),
        signal: AbortSignal.any([signal, AbortSignal.timeout(withinMs)]),
      });
    }
    output.json({ purged: true, cdn: cdn.name, keys });
    output.line(`${counted(keys.length, "key")} purged at ${cdn.name}.`);
  },
};
