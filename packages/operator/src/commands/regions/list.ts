/** `rungs regions list`: who leads where, and how the regions are. */
import type { Command } from "../../command.ts";
import { askRegions, nothingRuns } from "../../stack/control/control-client.ts";
import { folderOf, stackFlags } from "../stack/common.ts";
import { showRegions } from "./common.ts";

/** The command. */
export const listRegions: Command = {
  definition: {
    meta: { name: "list", description: "Show who leads where, and how the regions are" },
    args: stackFlags,
  },
  examples: [
    ["rungs regions list", "leaders, health, drained ones, processes"],
    ["rungs regions list --json", "for programs"],
  ],
  async run(values, context) {
    const { output, signal } = context;
    const folder = await folderOf(values, context);
    const found = await askRegions(folder, signal);
    if (found === undefined) throw nothingRuns(folder);
    output.json(found);
    showRegions(found, output);
  },
};
