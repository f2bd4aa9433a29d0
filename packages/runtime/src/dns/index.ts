/** The dns tier: a zone as data and who is answered what. Servers and providers take it through their own entry points. */
export { type Continent, type Country, continents, countries, countryOf, distanceKm, type Point } from "./country.ts";
export { contains, type Network, networkAround, parseNetwork } from "./network.ts";
export { type HealthThresholds, initialHealth, type Observation, observe, type RegionHealth } from "./region-health.ts";
export {
  answerFor,
  type DnsAnswer,
  type Place,
  type PlaceOf,
  placeOfQuestion,
  preferredRegions,
  type QuestionOrigin,
  type RegionOverride,
  type RegionState,
  type RegionStates,
  stateOf,
} from "./route.ts";
export {
  type DnsRecord,
  type DnsRegion,
  type HealthCheck,
  type NameServer,
  parseZone,
  type RegionOrder,
  type Routing,
  regionsOf,
  type Zone,
  type ZoneInput,
} from "./zone-model.ts";
