/** `rungs dns check`: whether the zone is right, who is sent where, and whether gdnsd takes it. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ArgsDef } from "citty";
import { ConfigError } from "rungs";
import { countries, countryOf, type DnsRecord, preferredRegions, type Zone } from "rungs/dns";
import { gdnsdFiles, needsCountries } from "rungs/dns/gdnsd";
import type { Command, CommandContext } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { exists } from "../../stack/dns/zone-file.ts";
import { findProgram } from "../../stack/process/find-program.ts";
import { databaseOf, dnsFlags, zoneOf } from "./common.ts";

/** An order of regions, and who gets it. */
interface OrderReport {
  readonly record: string;
  /** The first is answered while it is up. */
  readonly regions: readonly string[];
  /** Codes of countries. Empty: weights decide. */
  readonly countries: readonly string[];
}

const countriesShownMax = 12;
/** What gdnsd has to say about the zone. */
type GdnsdVerdict = "takes it" | "is not installed" | "was not asked: no database of countries (rungs dns update-data)";

/** The command. */
export const check: Command = {
  definition: {
    meta: { name: "check", description: "Check the zone, and tell which countries are sent to which regions" },
    args: {
      countries: { type: "string", valueHint: "codes", description: "Tell of these only, such as AT,BR (default all)" },
      ...dnsFlags,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs dns check", "every record and every country"],
    ["rungs dns check --countries AT,BR,JP", "three countries"],
    ["rungs dns check --json", "for programs"],
  ],
  async run(values, context) {
    const zone = await zoneOf(values, context);
    const codes = codesOf(values.text("countries"));
    const orders = Object.entries(zone.records).flatMap(([name, record]) => ordersOf(zone, name, record, codes));
    const gdnsd = await askGdnsd(zone, await databaseOf(values, context), context);
    context.output.json({ zone: zone.zone, ttlSeconds: zone.ttlSeconds, orders, gdnsd });
    show(zone, orders, gdnsd, context);
  },
};

function codesOf(text: string | undefined): readonly string[] {
  if (text === undefined) return countries.map(({ code }) => code);
  const codes = text.toUpperCase().split(",");
  const unknown = codes.find((code) => countryOf(code) === undefined);
  if (unknown === undefined) return codes;
  throw new UsageError(`--countries: expected codes of ISO 3166-1 such as AT,BR, found "${unknown}".`);
}

function ordersOf(zone: Zone, name: string, record: DnsRecord, codes: readonly string[]): OrderReport[] {
  if (record.routing.weighted === true)
    return [{ record: name, regions: preferredRegions(zone, record, {}), countries: [] }];
  const byOrder = new Map<string, string[]>();
  for (const code of codes) {
    const key = preferredRegions(zone, record, { country: code }).join(",");
    byOrder.set(key, [...(byOrder.get(key) ?? []), code]);
  }
  return [...byOrder].map(([key, own]) => ({ record: name, regions: key.split(","), countries: own }));
}

/** gdnsd's own check, in a folder that is removed afterwards. Raises `CONFIG_INVALID` with its words. */
async function askGdnsd(zone: Zone, database: string, { environment, signal }: CommandContext): Promise<GdnsdVerdict> {
  const program = findProgram("gdnsd", environment);
  if (program === undefined) return "is not installed";
  if (needsCountries(zone) && !(await exists(database)))
    return "was not asked: no database of countries (rungs dns update-data)";
  const folder = await mkdtemp(join(tmpdir(), "rungs-dns-"));
  try {
    const files = gdnsdFiles(zone, {
      listen: [{ host: "127.0.0.1", port: 53 }],
      database,
      runFolder: join(folder, "run"),
      stateFolder: join(folder, "state"),
      serial: 1,
    });
    await mkdir(join(folder, "zones"));
    await writeFile(join(folder, "config"), files.config);
    await writeFile(join(folder, "zones", zone.zone), files.zone);
    await promisify(execFile)(program, ["-c", folder, "checkconf"], { signal, timeout: 30_000 });
    return "takes it";
  } catch (cause) {
    signal.throwIfAborted();
    throw new ConfigError(
      "CONFIG_INVALID",
      `gdnsd does not take the zone ${zone.zone}: ${String((cause as { stderr?: string }).stderr)}`,
      { cause },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function show(zone: Zone, orders: readonly OrderReport[], gdnsd: GdnsdVerdict, { output }: CommandContext): void {
  output.line(`${zone.zone} is right. Answers are kept for ${zone.ttlSeconds} s. gdnsd ${gdnsd}.\n`);
  output.table({
    head: ["RECORD", "REGIONS", "COUNTRIES"],
    rows: orders.map(({ record, regions, countries: codes }) => [record, regions.join(", "), shownCountries(codes)]),
  });
}

function shownCountries(codes: readonly string[]): string {
  if (codes.length === 0) return "all, by weight";
  const more = codes.length - countriesShownMax;
  const shown = codes.slice(0, countriesShownMax).join(" ");
  return more > 0 ? `${shown} and ${more} more` : shown;
}
