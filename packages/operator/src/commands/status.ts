/** `rungs status`: what runs. */
import type { Command } from "../command.ts";
import { askStatus, nothingRuns } from "../stack/control/control-client.ts";
import { folderOf, showHandlers, showProcesses, showShards, stackFlags } from "./stack/common.ts";

/** The command. */
export const status: Command = {
  definition: {
    meta: {
      name: "status",
      description: "Show the processes of the running stack, who leads its databases, and handlers",
    },
    args: stackFlags,
  },
  examples: [
    ["rungs status", "what runs in .rungs"],
    ["rungs status --dir /tmp/other --json", "what runs elsewhere, for programs"],
  ],
  async run(values, context) {
    const { output, signal } = context;
    const folder = await folderOf(values, context);
    const found = await askStatus(folder, signal);
    if (found === undefined) {
      output.json({ running: false, folder, processes: [] });
      if (output.isJson) return;
      throw nothingRuns(folder);
    }
    output.json({ running: true, ...found });
    const where = found.regions.length === 0 ? [found.app] : found.regions.map(({ name, app }) => `${app} (${name})`);
    output.line(`Rung ${found.rung} at ${where.join(", ")}, started by process ${found.launcherPid} in ${folder}\n`);
    showProcesses(found.processes, output);
    showShards(found.shards, output);
    showHandlers(found.handlers, output);
  },
};
