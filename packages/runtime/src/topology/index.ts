/** The topology: configuration as data. */
export { diffTopologies } from "./paths.ts";
export { presetFor, type Rung, rungOf } from "./presets.ts";
export { type Flags, type ResolvedTopology, type ResolveInput, resolveTopology, unsupportedSettings } from "./resolve.ts";
export { defaultTopology, defineTopology, type Topology, type TopologyInput, topologySchema } from "./schema.ts";
export { type Environment, env, Secret } from "./secret.ts";
export { type CommandLine, describeTopology, loadConfigFile, parseCommandLine } from "./sources.ts";
