/** Where an app's DNS zone and the database of countries lie. */
import { access } from "node:fs/promises";
import { join } from "node:path";

/** The zone's file in an app's folder; looked for in this order. */
export const zoneFileNames = ["rungs.dns.ts", "rungs.dns.mjs", "rungs.dns.js", "rungs.dns.json"] as const;

/** Name of the zone's file in this folder; undefined when there is none. */
export async function zoneFileIn(folder: string): Promise<string | undefined> {
  for (const name of zoneFileNames) if (await exists(join(folder, name))) return name;
  return undefined;
}

/** Path of the database of countries in a stack's folder, where `rungs dns update-data` puts it. */
export function countriesIn(folder: string): string {
  return join(folder, "dns", "country.mmdb");
}

/** Whether a file is there. */
export function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
