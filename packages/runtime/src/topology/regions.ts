/** Regions of a topology: where its leaders are when nobody says, and how the others are reached. */
import type { Topology } from "./topology.ts";

/** The region of leaders that do not say theirs: the one with `isLeader`, or the only one. Undefined without regions. */
export function defaultLeaderRegion({ regions = {} }: Topology): string | undefined {
  const names = Object.keys(regions);
  return names.find((name) => regions[name]?.isLeader === true) ?? (names.length === 1 ? names[0] : undefined);
}

/** Inner addresses of the regions beside the process's own, by name; empty where the process is in none. */
export function otherRegions({ regions = {}, region }: Topology): ReadonlyMap<string, string> {
  if (region === undefined) return new Map();
  return new Map(
    Object.entries(regions).flatMap(([name, { url }]): [string, string][] =>
      name === region || url === undefined ? [] : [[name, url]],
    ),
  );
}
