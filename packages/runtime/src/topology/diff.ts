/** What changes between two topologies. */
import { isDeepStrictEqual } from "node:util";
import { leavesOf } from "./paths.ts";
import type { Topology } from "./topology.ts";

/** One setting that differs. */
export interface TopologyChange {
  /** The tier or group it belongs to: the first word of its path. */
  readonly tier: keyof Topology;
  /** E.g. `web.processes` or `database.shards[0].leader`. */
  readonly path: string;
  /** Undefined where the setting is new. Secrets are references. */
  readonly from: unknown;
  /** Undefined where the setting goes away. */
  readonly to: unknown;
}

/** Every setting that differs, by path in alphabetical order; empty for equal topologies. */
export function diffTopologies(from: Topology, to: Topology): TopologyChange[] {
  const before = new Map(leavesOf(from));
  const after = new Map(leavesOf(to));
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((path) => !isDeepStrictEqual(before.get(path), after.get(path)))
    .sort()
    .map((path) => ({
      tier: path.split(/[.[]/)[0] as keyof Topology,
      path,
      from: before.get(path),
      to: after.get(path),
    }));
}
