/** Prints a topology, as for `--show-config`. */
import { redactAddress } from "./address.ts";
import { leavesOf } from "./paths.ts";
import type { ResolvedTopology } from "./resolve.ts";
import { Secret } from "./secret.ts";

/** The longest value that others are aligned to. */
const alignedMax = 40;

/**
 * One line a setting: path, value and, in brackets, where it came from. Secrets show as references, addresses without
 * user and parameters.
 */
export function describeTopology({ topology, sources }: Pick<ResolvedTopology, "topology" | "sources">): string[] {
  const rows = leavesOf(topology).map(
    ([path, value]) => [path, showSetting(value), sources.get(path) ?? "default"] as const,
  );
  const pathWidth = Math.max(0, ...rows.map(([path]) => path.length));
  const valueWidth = Math.max(0, ...rows.map(([, value]) => value.length).filter((length) => length <= alignedMax));
  return rows.map(([path, value, source]) => `${path.padEnd(pathWidth)}  ${value.padEnd(valueWidth)}  (${source})`);
}

function showSetting(value: unknown): string {
  if (value instanceof Secret) return value.toString();
  if (typeof value === "string") return redactAddress(value);
  if (!Array.isArray(value)) return String(value);
  return value.length === 0 ? "none" : value.map(showSetting).join(", ");
}
