/**
 * A zone as the files of gdnsd, an authoritative server (gdnsd.config(5), gdnsd.zonefile(5), gdnsd-plugin-geoip(8)).
 *
 * gdnsd reads places from a database of countries and continents, so distances are worked out here, a line a country that differs
 * from its continent. Its checks speak plain HTTP. Fail open is its own: with no region up it answers as if all were.
 */
import { isIP } from "node:net";
import { type LocationMap, locationMap } from "../location-map.ts";
import { parseNetwork } from "../network.ts";
import { preferredRegions, type RegionOverride } from "../route.ts";
import { type DnsRecord, type HealthCheck, type RegionOrder, regionsOf, type Zone } from "../zone-model.ts";

/** What the files depend on beside the zone. */
export interface GdnsdPlace {
  /** Where it listens, v4 and v6. */
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  /** Absolute path of the countries, in MaxMind's layout; needed when a record routes by country, continent or distance. */
  readonly database?: string | undefined;
  /** Absolute paths of folders for its own use; they are made by gdnsd. */
  readonly runFolder: string;
  readonly stateFolder: string;
  /** Number of the zone's version; secondaries compare it. */
  readonly serial: number;
}

/** Files by their path below gdnsd's folder of configuration. */
export interface GdnsdFiles {
  readonly config: string;
  /** Of the file `zones/<zone>`. */
  readonly zone: string;
}

/** UDP answers longer than this go to clients only that have shown that their address is theirs. */
const answerBytesMax = 512;
/** What gdnsd lowers a TTL to, when it knows that an answer may change so soon. */
const ttlSecondsMin = 5;

/** Both files. */
export function gdnsdFiles(zone: Zone, place: GdnsdPlace): GdnsdFiles {
  return { config: configText(zone, place), zone: zoneText(zone, place) };
}

/** Whether gdnsd needs the database of countries for this zone. */
export function needsCountries(zone: Zone): boolean {
  return Object.values(zone.records).some((record) => hasPlaces(locationMap(zone, record)));
}

/**
 * The file `admin_state`, by which a person's word stands above the checks; it is read again within a second of each change, without
 * a restart. Empty when nobody has said anything.
 */
export function gdnsdAdminState(zone: Zone, overrides: Readonly<Record<string, RegionOverride>>): string {
  const lines = Object.entries(overrides).flatMap(([region, override]) => {
    const state = override === "drained" ? "DOWN" : "UP";
    return Object.entries(zone.records)
      .filter(([, record]) => regionsOf(zone, record).includes(region))
      .flatMap(([name, record]) => adminKeys(zone, name, record, region).map((key) => `${key} => ${state}\n`));
  });
  return lines.join("");
}

/** The name of gdnsd's resource for a record. */
export function resourceName(record: string): string {
  return record === "@" ? "zone_itself" : record.replaceAll(".", "_");
}

function adminKeys(zone: Zone, name: string, record: DnsRecord, region: string): string[] {
  if (record.routing.weighted !== true) return [`geoip/${resourceName(name)}/${region}`];
  // Of weights gdnsd knows addresses only.
  const service = record.health === undefined ? "up" : serviceName(name);
  return (zone.regions[region]?.addresses ?? []).map((address) => `${address}/${service}`);
}

const serviceName = (record: string) => `${resourceName(record)}_health`;

function configText(zone: Zone, place: GdnsdPlace): string {
  const records = Object.entries(zone.records);
  const checks = records.flatMap(([name, { health }]) => (health === undefined ? [] : [serviceType(name, health)]));
  const placed = records.filter(([, { routing }]) => routing.weighted !== true);
  const weighted = records.filter(([, { routing }]) => routing.weighted === true);
  const plugins = [
    ...(placed.length === 0 ? [] : [geoip(zone, placed, place.database)]),
    ...(weighted.length === 0 ? [] : [weights(zone, weighted)]),
  ];
  const listen = place.listen.map(({ host, port }) => (isIP(host) === 6 ? `"[${host}]:${port}"` : `${host}:${port}`));
  return `# gdnsd for ${zone.zone}. Written by rungs from the zone: change that, and write it again.
options => {
  listen => [ ${listen.join(", ")} ]
  run_dir => "${escaped(place.runFolder)}"
  state_dir => "${escaped(place.stateFolder)}"
  min_ttl => ${Math.min(ttlSecondsMin, zone.ttlSeconds)}
  # Against questions with a forged sender: whoever has not shown that the address is theirs gets no long answer by UDP.
  max_nocookie_response => ${answerBytesMax}
  # Says neither name nor version.
  chaos_response => "-"
}
${block("service_types", checks)}${block("plugins", plugins)}`;
}

function block(name: string, parts: readonly string[]): string {
  return parts.length === 0 ? "" : `\n${name} => {\n${parts.join("")}}\n`;
}

/** Thresholds mean the same as in region-health.ts; the shortest time down is a number of successes here. */
function serviceType(name: string, health: HealthCheck): string {
  const successes = Math.max(health.successes, Math.ceil(health.downMsMin / health.intervalMs));
  return `  ${serviceName(name)} => {
    plugin => http_status
    port => ${health.port}
    url_path => "${escaped(health.path)}"${health.host === undefined ? "" : `\n    vhost => ${health.host}`}
    ok_codes => [ 200 ]
    interval => ${health.intervalMs / 1_000}
    timeout => ${health.timeoutMs / 1_000}
    # Down after ${health.failures} failures that ${health.clearAfter} successes in a row have not cleared; up after ${successes} successes in a row.
    down_thresh => ${health.failures}
    ok_thresh => ${health.clearAfter}
    up_thresh => ${successes}
  }
`;
}

function geoip(zone: Zone, records: readonly [string, DnsRecord][], database: string | undefined): string {
  const maps = records.map(
    ([name, record]) => `      ${resourceName(name)} => {
${placesText(zone, record, database)}      }
`,
  );
  const resources = records.map(([name, record]) => {
    const regions = regionsOf(zone, record).map(
      (region) => `          ${region} => { ${familiesText(zone, region)} }\n`,
    );
    const service = record.health === undefined ? "up" : serviceName(name);
    return `      ${resourceName(name)} => {
        map => ${resourceName(name)}
        service_types => ${service}
        dcmap => {
${regions.join("")}        }
      }
`;
  });
  return `  geoip => {\n    maps => {\n${maps.join("")}    }\n    resources => {\n${resources.join("")}    }\n  }\n`;
}

function placesText(zone: Zone, record: DnsRecord, database: string | undefined): string {
  const map = locationMap(zone, record);
  const networks = Object.keys(record.routing.networks ?? {}).map((text) => {
    const order = preferredRegions(zone, record, { network: parseNetwork(text) });
    return `          ${text} => ${list(order)}\n`;
  });
  const lines = [`        datacenters => ${list(regionsOf(zone, record))}\n`];
  if (hasPlaces(map) && database !== undefined)
    lines.push(`        geoip2_db => "${escaped(database)}"\n`, `        map => {\n${mapText(map)}        }\n`);
  if (networks.length > 0) lines.push(`        nets => {\n${networks.join("")}        }\n`);
  return lines.join("");
}

function mapText({ order, continents }: LocationMap): string {
  const lines = Object.entries(continents).map(([continent, map]) => {
    const others = Object.entries(map.countries);
    if (others.length === 0) return `          ${continent} => ${list(map.order)}\n`;
    const rows = others.map(([code, of]) => `            ${code} => ${list(of)}\n`).join("");
    return `          ${continent} => {\n            default => ${list(map.order)}\n${rows}          }\n`;
  });
  return `${lines.join("")}          default => ${list(order)}\n`;
}

function hasPlaces({ continents }: LocationMap): boolean {
  return Object.keys(continents).length > 0;
}

function familiesText(zone: Zone, region: string): string {
  const addresses = zone.regions[region]?.addresses ?? [];
  return ([4, 6] as const)
    .map((family) => [family, addresses.filter((address) => isIP(address) === family)] as const)
    .filter(([, of]) => of.length > 0)
    .map(([family, of]) => `addrs_v${family} => [ ${of.join(", ")} ]`)
    .join(", ");
}

/** A group a region: drawn by the sum of its addresses' weights, and then answered with all of them, which therefore are alike. */
function weights(zone: Zone, records: readonly [string, DnsRecord][]): string {
  const resources = records.map(([name, record]) => {
    const families = ([4, 6] as const).flatMap((family) => {
      const groups = regionsOf(zone, record).flatMap((region) => weightGroup(zone, region, family));
      return groups.length === 0 ? [] : [`      addrs_v${family} => {\n${groups.join("")}      }\n`];
    });
    const service = record.health === undefined ? "up" : serviceName(name);
    return `    ${resourceName(name)} => {\n      service_types => ${service}\n      # As long as any region is left, it is answered.\n      up_thresh => 0.000001\n${families.join("")}    }\n`;
  });
  return `  weighted => {\n${resources.join("")}  }\n`;
}

/** A region's share is the same with any number of addresses: they divide its weight. */
function weightGroup(zone: Zone, region: string, family: 4 | 6): string[] {
  const own = (zone.regions[region]?.addresses ?? []).filter((address) => isIP(address) === family);
  const weight = zone.regions[region]?.weight ?? 1;
  if (own.length === 0) return [];
  const unit = Math.max(1, Math.round((weight * 1_000) / own.length));
  const rows = own.map((address, index) => `          ${region}_${index + 1} => [ ${address}, ${unit} ]\n`);
  // Some words mean something to gdnsd in a region's place.
  return [`        region_${region} => {\n${rows.join("")}        }\n`];
}

function zoneText(zone: Zone, { serial }: GdnsdPlace): string {
  const whole = (name: string) => (name.endsWith(".") ? name : `${name}.${zone.zone}.`);
  const { ttlSeconds, nameServers, records } = zone;
  const [first] = nameServers;
  const servers = nameServers.map(({ name }) => `@ NS ${whole(name)}\n`);
  const glue = nameServers.flatMap(({ name, addresses }) =>
    addresses.map((address) => `${name} ${isIP(address) === 4 ? "A" : "AAAA"} ${address}\n`),
  );
  // Names that are not there are kept as long as those that are.
  const negative = Math.min(10_800, Math.max(10, ttlSeconds));
  const ttl = `${ttlSeconds}/${Math.min(ttlSecondsMin, ttlSeconds)}`;
  const names = Object.entries(records).map(([name, { routing }]) => {
    const plugin = routing.weighted === true ? "weighted" : "geoip";
    return `${name} ${ttl} DYNA ${plugin}!${resourceName(name)}\n`;
  });
  return `; ${zone.zone}. Written by rungs from the zone: change that, and write it again.
$TTL ${Math.max(3_600, ttlSeconds)}
@ ${negative} SOA ${whole(first?.name ?? "ns1")} ${zone.contact.replace("@", ".")}. ( ${serial} 7200 1800 1209600 ${negative} )
${servers.join("")}${glue.join("")}
; The longest and the shortest time an answer is kept.
${names.join("")}`;
}

const list = (order: RegionOrder) => `[ ${order.join(", ")} ]`;

function escaped(text: string): string {
  return text.replaceAll(/["\\]/g, "\\$&");
}
