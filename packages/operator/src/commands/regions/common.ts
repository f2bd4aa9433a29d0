/** What the commands about regions have in common. */
import type { ArgsDef } from "citty";
import type { CommandContext, Values } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import type { Output } from "../../output.ts";
import type { RegionReport, RegionsReport } from "../../stack/component.ts";
import { askChange } from "../../stack/control/control-client.ts";
import { folderOf, stackFlags } from "../stack/common.ts";

/** Flags of each that changes a region. */
export const regionFlags = {
  region: { type: "positional", required: false, description: "Its name, such as eu" },
  ...stackFlags,
} satisfies ArgsDef;

/** What a change answers. */
export interface Changed<T> {
  readonly regions: RegionsReport;
  readonly result: T;
}

/** Asks for a change of the region that the command line names; shows how it goes on, and the regions after it. */
export async function changeRegion<T>(
  values: Values,
  context: CommandContext,
  { action, parameters = {} }: { readonly action: string; readonly parameters?: Readonly<Record<string, string>> },
): Promise<T> {
  const { output, signal } = context;
  const [region] = values.words;
  if (region === undefined) throw new UsageError(`Say which region: rungs regions ${action} eu`);
  const query = new URLSearchParams({ region, ...parameters });
  const { regions, result } = await askChange<Changed<T>>(
    await folderOf(values, context),
    `/regions/${action}?${query}`,
    {
      signal,
      onProgress: (text) => output.line(text),
    },
  );
  output.json({ region, ...(result === null ? {} : { result }), ...regions });
  output.line("");
  showRegions(regions, output);
  return result;
}

/** A table of them. */
export function showRegions({ regions, dns }: RegionsReport, output: Output): void {
  const { colors } = output;
  output.table({
    head: ["REGION", "ADDRESS", "STATE", "HEALTH", "LEADS", "SERVERS", "SESSIONS", "APP", "PROCESSES"],
    right: [5, 7, 8],
    rows: regions.map((region) => [
      region.name,
      region.addresses.join(" "),
      region.state === "open" ? colors.green("open") : colors.yellow(region.state),
      healthShown(region, output),
      region.leaders.length === 0 ? colors.dim("-") : `shard ${region.leaders.join(", ")}`,
      String(region.members),
      region.sessions === "master" ? colors.green("master") : region.sessions,
      String(region.ready),
      String(region.processes),
    ]),
  });
  const name = dns.names[0] ?? dns.zone;
  output.line(`\nDNS: dig @127.0.0.1 -p ${dns.port} ${name}`);
}

function healthShown({ health }: RegionReport, { colors }: Output): string {
  if (health === "up") return colors.green(health);
  return health === "down" ? colors.red(health) : colors.dim(health);
}
