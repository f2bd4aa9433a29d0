/**
 * The DNS zone of a stack with several regions: the app's own, led to the addresses on this machine, or one that is made up.
 *
 * Pure, but for reading the app's file.
 */
import { ConfigError } from "rungs";
import { type DnsRecord, parseZone, type RegionOrder, type Routing, type Zone } from "rungs/dns";
import { needsCountries } from "rungs/dns/gdnsd";
import { loadConfigFile } from "rungs/topology";
import { placeOfRegion } from "../regions/region-places.ts";
import { zoneFileIn } from "./zone-file.ts";

/** A region as it is reached on this machine. */
export interface LocalRegion {
  readonly name: string;
  readonly addresses: readonly string[];
}

export interface RegionalZoneOptions {
  /** Where `rungs.dns.*` is looked for. */
  readonly appFolder: string;
  /** Name of the app, for the zone that is made up. */
  readonly appName: string;
  readonly regions: readonly LocalRegion[];
  /** The app's, in every region: there it is asked whether it is well. */
  readonly port: number;
  /** Whether there is a database of countries. */
  readonly hasCountries: boolean;
}

/** A zone, and what its reader should know. */
export interface RegionalZone {
  readonly zone: Zone;
  /** The file it comes from; undefined: it was made up. */
  readonly file: string | undefined;
  readonly remarks: readonly string[];
}

/** Short enough to watch an answer change. */
const ttlSeconds = 5;
/** gdnsd asks every 2 s at most. Varnish answers nobody who names no host. Down after three failures, up after two successes and 4 s. */
const health = {
  ...{ path: "/readyz", intervalMs: 2_000, timeoutMs: 1_000 },
  ...{ failures: 3, clearAfter: 2, successes: 2, downMsMin: 4_000 },
};

/** Makes it. Raises `CONFIG_INVALID` for an app's zone that has mistakes, or does not know a region. */
export async function regionalZone(options: RegionalZoneOptions): Promise<RegionalZone> {
  const { appFolder, regions, port, hasCountries } = options;
  const name = await zoneFileIn(appFolder);
  const file = name === undefined ? undefined : await loadConfigFile(appFolder, name);
  const wanted =
    file === undefined || name === undefined
      ? madeUp(options)
      : here(parsed(file.content, regions), { name, regions, port });
  if (hasCountries || !needsCountries(wanted)) return { zone: wanted, file: name, remarks: [] };
  const order = regions.map((region) => region.name).join(", ");
  return {
    zone: withoutPlaces(wanted),
    file: name,
    remarks: [
      `DNS does not tell users apart by country: there is no database of countries, so all are sent to the first of ${order} that is up. Type rungs dns update-data, and start again.`,
    ],
  };
}

function madeUp({ appName, regions, port }: RegionalZoneOptions): Zone {
  const places = new Map(regions.map(({ name }) => [name, placeOfRegion(name)]));
  const isPlaced = [...places.values()].every((place) => place !== undefined);
  const zone = `${labelOf(appName)}.test`;
  return parseZone({
    zone,
    ttlSeconds,
    nameServers: [{ name: "ns1", addresses: ["127.0.0.1"] }],
    regions: Object.fromEntries(
      regions.map(({ name, addresses }) => [name, { addresses: [...addresses], ...places.get(name) }]),
    ),
    records: { www: { routing: isPlaced ? { nearest: true } : {}, health: { ...health, port, host: `www.${zone}` } } },
  });
}

/** Without regions of its own it takes those of this machine. */
function parsed(content: unknown, regions: readonly LocalRegion[]): Zone {
  if (typeof content !== "object" || content === null || "regions" in content) return parseZone(content);
  const places = regions.map(({ name, addresses }) => [name, { addresses: [...addresses], ...placeOfRegion(name) }]);
  return parseZone({ ...content, regions: Object.fromEntries(places) });
}

/** The app's zone, with the regions that run here at their addresses here. The others are left out: nobody here is sent out. */
function here(
  zone: Zone,
  { name, regions, port }: { readonly name: string; readonly regions: readonly LocalRegion[]; readonly port: number },
): Zone {
  const unknown = regions.find((region) => !Object.hasOwn(zone.regions, region.name));
  if (unknown !== undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `${name} has no region "${unknown.name}"; it has ${Object.keys(zone.regions).join(", ")}. Start those with --regions, or add it there.`,
    );
  }
  const names = regions.map((region) => region.name);
  const records = Object.entries(zone.records).flatMap(([record, of]): [string, DnsRecord][] => {
    const own = of.regions === undefined ? names : kept(of.regions, names);
    if (own.length === 0) return [];
    // It is asked here, and soon enough to be watched.
    const host = of.health?.host ?? (record === "@" ? zone.zone : `${record}.${zone.zone}`);
    const checks = of.health === undefined ? {} : { health: { ...health, path: of.health.path, port, host } };
    return [[record, { regions: own, routing: routingAmong(of.routing, own), ...checks }]];
  });
  return {
    ...zone,
    ttlSeconds: Math.min(zone.ttlSeconds, ttlSeconds),
    nameServers: zone.nameServers.map((server) =>
      server.name.endsWith(".") ? server : { ...server, addresses: ["127.0.0.1"] },
    ),
    regions: Object.fromEntries(
      regions.map((region) => [region.name, { ...zone.regions[region.name], addresses: [...region.addresses] }]),
    ),
    records: Object.fromEntries(records),
  };
}

function routingAmong(routing: Routing, names: readonly string[]): Routing {
  const orders = <T extends object>(of: T | undefined): { readonly [K in keyof T]: RegionOrder } | undefined => {
    if (of === undefined) return undefined;
    const left = Object.entries(of as Record<string, RegionOrder>).map(([key, order]) => [key, kept(order, names)]);
    return Object.fromEntries(left.filter(([, order]) => order?.length !== 0)) as { [K in keyof T]: RegionOrder };
  };
  const fallback = routing.fallback === undefined ? [] : kept(routing.fallback, names);
  const { nearest, weighted } = routing;
  return {
    ...(routing.networks === undefined ? {} : { networks: orders(routing.networks) }),
    ...(routing.countries === undefined ? {} : { countries: orders(routing.countries) }),
    ...(routing.continents === undefined ? {} : { continents: orders(routing.continents) }),
    ...(nearest === undefined ? {} : { nearest }),
    ...(weighted === undefined ? {} : { weighted }),
    ...(fallback.length === 0 ? {} : { fallback }),
  };
}

/** Networks stay: they need no data. */
function withoutPlaces(zone: Zone): Zone {
  const records = Object.entries(zone.records).map(([name, record]) => {
    const { countries: _countries, continents: _continents, nearest: _nearest, ...routing } = record.routing;
    return [name, { ...record, routing }];
  });
  return { ...zone, records: Object.fromEntries(records) };
}

const kept = (order: RegionOrder, names: readonly string[]) => order.filter((name) => names.includes(name));

/** A name as a label of DNS (RFC 1035, 2.3.1). */
function labelOf(name: string): string {
  const label = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "")
    .slice(0, 63)
    .replaceAll(/-+$/g, "");
  return label === "" ? "app" : label;
}
