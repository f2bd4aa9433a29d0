/** The flags by which a command finds the app's databases: the app's own, resolved as the app resolves them. */
import type { ArgsDef } from "citty";
import { loadConfigFile, parseCommandLine, resolveTopology, type Topology } from "rungs/topology";
import type { CommandContext, Values } from "./command.ts";

/** To be spread into a command's arguments. */
export const topologyFlags = {
  dir: {
    type: "string",
    valueHint: "folder",
    description: "Where the app's data lives (env RUNGS_DIR; default .rungs)",
  },
  config: {
    type: "string",
    valueHint: "file",
    description: "The app's settings file (default rungs.config.*, if there)",
  },
  shards: { type: "string", valueHint: "n", description: "Number of databases (env RUNGS_SHARDS; default 1)" },
  strategy: {
    type: "string",
    valueHint: "hash|range",
    description: "How keys map to shards (env RUNGS_STRATEGY; default hash)",
  },
  split: {
    type: "string",
    valueHint: "key",
    description: "For range: first key of a further shard; once for each",
  },
  rung: { type: "string", valueHint: "n", description: "Start from the preset of a rung (env RUNGS_RUNG)" },
} satisfies ArgsDef;

/** The topology by flags, environment, config file and defaults. Raises what `rungs/topology` raises. */
export async function topologyOf(values: Values, { environment, folder, output }: CommandContext): Promise<Topology> {
  const given = Object.keys(topologyFlags).flatMap((name) => flagWords(values, name));
  const { flags, config } = parseCommandLine(given);
  const file = await loadConfigFile(folder, config);
  const resolved = resolveTopology({ ...(file === undefined ? {} : { file }), environment, flags });
  for (const warning of resolved.warnings) output.remark(warning);
  return resolved.topology;
}

/** The words by which a flag was given, for a command line of the app's own. */
export function flagWords(values: Values, name: string): string[] {
  const texts = name === "split" ? values.texts(name) : [values.text(name)];
  return texts.flatMap((text) => (text === undefined ? [] : [`--${name}=${text}`]));
}
