/** `rungs scale web N`: more or fewer processes of a group, while requests go on being answered. */
import type { Command } from "../command.ts";
import { UsageError } from "../exit-code.ts";
import { askChange } from "../stack/control/control-client.ts";
import { folderOf, showProcesses, stackFlags } from "./stack/common.ts";

const processesMax = 256;

/** The command. */
export const scale: Command = {
  definition: {
    meta: { name: "scale", description: "Change the number of a group's processes, without a failed request" },
    args: {
      group: { type: "positional", required: false, description: "web, workers, or another group" },
      number: { type: "positional", required: false, description: `1 to ${processesMax}` },
      ...stackFlags,
    },
  },
  examples: [
    ["rungs scale web 6", "six web processes"],
    ["rungs scale web 2", "back to two; the others finish their requests first"],
    ["rungs scale workers 4", "four processes for handlers; those that leave finish what they began"],
  ],
  wordsMax: 2,
  async run(values, context) {
    const { output, signal } = context;
    const [group, text = ""] = values.words;
    const number = /^\d{1,3}$/.test(text) ? Number(text) : 0;
    if (group === undefined || number < 1 || number > processesMax) {
      throw new UsageError(`Say what to scale, and to how many, 1 to ${processesMax}: rungs scale web 6`);
    }
    const folder = await folderOf(values, context);
    const after = await askChange(folder, `/scale?group=${encodeURIComponent(group)}&processes=${number}`, {
      signal,
      onProgress: (progress) => output.line(progress),
    });
    output.json({ scaled: true, processes: after.processes });
    output.line("");
    showProcesses(after.processes, output);
  },
};
