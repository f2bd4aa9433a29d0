/** `rungs restart web`: replaces the web processes one by one while requests go on being answered. */
import type { Command } from "../command.ts";
import { UsageError } from "../exit-code.ts";
import { askChange } from "../stack/control-client.ts";
import { folderOf, showProcesses, stackFlags } from "./stack/common.ts";

/** The command. */
export const restart: Command = {
  definition: {
    meta: { name: "restart", description: "Replace the web processes one by one, without a failed request" },
    args: { tier: { type: "positional", required: false, description: "web" }, ...stackFlags },
  },
  examples: [["rungs restart web", "e.g. after new code was put in place"]],
  wordsMax: 1,
  async run(values, context) {
    const { output, signal } = context;
    if (values.words[0] !== "web") throw new UsageError("Say what to restart: rungs restart web");
    const folder = await folderOf(values, context);
    const after = await askChange(folder, "/restart", { signal, onProgress: (text) => output.line(text) });
    output.json({ restarted: true, processes: after.processes });
    output.line("");
    showProcesses(after.processes, output);
  },
};
