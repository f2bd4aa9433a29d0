/** What the commands about DNS have in common: the zone's file, and where the database of countries lies. */
import { resolve } from "node:path";
import type { ArgsDef } from "citty";
import { parseZone, type RegionOverride, type Zone } from "rungs/dns";
import { loadConfigFile } from "rungs/topology";
import type { CommandContext, Values } from "../../command.ts";
import { NotFoundError, UsageError } from "../../exit-code.ts";
import { countriesIn, zoneFileIn, zoneFileNames } from "../../stack/dns/zone-file.ts";
import { topologyFlags, topologyOf } from "../../topology-flags.ts";

/** Flags of each of them. */
export const dnsFlags = {
  zone: { type: "string", valueHint: "file", description: "The zone (default rungs.dns.ts, .mjs, .js or .json)" },
  dir: topologyFlags.dir,
  config: topologyFlags.config,
  json: { type: "boolean", description: "Print JSON for programs" },
} satisfies ArgsDef;

/** A flag for what a person says of regions. */
export const drainedFlag = {
  drained: { type: "string", valueHint: "regions", description: "Regions that are to be left out, such as eu,us" },
} satisfies ArgsDef;

/**
 * The zone by its file. Regions that it does not list are those of the topology. Raises `CONFIG_INVALID` for mistakes in it, and
 * {@link NotFoundError} when there is no file.
 */
export async function zoneOf(values: Values, context: CommandContext): Promise<Zone> {
  const { folder } = context;
  const name = values.text("zone") ?? (await zoneFileIn(folder));
  const file = name === undefined ? undefined : await loadConfigFile(folder, name);
  if (file === undefined) {
    throw new NotFoundError(
      `There is no zone: none of ${zoneFileNames.join(", ")} is in ${folder}. Name another file with --zone.`,
    );
  }
  const { content } = file;
  const hasRegions = typeof content !== "object" || content === null || "regions" in content;
  if (hasRegions) return parseZone(content);
  const { regions } = await topologyOf(values, context);
  return parseZone({ ...content, ...(regions === undefined ? {} : { regions }) });
}

/** Where `rungs dns update-data` puts the database of countries. */
export async function databaseOf(values: Values, context: CommandContext): Promise<string> {
  const { dataDirectory } = await topologyOf(values, context);
  return countriesIn(resolve(context.folder, dataDirectory));
}

/** What `--drained` says. Raises {@link UsageError} for a region that is not there. */
export function drainedOf(values: Values, zone: Zone): Readonly<Record<string, RegionOverride>> {
  const names = (values.text("drained") ?? "").split(",").filter((name) => name !== "");
  const unknown = names.find((name) => !Object.hasOwn(zone.regions, name));
  if (unknown !== undefined) {
    throw new UsageError(
      `--drained: there is no region "${unknown}"; there are ${Object.keys(zone.regions).join(", ")}.`,
    );
  }
  return Object.fromEntries(names.map((name) => [name, "drained" as const]));
}
