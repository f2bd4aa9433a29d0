/**
 * Who is answered what: pure, and the same for every server and provider that the zone is written for.
 *
 * 1. *Order*: the place of a client gives an order of all regions of the record (see `Routing`).
 * 2. *State*: the first region of it that is up is the answer, with all its addresses. None is up: the first that is merely overloaded.
 *    None at all: the order as if all were up, because an answer that may fail is better than none ("fail open").
 * 3. A person's word stands above every check: a drained region counts as down, a forced one as up.
 */
import { type Continent, countryOf, distanceKm, type Point } from "./country.ts";
import { commonBits, contains, type Network, networkAround, parseNetwork } from "./network.ts";
import { type DnsRecord, type RegionOrder, regionsOf, type Zone } from "./zone-model.ts";

/** Where a client is, as far as that is known. */
export interface Place {
  readonly latitude?: number | undefined;
  readonly longitude?: number | undefined;
  /** Its address, or the network that stands for it. */
  readonly network?: Network | undefined;
  /** Code of ISO 3166-1. */
  readonly country?: string | undefined;
  /** Default the country's. */
  readonly continent?: Continent | undefined;
}

/** What checks say of a region. "overloaded": it serves, but has more than it can take. */
export type RegionState = "up" | "overloaded" | "down";

/** What a person says of a region, above all checks. */
export type RegionOverride = "drained" | "forced";

/** States of the regions; those not named are up, and nobody has said anything of them. */
export interface RegionStates {
  readonly checks?: Readonly<Record<string, RegionState>>;
  readonly overrides?: Readonly<Record<string, RegionOverride>>;
}

/** An answer. */
export interface DnsAnswer {
  /** The region; of a record with weights, the one that was drawn. */
  readonly region: string;
  /** Its addresses, v4 and v6; a question of one family gets those of it. */
  readonly addresses: readonly string[];
  /** Regions that would be asked next, in order. */
  readonly next: RegionOrder;
  /** True: no region was up or overloaded, and the answer is a hope. */
  readonly isFailOpen: boolean;
}

/** The order of regions for a client: every region of the record, each once. */
export function preferredRegions(zone: Zone, record: DnsRecord, place: Place): RegionOrder {
  const { routing } = record;
  const rest = regionsOf(zone, record);
  const first =
    byNetwork(record, place.network) ??
    byName(routing.countries, place.country) ??
    byName(routing.continents, place.continent ?? countryOf(place.country ?? "")?.continent) ??
    (routing.nearest === true ? byDistance(zone, rest, place) : undefined) ??
    [];
  return [...first, ...rest.filter((name) => !first.includes(name))];
}

/** The answer for a client. `draw`, a number in [0, 1), is used only of records with weights. */
export function answerFor(
  zone: Zone,
  record: DnsRecord,
  { place, states = {}, draw = 0 }: { readonly place: Place; readonly states?: RegionStates; readonly draw?: number },
): DnsAnswer {
  const order = record.routing.weighted === true ? regionsOf(zone, record) : preferredRegions(zone, record, place);
  const up = order.filter((name) => stateOf(name, states) === "up");
  const strained = order.filter((name) => stateOf(name, states) === "overloaded");
  const isFailOpen = up.length + strained.length === 0;
  const candidates = isFailOpen ? order : up.length > 0 ? up : strained;
  const region = record.routing.weighted === true ? drawn(zone, candidates, draw) : (candidates[0] as string);
  return {
    region,
    addresses: zone.regions[region]?.addresses ?? [],
    next: [...new Set([...candidates, ...strained, ...order])].filter((name) => name !== region),
    isFailOpen,
  };
}

/** What a region counts as. */
export function stateOf(region: string, { checks = {}, overrides = {} }: RegionStates): RegionState {
  const override = overrides[region];
  if (override !== undefined) return override === "drained" ? "down" : "up";
  return checks[region] ?? "up";
}

/** A question's origin: the resolver that asks, and the subnet of its client where it tells (RFC 7871). */
export interface QuestionOrigin {
  readonly resolver: string;
  readonly subnet?: { readonly address: string; readonly prefixLength: number } | undefined;
}

/** Looks up the place of a network, and how long the prefix is that lies there as a whole. */
export type PlaceOf = (network: Network) => { readonly place: Place; readonly prefixLength: number } | undefined;

/**
 * The place that decides, and the prefix length to answer with: for all clients within it the answer is the same, so that a resolver may
 * keep it for them. A subnet of length 0 asks not to be told apart: the resolver's own place decides, and the answer is for everybody
 * behind it (RFC 7871, 7.1.2 and 7.2.1). Null: the question named no subnet, and the answer names none.
 */
export function placeOfQuestion(
  zone: Pick<Zone, "records">,
  { resolver, subnet }: QuestionOrigin,
  placeOf: PlaceOf,
): { readonly place: Place; readonly scopePrefixLength: number | null } {
  const told =
    subnet === undefined || subnet.prefixLength === 0 ? undefined : networkAround(subnet.address, subnet.prefixLength);
  const network = told ?? parseNetwork(resolver);
  if (network === undefined) return { place: {}, scopePrefixLength: subnet === undefined ? null : 0 };
  const found = placeOf(network);
  const place: Place = { ...found?.place, network };
  if (subnet === undefined) return { place, scopePrefixLength: null };
  if (told === undefined) return { place, scopePrefixLength: 0 };
  return { place, scopePrefixLength: scopeOf(zone, told, found?.prefixLength ?? told.prefixLength) };
}

/** As long as it takes to leave out whatever is answered otherwise; longer than the subnet where a rule divides that. */
function scopeOf({ records }: Pick<Zone, "records">, told: Network, databasePrefix: number): number {
  const rules = Object.values(records).flatMap(({ routing }) =>
    Object.keys(routing.networks ?? {}).flatMap((text) => parseNetwork(text) ?? []),
  );
  const needed = rules
    .filter(({ family }) => family === told.family)
    .map((rule) => (contains(rule, told) || contains(told, rule) ? rule.prefixLength : commonBits(rule, told) + 1));
  return Math.max(databasePrefix, ...needed);
}

function byNetwork({ routing }: DnsRecord, network: Network | undefined): RegionOrder | undefined {
  if (network === undefined || routing.networks === undefined) return undefined;
  let best: { readonly prefixLength: number; readonly order: RegionOrder } | undefined;
  for (const [text, order] of Object.entries(routing.networks)) {
    const rule = parseNetwork(text);
    if (rule === undefined || !contains(rule, network)) continue;
    if (best === undefined || rule.prefixLength > best.prefixLength) best = { prefixLength: rule.prefixLength, order };
  }
  return best?.order;
}

function byName(
  orders: Readonly<Record<string, RegionOrder | undefined>> | undefined,
  name: string | undefined,
): RegionOrder | undefined {
  return name === undefined || orders === undefined || !Object.hasOwn(orders, name) ? undefined : orders[name];
}

/** Of two as near the one that comes first in `names`. */
function byDistance(zone: Zone, names: readonly string[], place: Place): RegionOrder | undefined {
  const from = pointOf(place) ?? countryOf(place.country ?? "");
  if (from === undefined) return undefined;
  const far = new Map(names.map((name) => [name, distanceKm(from, pointOf(zone.regions[name] ?? {}) ?? from)]));
  return [...names].sort((a, b) => (far.get(a) ?? 0) - (far.get(b) ?? 0));
}

function pointOf({ latitude, longitude }: Pick<Place, "latitude" | "longitude">): Point | undefined {
  return latitude === undefined || longitude === undefined ? undefined : { latitude, longitude };
}

/** By the weights of those that are left. */
function drawn(zone: Zone, names: readonly string[], draw: number): string {
  const weightOf = (name: string) => zone.regions[name]?.weight ?? 1;
  let left = draw * names.reduce((sum, name) => sum + weightOf(name), 0);
  for (const name of names) {
    if (left < weightOf(name)) return name;
    left -= weightOf(name);
  }
  // Rounding may leave a rest behind the last one.
  return names.at(-1) as string;
}
