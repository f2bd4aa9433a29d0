/** The topology: configuration as data. */
export { type CommandLine, parseCommandLine } from "./command-line.ts";
export { type ConfigFile, configFileNames, loadConfigFile } from "./config-file.ts";
export { describeTopology } from "./describe.ts";
export { diffTopologies, type TopologyChange } from "./diff.ts";
export {
  type GroupWork,
  groupOfService,
  groupSizes,
  groupsOf,
  type ProcessWork,
  processWork,
  webGroup,
  workersGroup,
} from "./groups.ts";
export type { FlagName, Flags } from "./inputs.ts";
export { nearestName } from "./nearest.ts";
export { presetFor, presetShards, type Rung, rungOf, rungPresets } from "./presets.ts";
export { defaultLeaderRegion, otherRegions } from "./regions.ts";
export { type ResolvedTopology, type ResolveInput, resolveTopology } from "./resolve.ts";
export { type Environment, env, Secret, splitAddresses } from "./secret.ts";
export {
  databaseGroupOf,
  databaseGroups,
  ownDatabaseGroup,
  refuseUngrouped,
  topologyOfDatabase,
} from "./service-databases.ts";
export {
  type Address,
  type CdnSettings,
  defaultTopology,
  defineTopology,
  type Region,
  type ServiceDatabase,
  type ServiceGroup,
  type ShardServers,
  shardCount,
  type Topology,
  type TopologyInput,
} from "./topology.ts";
export { refuseUnsupported, unsupportedSettings } from "./unsupported.ts";
