/**
 * A zone for Amazon Route 53, as one template of CloudFormation: health checks and record sets, which refer to each other by name.
 *
 * Three layers of names (Route 53, "complex configurations"): a region's own name (`eu.region.www`) has its addresses, each with its health check;
 * the name of an order (`eu.us.order.www`) is its first region, or what is left of the order when that one is down; and the record itself
 * leads to an order by the place of the client. With nothing healthy, Route 53 answers as if all were.
 */
import { isIP } from "node:net";
import { ConfigError, UnsupportedError } from "../../kernel/errors.ts";
import { locationMap } from "../location-map.ts";
import type { RegionOverride } from "../route.ts";
import { type DnsRecord, type HealthCheck, type RegionOrder, regionsOf, type Zone } from "../zone-model.ts";

/** A template in JSON, ready for `aws cloudformation deploy`; its one parameter is the id of the hosted zone. */
export interface Route53Template {
  readonly AWSTemplateFormatVersion: "2010-09-09";
  readonly Description: string;
  readonly Parameters: Readonly<Record<string, { readonly Type: string; readonly Description: string }>>;
  readonly Resources: Readonly<Record<string, { readonly Type: string; readonly Properties: unknown }>>;
}

type RecordSet = Readonly<Record<string, unknown>>;
type Overrides = Readonly<Record<string, RegionOverride>>;

const zoneId = { Ref: "HostedZoneId" };
const nameCharactersMax = 253;
const weightMax = 255;

/**
 * The template. Raises `CAPABILITY_MISSING` for what Route 53 cannot do beside places: routing by network. A region that a person has drained comes
 * last in every order and has no weight, a forced one is not asked, until the template is deployed anew.
 */
export function route53Template(zone: Zone, overrides: Overrides = {}): Route53Template {
  const resources: Record<string, { Type: string; Properties: unknown }> = {};
  for (const [name, record] of Object.entries(zone.records)) {
    if (Object.keys(record.routing.networks ?? {}).length > 0) {
      throw new UnsupportedError(
        "CAPABILITY_MISSING",
        `Route 53 does not route by network and by place at once, as records.${name}.routing.networks wants it. Leave it out there.`,
      );
    }
    Object.assign(resources, healthChecks(zone, name, record, overrides));
    resources[`${logicalName(name)}Records`] = {
      Type: "AWS::Route53::RecordSetGroup",
      Properties: {
        HostedZoneId: zoneId,
        RecordSets: ([4, 6] as const).flatMap((family) => recordSets(zone, { name, record, family, overrides })),
      },
    };
  }
  return {
    AWSTemplateFormatVersion: "2010-09-09",
    Description: `Regions of ${zone.zone}, written by rungs from the zone`,
    Parameters: { HostedZoneId: { Type: "AWS::Route53::HostedZone::Id", Description: `The hosted zone ${zone.zone}` } },
    Resources: resources,
  };
}

function healthChecks(zone: Zone, name: string, record: DnsRecord, overrides: Overrides) {
  const { health } = record;
  if (health === undefined) return {};
  return Object.fromEntries(
    regionsOf(zone, record)
      .filter((region) => overrides[region] !== "forced")
      .flatMap((region) =>
        addressesOf(zone, region).map((address, index) => [
          healthName(name, region, index),
          { Type: "AWS::Route53::HealthCheck", Properties: { HealthCheckConfig: healthConfig(address, health) } },
        ]),
      ),
  );
}

/** Route 53 asks every 10 or 30 s, from several places; how often in a row one must fail is its only threshold. */
function healthConfig(address: string, { port, path, host, intervalMs, failures }: HealthCheck): RecordSet {
  return {
    Type: port === 443 ? "HTTPS" : "HTTP",
    IPAddress: address,
    Port: port,
    ResourcePath: path,
    ...(host === undefined ? {} : { FullyQualifiedDomainName: host }),
    RequestInterval: intervalMs < 30_000 ? 10 : 30,
    FailureThreshold: failures,
  };
}

function recordSets(zone: Zone, { name, record, family, overrides }: Family): RecordSet[] {
  const type = family === 4 ? "A" : "AAAA";
  const regions = regionsOf(zone, record).filter((region) =>
    addressesOf(zone, region).some((address) => isIP(address) === family),
  );
  if (regions.length === 0) return [];
  const isDrained = (region: string) => overrides[region] === "drained";
  const within = (order: RegionOrder) => {
    const there = order.filter((region) => regions.includes(region));
    return [...there.filter((region) => !isDrained(region)), ...there.filter(isDrained)];
  };
  const whole = (...labels: readonly string[]) => wholeName(zone, name, labels);
  const own = regions.flatMap((region) =>
    regionSets(zone, {
      name,
      region,
      type,
      whole,
      isAsked: record.health !== undefined && overrides[region] !== "forced",
    }),
  );
  if (record.routing.weighted === true) {
    const most = Math.max(...regions.map((region) => zone.regions[region]?.weight ?? 1));
    const scale = most > weightMax ? weightMax / most : 1;
    const shares = regions.map((region) => ({
      ...alias(whole(), type, whole(region, "region"), region),
      Weight: isDrained(region) ? 0 : Math.max(1, Math.round((zone.regions[region]?.weight ?? 1) * scale)),
    }));
    return [...own, ...shares];
  }
  const map = locationMap(zone, record);
  const orders = new Map<string, RegionOrder>();
  const targetOf = (order: RegionOrder) => {
    const left = within(order);
    for (let from = 0; from < left.length - 1; from++) orders.set(left.slice(from).join("."), left.slice(from));
    return orderTarget(left, whole);
  };
  const places = Object.entries(map.continents).flatMap(([continent, { order, countries }]) => [
    { ...alias(whole(), type, targetOf(order), `continent-${continent}`), GeoLocation: { ContinentCode: continent } },
    ...Object.entries(countries).map(([code, of]) => ({
      ...alias(whole(), type, targetOf(of), `country-${code}`),
      GeoLocation: { CountryCode: code },
    })),
  ]);
  const everywhere = { ...alias(whole(), type, targetOf(map.order), "everywhere"), GeoLocation: { CountryCode: "*" } };
  // The shortest first: a name comes after those that it leads to.
  const chains = [...orders.values()]
    .sort((a, b) => a.length - b.length)
    .flatMap((order) => orderSets(order, type, whole));
  return [...own, ...chains, ...places, everywhere];
}

interface Family {
  readonly name: string;
  readonly record: DnsRecord;
  readonly family: 4 | 6;
  readonly overrides: Overrides;
}

interface RegionPlace {
  readonly isAsked: boolean;
  readonly name: string;
  readonly region: string;
  readonly type: "A" | "AAAA";
  readonly whole: (...labels: readonly string[]) => string;
}

/** One set an address, so that each has a health check of its own. */
function regionSets(zone: Zone, { name, region, type, whole, isAsked }: RegionPlace): RecordSet[] {
  return addressesOf(zone, region).flatMap((address, index) => {
    if ((isIP(address) === 4) !== (type === "A")) return [];
    return {
      Name: whole(region, "region"),
      Type: type,
      SetIdentifier: address,
      MultiValueAnswer: true,
      TTL: String(zone.ttlSeconds),
      ResourceRecords: [address],
      ...(isAsked ? { HealthCheckId: { Ref: healthName(name, region, index) } } : {}),
    };
  });
}

function orderSets(order: RegionOrder, type: string, whole: (...labels: readonly string[]) => string): RecordSet[] {
  const name = whole(...order, "order");
  const [first = "", ...rest] = order;
  return [
    { ...alias(name, type, whole(first, "region"), "first"), Failover: "PRIMARY" },
    { ...alias(name, type, orderTarget(rest, whole), "rest"), Failover: "SECONDARY" },
  ];
}

function orderTarget(order: RegionOrder, whole: (...labels: readonly string[]) => string): string {
  return order.length === 1 ? whole(order[0] as string, "region") : whole(...order, "order");
}

function alias(name: string, type: string, target: string, identifier: string): RecordSet {
  return {
    Name: name,
    Type: type,
    SetIdentifier: identifier,
    AliasTarget: { DNSName: target, HostedZoneId: zoneId, EvaluateTargetHealth: true },
  };
}

function addressesOf(zone: Zone, region: string): readonly string[] {
  return zone.regions[region]?.addresses ?? [];
}

function wholeName(zone: Zone, record: string, labels: readonly string[]): string {
  const name = [...labels, ...(record === "@" ? [] : [record]), zone.zone].join(".");
  if (name.length <= nameCharactersMax) return `${name}.`;
  throw new ConfigError(
    "CONFIG_INVALID",
    `The name ${name} is longer than ${nameCharactersMax} characters. Give regions shorter names.`,
  );
}

/** Letters and digits are all that names in a template may have; each part begins with a capital. */
function logicalName(...parts: readonly string[]): string {
  return parts
    .flatMap((part) => (part === "@" ? ["Zone"] : part.split(/[.-]/)))
    .map((word) => `${word.slice(0, 1).toUpperCase()}${word.slice(1)}`)
    .join("");
}

function healthName(record: string, region: string, index: number): string {
  return `${logicalName(record, region)}Health${index + 1}`;
}
