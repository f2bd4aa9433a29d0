/** The routing of a record as a table by continent and country, as servers and providers want it: computed once, and short. */
import { type Continent, continents, countries } from "./country.ts";
import { preferredRegions } from "./route.ts";
import { type DnsRecord, type RegionOrder, regionsOf, type Zone } from "./zone-model.ts";

/** Orders of one continent. */
export interface ContinentMap {
  /** For all of its countries but those below. */
  readonly order: RegionOrder;
  /** Countries with another order, by code. */
  readonly countries: Readonly<Record<string, RegionOrder>>;
}

/** Orders by place. */
export interface LocationMap {
  /** For unknown places, and for continents that are not named. */
  readonly order: RegionOrder;
  readonly continents: Readonly<Partial<Record<Continent, ContinentMap>>>;
}

/** The table; each country's order is the one of `preferredRegions`. Networks are not in it. */
export function locationMap(zone: Zone, record: DnsRecord): LocationMap {
  const order = regionsOf(zone, record);
  const found: Partial<Record<Continent, ContinentMap>> = {};
  for (const continent of continents) {
    const map = continentMap(zone, record, continent);
    if (!isSame(map.order, order) || Object.keys(map.countries).length > 0) found[continent] = map;
  }
  return { order, continents: found };
}

function continentMap(zone: Zone, record: DnsRecord, continent: Continent): ContinentMap {
  const own = countries
    .filter((country) => country.continent === continent)
    .map(({ code }) => ({ code, order: preferredRegions(zone, record, { country: code }) }));
  const named = record.routing.continents?.[continent];
  const order =
    named === undefined
      ? mostCommon(own.map((country) => country.order))
      : preferredRegions(zone, record, { continent });
  const others = own.filter((country) => !isSame(country.order, order));
  return { order, countries: Object.fromEntries(others.map((country) => [country.code, country.order])) };
}

function mostCommon(orders: readonly RegionOrder[]): RegionOrder {
  const counts = new Map<string, number>();
  for (const order of orders) counts.set(order.join(), (counts.get(order.join()) ?? 0) + 1);
  const [best] = [...counts].sort(([, a], [, b]) => b - a);
  return best?.[0].split(",") ?? [];
}

function isSame(a: RegionOrder, b: RegionOrder): boolean {
  return a.join() === b.join();
}
