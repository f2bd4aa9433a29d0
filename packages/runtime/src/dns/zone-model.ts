/** A zone as data: which regions there are, which names lead to them, who is sent where, and how their health is asked. */
import { isIP } from "node:net";
import { z } from "zod";
import { ConfigError } from "../kernel/errors.ts";
import { type Continent, continents, countryOf } from "./country.ts";
import { parseNetwork } from "./network.ts";

/** Region names in the order of preference; those not named follow, in the order of `fallback`. */
export type RegionOrder = readonly string[];

/** A region, as the zone hands it out. */
export interface DnsRegion {
  /** Where it is, in degrees; needed by `nearest`. */
  readonly latitude?: number | undefined;
  readonly longitude?: number | undefined;
  /** Addresses of its balancers, v4 and v6. A topology's `regions` fit, where they list addresses and not host names. */
  readonly addresses: readonly string[];
  /** Its part among the regions of a record with `weighted: true`, 1 to 1,000; default 1. For none leave it out of the record. */
  readonly weight?: number | undefined;
  /** As in the topology; of no meaning here. */
  readonly isLeader?: boolean | undefined;
  readonly url?: string | undefined;
}

/**
 * Who is sent where. The first that says something counts: networks (the longest prefix), countries, continents, nearest, and `fallback`
 * for clients of unknown place. `weighted` stands alone.
 */
export interface Routing {
  /** By network, e.g. `"198.51.100.0/24": ["us"]`. */
  readonly networks?: Readonly<Record<string, RegionOrder>> | undefined;
  /** By code of ISO 3166-1, e.g. `AT: ["eu"]`. */
  readonly countries?: Readonly<Record<string, RegionOrder>> | undefined;
  readonly continents?: Readonly<Partial<Record<Continent, RegionOrder>>> | undefined;
  /** By distance; every region needs `latitude` and `longitude`. Default false. */
  readonly nearest?: boolean | undefined;
  /** By the regions' weights, wherever the client is: for a new region that takes a tenth at first. Default false. */
  readonly weighted?: boolean | undefined;
  /** Order for everybody else; default the regions as they are listed. */
  readonly fallback?: RegionOrder | undefined;
}

/** How each address of a region is asked whether it can serve: by plain HTTP, with 200 as the good answer. */
export interface HealthCheck {
  /** Default "/readyz". */
  readonly path: string;
  /** Default 80. */
  readonly port: number;
  /** Host header; default none. */
  readonly host?: string | undefined;
  /** Default 5,000; whole seconds from 2 to 255. */
  readonly intervalMs: number;
  /** Default 2,000; whole seconds, less than the interval. */
  readonly timeoutMs: number;
  /** Failures until it counts as down, 1 to 10; default 3. Need not follow each other: see `clearAfter`. */
  readonly failures: number;
  /** Successes in a row that clear earlier failures of one that is up; default 3. */
  readonly clearAfter: number;
  /** Successes in a row until one that is down counts as up again; default 3. */
  readonly successes: number;
  /** Shortest time down, with nothing but successes; default 30,000. */
  readonly downMsMin: number;
}

/** A name that leads to regions. */
export interface DnsRecord {
  /** Regions it may lead to, in the order of `fallback`; default all of the zone. */
  readonly regions?: readonly string[] | undefined;
  readonly routing: Routing;
  /** Absent: nobody asks, and only a person takes a region out. */
  readonly health?: HealthCheck | undefined;
}

/** A server that answers for the zone. */
export interface NameServer {
  /** In the zone, such as "ns1"; or a whole name with a dot at its end, which then has no addresses here. */
  readonly name: string;
  readonly addresses: readonly string[];
}

/** A zone. */
export interface Zone {
  /** E.g. "geo.example.com", without a dot at the end. */
  readonly zone: string;
  /** How long resolvers keep an answer; default 30, 1 to 86,400. A region that goes down is left within this and the health checks' time. */
  readonly ttlSeconds: number;
  /** Mail address of whoever looks after it; default hostmaster@ the zone. */
  readonly contact: string;
  readonly nameServers: readonly NameServer[];
  readonly regions: Readonly<Record<string, DnsRegion>>;
  /** By name below the zone; "@" is the zone itself. */
  readonly records: Readonly<Record<string, DnsRecord>>;
}

/** A zone as it is written: what has a default may be left out. */
export type ZoneInput = z.input<typeof zoneSchema>;

const regionsMax = 32;
const label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
const nameOf = (pattern: string, what: string) =>
  z.string({ error: `expected ${what}` }).regex(new RegExp(pattern), { error: `expected ${what}` });
const whole = (min: number, max: number) => {
  const error = `expected a whole number from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};
const seconds = (min: number, max: number) => {
  const error = `expected milliseconds in whole seconds, ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error }).multipleOf(1_000, { error });
};
const degrees = (max: number) => {
  const error = `expected degrees from -${max} to ${max}`;
  return z.number({ error }).min(-max, { error }).max(max, { error }).optional();
};
const address = z
  .string()
  .refine((text) => isIP(text) !== 0 && !text.includes("%"), { error: "expected an IPv4 or IPv6 address" });
const regionName = nameOf("^[a-z][a-z0-9-]{0,30}$", "a region's name of a-z, 0-9 and -");
const order = z.array(regionName).min(1, { error: "expected at least one region" }).max(regionsMax);
const country = z
  .string()
  .refine((code) => countryOf(code) !== undefined, { error: "expected a country's code of ISO 3166-1, such as AT" });
/** IPv4 as IPv6 is refused: servers differ in what it means. */
const isNetwork = (text: string) => (text.includes(":") ? 6 : 4) === parseNetwork(text)?.family;
const network = z.string().refine(isNetwork, {
  error: "expected a network such as 192.0.2.0/24 or 2001:db8::/32, with no bits set behind the prefix",
});

const health = z
  .strictObject({
    path: nameOf("^/[\\x21-\\x7e]{0,200}$", "a path such as /readyz").default("/readyz"),
    port: whole(1, 65_535).default(80),
    host: nameOf("^[A-Za-z0-9.-]{1,253}$", "a host name").optional(),
    intervalMs: seconds(2_000, 255_000).default(5_000),
    timeoutMs: seconds(1_000, 254_000).default(2_000),
    failures: whole(1, 10).default(3),
    clearAfter: whole(1, 100).default(3),
    successes: whole(1, 100).default(3),
    downMsMin: whole(0, 3_600_000).default(30_000),
  })
  .refine(({ intervalMs, timeoutMs }) => timeoutMs < intervalMs, {
    path: ["timeoutMs"],
    error: "expected less than intervalMs",
  });

const record = z.strictObject({
  regions: order.optional(),
  routing: z
    .strictObject({
      networks: z.record(network, order).optional(),
      countries: z.record(country, order).optional(),
      continents: z
        .partialRecord(z.enum(continents, { error: `expected one of ${continents.join(", ")}` }), order)
        .optional(),
      nearest: z.boolean().optional(),
      weighted: z.boolean().optional(),
      fallback: order.optional(),
    })
    .default({}),
  health: health.optional(),
});

const zoneSchema = z.strictObject({
  zone: nameOf(`^(?=.{1,200}$)${label}(?:\\.${label})+$`, "a zone's name such as geo.example.com"),
  ttlSeconds: whole(1, 86_400).default(30),
  contact: nameOf("^[A-Za-z0-9_+-]+@[A-Za-z0-9.-]+$", "a mail address without a dot before the @").optional(),
  nameServers: z
    .array(
      z.strictObject({
        name: nameOf(`^${label}(?:(?:\\.${label})*\\.)?$`, "a name in the zone, or a whole one with a dot at its end"),
        addresses: z.array(address).max(16).default([]),
      }),
    )
    .min(1, { error: "expected at least one name server" })
    .max(13),
  regions: z
    .record(
      regionName,
      z.strictObject({
        addresses: z.array(address).min(1, { error: "expected at least one address" }).max(64),
        latitude: degrees(90),
        longitude: degrees(180),
        weight: whole(1, 1_000).optional(),
        isLeader: z.boolean().optional(),
        url: z.string().optional(),
      }),
    )
    .refine((regions) => Object.keys(regions).length > 0 && Object.keys(regions).length <= regionsMax, {
      error: `expected 1 to ${regionsMax} regions`,
    }),
  records: z.record(nameOf(`^(?:@|${label}(?:\\.${label})*)$`, "a name below the zone, or @"), record),
});

/** Checks a zone and fills in what was left out. Raises one `CONFIG_INVALID` with a line a problem. */
export function parseZone(input: unknown): Zone {
  const parsed = zoneSchema.safeParse(input);
  if (!parsed.success) {
    throw invalid(
      parsed.error.issues.map(({ path, message, code, ...issue }) => {
        const at = path.map(String).join(".") || "zone";
        if (code === "unrecognized_keys")
          return `${at}: no such setting: ${(issue as { keys: string[] }).keys.join(", ")}.`;
        if (code === "invalid_key")
          return `${at}: ${(issue as { issues: { message: string }[] }).issues[0]?.message ?? message}.`;
        return `${at}: ${message}.`;
      }),
    );
  }
  const { contact, ...rest } = parsed.data;
  const zone: Zone = { contact: contact ?? `hostmaster@${rest.zone}`, ...rest };
  const problems = [
    ...nameServerProblems(zone),
    ...Object.entries(zone.records).flatMap(([name, of]) => recordProblems(zone, name, of)),
  ];
  if (problems.length > 0) throw invalid(problems);
  return zone;
}

/** Names of the regions that a record may lead to, in the order in which they follow when nothing else is said. */
export function regionsOf(zone: Zone, record: DnsRecord): readonly string[] {
  const all = record.regions ?? Object.keys(zone.regions);
  const first = record.routing.fallback ?? [];
  return [...first, ...all.filter((name) => !first.includes(name))];
}

function invalid(problems: readonly string[]): ConfigError {
  const text = problems.length === 1 ? problems[0] : `\n${problems.map((problem) => `- ${problem}`).join("\n")}`;
  return new ConfigError("CONFIG_INVALID", `The DNS zone cannot be used: ${text}`);
}

function nameServerProblems({ nameServers, records }: Zone): string[] {
  return nameServers.flatMap(({ name, addresses }, index) => {
    const at = `nameServers.${index}`;
    if (name.endsWith("."))
      return addresses.length === 0 ? [] : [`${at}.addresses: a server outside of the zone has its addresses there.`];
    if (Object.hasOwn(records, name)) return [`${at}.name: "${name}" is one of records already.`];
    return addresses.length > 0 ? [] : [`${at}.addresses: expected at least one, because "${name}" lies in the zone.`];
  });
}

function recordProblems(zone: Zone, name: string, record: DnsRecord): string[] {
  const { routing } = record;
  const known = regionsOf(zone, { ...record, routing: {} });
  const at = `records.${name}`;
  const orders: readonly (readonly [path: string, order: RegionOrder | undefined])[] = [
    ["fallback", routing.fallback],
    ...(["networks", "countries", "continents"] as const).flatMap((kind) =>
      Object.entries(routing[kind] ?? {}).map(([key, of]): [string, RegionOrder] => [`${kind}.${key}`, of]),
    ),
  ];
  const listed = [
    ...(record.regions === undefined ? [] : [[`${at}.regions`, record.regions, Object.keys(zone.regions)] as const]),
    ...orders.flatMap(([path, of]) => (of === undefined ? [] : [[`${at}.routing.${path}`, of, known] as const])),
  ];
  const found = listed.flatMap(([path, of, among]) => [
    ...of
      .filter((region) => !among.includes(region))
      .map((region) => `${path}: there is no region "${region}" here; there are ${among.join(", ")}.`),
    ...(new Set(of).size === of.length ? [] : [`${path}: names a region twice.`]),
  ]);
  if (found.length > 0) return found;
  if (routing.nearest === true) {
    const lost = known.filter(
      (region) => zone.regions[region]?.latitude === undefined || zone.regions[region]?.longitude === undefined,
    );
    found.push(
      ...lost.map(
        (region) => `regions.${region}: needs latitude and longitude, because ${at}.routing.nearest is true.`,
      ),
    );
  }
  if (routing.weighted !== true) return found;
  const beside = (["networks", "countries", "continents", "nearest", "fallback"] as const).filter(
    (kind) => routing[kind] !== undefined,
  );
  if (beside.length > 0) found.push(`${at}.routing.weighted: has no place for ${beside.join(", ")} beside it.`);
  return found;
}
