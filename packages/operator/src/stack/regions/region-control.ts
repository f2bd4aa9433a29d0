/** What the launcher's control socket answers about regions: `GET /regions` and `POST /regions/ACTION?region=NAME`. */
import { ConfigError } from "rungs";
import type { RegionsReport } from "../component.ts";
import type { Progress } from "../groups/process-group.ts";
import type { RegionOperations } from "./region-operations.ts";

const lookWithinMs = 8_000;
/** A region that comes back may have to copy its databases. */
const changeWithinMs = 10 * 60_000;

/** The regions. Raises `CONFIG_INVALID` for a stack that has none. */
export function lookAtRegions(regions: RegionOperations | undefined): Promise<RegionsReport> {
  return there(regions).report(AbortSignal.timeout(lookWithinMs));
}

/** Carries out `drain`, `undrain`, `evacuate`, `lose` or `return`; gives its result, or null, with the regions after it. */
export async function changeRegions(
  regions: RegionOperations | undefined,
  { action, url, progress }: { readonly action: string; readonly url: URL; readonly progress: Progress },
): Promise<{ readonly result: unknown; readonly regions: RegionsReport }> {
  const operations = there(regions);
  const region = url.searchParams.get("region") ?? "";
  const to = url.searchParams.get("to") ?? undefined;
  const signal = AbortSignal.timeout(changeWithinMs);
  const actions: Readonly<Record<string, () => Promise<unknown>>> = {
    drain: () => operations.drain(region, signal),
    undrain: () => operations.undrain(region, signal),
    evacuate: () => operations.evacuate(region, { to, signal, progress }),
    lose: () => operations.lose(region, progress),
    return: () => operations.return(region, { signal, progress }),
  };
  const run = Object.hasOwn(actions, action) ? actions[action] : undefined;
  if (run === undefined) throw new ConfigError("CONFIG_INVALID", `${action} is nothing that is done with regions.`);
  const result = (await run()) ?? null;
  return { result, regions: await operations.report(AbortSignal.timeout(lookWithinMs)) };
}

function there(regions: RegionOperations | undefined): RegionOperations {
  if (regions !== undefined) return regions;
  throw new ConfigError(
    "CONFIG_INVALID",
    "This stack has no regions. Start it with some: rungs up --rung 5 --regions eu,us",
  );
}
