/** Settings that are valid but that this version cannot carry out. */
import { UnsupportedError } from "../kernel/errors.ts";
import { defaultTopology, type Topology } from "./topology.ts";

/** Paths of the settings that nothing carries out yet; empty when the topology can run. */
export function unsupportedSettings(topology: Topology): string[] {
  const { web, cdn, regions, region, database, log } = topology;
  const found: string[] = [];
  if (web.processes > 1) found.push("web.processes");
  if (web.balancer !== undefined) found.push("web.balancer");
  if (cdn?.provider === "fastly") found.push("cdn.provider");
  if (cdn?.provider === "varnish" && cdn.addresses === undefined) found.push("cdn");
  if (region === undefined && regions !== undefined && Object.keys(regions).length > 0) found.push("regions");
  // Each table names its own key today; one for all of them has no reader yet.
  if (database.key !== defaultTopology.database.key) found.push("database.key");
  if (log.isPretty) found.push("log.isPretty");
  return found;
}

/** What the launcher of `rungs up` carries out, and no process by itself. */
const launched: readonly string[] = ["web.processes", "web.balancer", "cdn", "regions"];

/** Raises `CAPABILITY_MISSING`, naming every setting of {@link unsupportedSettings}, so that none is ignored silently. */
export function refuseUnsupported(topology: Topology): void {
  const settings = unsupportedSettings(topology);
  if (settings.length === 0) return;
  if (settings.every((path) => launched.includes(path))) {
    const here = settings.includes("regions") ? " Or say in which region this process runs: RUNGS_REGION." : "";
    throw new UnsupportedError(
      "CAPABILITY_MISSING",
      `One process alone cannot carry out ${settings.join(" and ")}. Start the app with all its servers: rungs up.${here}`,
    );
  }
  throw new UnsupportedError(
    "CAPABILITY_MISSING",
    `Not in this version of Rungs yet: ${settings.join(", ")}. Remove ${settings.length === 1 ? "this setting" : "these settings"}, or stay at a lower rung.`,
  );
}
