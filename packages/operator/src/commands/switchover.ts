/** `rungs switchover SHARD`: hands the leadership of a shard to one of its followers, as before maintenance of its server. */
import type { Command } from "../command.ts";
import { UsageError } from "../exit-code.ts";
import { askChange } from "../stack/control/control-client.ts";
import { folderOf, showShards, stackFlags } from "./stack/common.ts";

/** The command. */
export const switchover: Command = {
  definition: {
    meta: { name: "switchover", description: "Hand the leadership of a shard to a follower; writes wait a moment" },
    args: {
      shard: { type: "positional", required: false, description: "Number of the shard, from 0" },
      to: { type: "string", valueHint: "region", description: "Where there are regions: the one to lead from" },
      ...stackFlags,
    },
  },
  examples: [
    ["rungs switchover 0", "another server leads shard 0; nothing that was written is lost"],
    ["rungs switchover 0 --to us", "the one in that region"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const { output, signal } = context;
    const [shard = ""] = values.words;
    if (!/^\d{1,4}$/.test(shard)) throw new UsageError("Say which shard: rungs switchover 0");
    const folder = await folderOf(values, context);
    const to = values.text("to");
    const where = to === undefined ? "" : `&to=${encodeURIComponent(to)}`;
    const after = await askChange(folder, `/switchover?shard=${shard}${where}`, {
      signal,
      onProgress: (text) => output.line(text),
    });
    output.json({ switched: true, shards: after.shards });
    showShards(after.shards, output);
  },
};
