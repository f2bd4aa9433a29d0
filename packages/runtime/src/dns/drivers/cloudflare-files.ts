/**
 * A zone for Cloudflare Load Balancing, as the bodies of the requests that set it up, in their order: a monitor a record, a pool a region,
 * a load balancer a record. `{{name}}` stands for the id in the answer to the request of that name; account and zone are the reader's.
 *
 * Steering by country needs Cloudflare's Enterprise plan, by its thirteen regions the Business plan. An order is a list of pools there,
 * and with no healthy pool the fallback pool is answered.
 */
import { UnsupportedError } from "../../kernel/errors.ts";
import type { Continent } from "../country.ts";
import { type LocationMap, locationMap } from "../location-map.ts";
import type { RegionOverride } from "../route.ts";
import { type DnsRecord, type HealthCheck, type RegionOrder, regionsOf, type Zone } from "../zone-model.ts";

/** One request to Cloudflare's API. */
export interface CloudflareRequest {
  /** By which later requests refer to the id that this one gives. */
  readonly name: string;
  readonly method: "POST";
  /** Below https://api.cloudflare.com/client/v4, with `{account_id}` and `{zone_id}`. */
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Cloudflare's regions by continent; where they differ from continents, countries say so one by one. */
const regionCodes: Readonly<Record<Continent, readonly string[]>> = {
  AF: ["NAF", "SAF"],
  AN: [],
  AS: ["ME", "SAS", "SEAS", "NEAS"],
  EU: ["WEU", "EEU"],
  NA: ["WNAM", "ENAM"],
  OC: ["OC"],
  SA: ["NSAM", "SSAM"],
};

/**
 * The requests. Raises `CAPABILITY_MISSING` for routing by network, which Cloudflare does not do in a load balancer. A drained region's pool
 * is disabled.
 */
export function cloudflareRequests(
  zone: Zone,
  overrides: Readonly<Record<string, RegionOverride>> = {},
): CloudflareRequest[] {
  return Object.entries(zone.records).flatMap(([name, record]) => {
    if (Object.keys(record.routing.networks ?? {}).length > 0) {
      throw new UnsupportedError(
        "CAPABILITY_MISSING",
        `Cloudflare's load balancers do not route by network, as records.${name}.routing.networks wants it. Leave it out there.`,
      );
    }
    const monitors = record.health === undefined ? [] : [monitor(name, record.health)];
    const pools = regionsOf(zone, record).map((region) =>
      pool(zone, name, record, { region, isEnabled: overrides[region] !== "drained" }),
    );
    return [...monitors, ...pools, loadBalancer(zone, name, record)];
  });
}

function monitor(name: string, health: HealthCheck): CloudflareRequest {
  const { path, port, host, intervalMs, timeoutMs, failures, successes } = health;
  return {
    name: monitorName(name),
    method: "POST",
    path: "/accounts/{account_id}/load_balancers/monitors",
    body: {
      type: port === 443 ? "https" : "http",
      description: `${name}: is the region ready`,
      method: "GET",
      path,
      port,
      expected_codes: "200",
      interval: intervalMs / 1_000,
      timeout: timeoutMs / 1_000,
      retries: 0,
      consecutive_down: failures,
      consecutive_up: successes,
      ...(host === undefined ? {} : { header: { Host: [host] } }),
    },
  };
}

function pool(
  zone: Zone,
  name: string,
  record: DnsRecord,
  { region, isEnabled }: { readonly region: string; readonly isEnabled: boolean },
): CloudflareRequest {
  const { addresses, latitude, longitude } = zone.regions[region] ?? { addresses: [] };
  return {
    name: poolName(name, region),
    method: "POST",
    path: "/accounts/{account_id}/load_balancers/pools",
    body: {
      name: `${zone.zone}-${poolName(name, region)}`.replaceAll(/[^a-z0-9-]/g, "-"),
      enabled: isEnabled,
      minimum_origins: 1,
      origins: addresses.map((address, index) => ({
        name: `${region}-${index + 1}`,
        address,
        enabled: true,
        weight: 1,
      })),
      ...(record.health === undefined ? {} : { monitor: `{{${monitorName(name)}}}` }),
      ...(latitude === undefined || longitude === undefined ? {} : { latitude, longitude }),
    },
  };
}

function loadBalancer(zone: Zone, name: string, record: DnsRecord): CloudflareRequest {
  const idsOf = (order: RegionOrder) => order.map((region) => `{{${poolName(name, region)}}}`);
  const regions = regionsOf(zone, record);
  const ids = idsOf(regions);
  return {
    name: `load_balancer_${plain(name)}`,
    method: "POST",
    path: "/zones/{zone_id}/load_balancers",
    body: {
      name: name === "@" ? zone.zone : `${name}.${zone.zone}`,
      // Answers are addresses of the regions, not Cloudflare's own.
      proxied: false,
      ttl: zone.ttlSeconds,
      default_pools: ids,
      fallback_pool: ids[0],
      location_strategy: { mode: "resolver_ip", prefer_ecs: "always" },
      ...(record.routing.weighted === true
        ? byWeight(zone, regions, idsOf)
        : byPlace(locationMap(zone, record), idsOf)),
    },
  };
}

/** Cloudflare's weights are fractions of one. */
function byWeight(zone: Zone, regions: readonly string[], idsOf: (order: RegionOrder) => string[]) {
  const weightOf = (region: string) => zone.regions[region]?.weight ?? 1;
  const most = Math.max(...regions.map(weightOf));
  const weights = regions.map((region) => [
    idsOf([region])[0],
    Math.max(0.01, Math.round((weightOf(region) / most) * 100) / 100),
  ]);
  return {
    steering_policy: "random",
    random_steering: { default_weight: 0.01, pool_weights: Object.fromEntries(weights) },
  };
}

function byPlace({ continents }: LocationMap, idsOf: (order: RegionOrder) => string[]) {
  const maps = Object.entries(continents) as [
    Continent,
    { order: RegionOrder; countries: Readonly<Record<string, RegionOrder>> },
  ][];
  if (maps.length === 0) return { steering_policy: "off" };
  return {
    steering_policy: "geo",
    region_pools: Object.fromEntries(
      maps.flatMap(([continent, { order }]) => regionCodes[continent].map((code) => [code, idsOf(order)])),
    ),
    country_pools: Object.fromEntries(
      maps.flatMap(([, { countries }]) => Object.entries(countries).map(([code, order]) => [code, idsOf(order)])),
    ),
  };
}

const plain = (record: string) => (record === "@" ? "zone" : record.replaceAll(".", "_"));
const monitorName = (record: string) => `monitor_${plain(record)}`;
const poolName = (record: string, region: string) => `pool_${plain(record)}_${region}`;
