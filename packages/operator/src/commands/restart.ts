/** `rungs restart web`: replaces the processes of a group one by one, or one process, while requests go on being answered. */
import type { Command } from "../command.ts";
import { UsageError } from "../exit-code.ts";
import { askChange } from "../stack/control/control-client.ts";
import { folderOf, showProcesses, stackFlags } from "./stack/common.ts";

/** The command. */
export const restart: Command = {
  definition: {
    meta: { name: "restart", description: "Replace the processes of a group one by one, without a failed request" },
    args: {
      what: { type: "positional", required: false, description: "web, workers, another group, or one process" },
      ...stackFlags,
    },
  },
  examples: [
    ["rungs restart web", "e.g. after new code was put in place"],
    ["rungs restart workers", "the processes that run handlers: they finish what they began"],
    ["rungs restart payments", "one group of services; the others keep their code"],
    ["rungs restart web-2", "one process, e.g. to try new code on it first"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const { output, signal } = context;
    const [what] = values.words;
    if (what === undefined) throw new UsageError("Say what to restart: rungs restart web");
    const folder = await folderOf(values, context);
    const after = await askChange(folder, `/restart?what=${encodeURIComponent(what)}`, {
      signal,
      onProgress: (text) => output.line(text),
    });
    output.json({ restarted: true, processes: after.processes });
    output.line("");
    showProcesses(after.processes, output);
  },
};
