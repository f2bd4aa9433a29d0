/** Who is answered what: the rules one by one, and what holds for every zone, client and state. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countries } from "../../src/dns/country.ts";
import { contains, type Network, parseNetwork } from "../../src/dns/network.ts";
import {
  answerFor,
  type Place,
  type PlaceOf,
  placeOfQuestion,
  preferredRegions,
  type RegionStates,
} from "../../src/dns/route.ts";
import { type DnsRecord, parseZone, type Zone } from "../../src/dns/zone-model.ts";

const zone = parseZone({
  zone: "geo.example.com",
  nameServers: [{ name: "ns1", addresses: ["192.0.2.53"] }],
  regions: {
    eu: { addresses: ["192.0.2.1", "2001:db8:1::1"], latitude: 50, longitude: 8, weight: 89 },
    us: { addresses: ["192.0.2.2"], latitude: 39, longitude: -77, weight: 10 },
    ap: { addresses: ["192.0.2.3"], latitude: 1, longitude: 104, weight: 1 },
  },
  records: {
    www: {
      routing: {
        networks: { "198.51.100.0/24": ["us"], "198.51.100.128/25": ["ap"] },
        countries: { TR: ["ap"] },
        continents: { SA: ["ap", "us"] },
        nearest: true,
        fallback: ["us", "eu"],
      },
    },
    share: { routing: { weighted: true } },
  },
});
const www = zone.records["www"] as DnsRecord;
const share = zone.records["share"] as DnsRecord;
const order = (place: Place) => preferredRegions(zone, www, place);
const at = (text: string) => parseNetwork(text) as Network;

describe("the order of regions", () => {
  it.each<[what: string, place: Place, expected: readonly string[]]>([
    ["the nearest first", { country: "AT" }, ["eu", "us", "ap"]],
    ["across an ocean too", { country: "MX" }, ["us", "eu", "ap"]],
    ["by coordinates before the country's", { country: "US", latitude: 50, longitude: 10 }, ["eu", "us", "ap"]],
    ["a named country before the distance", { country: "TR" }, ["ap", "us", "eu"]],
    ["a named continent before the distance", { country: "BR" }, ["ap", "us", "eu"]],
    ["a network before its country", { country: "AT", network: at("198.51.100.7") }, ["us", "eu", "ap"]],
    ["the longest network", { country: "AT", network: at("198.51.100.200") }, ["ap", "us", "eu"]],
    ["a subnet that a rule divides counts for the wider rule", { network: at("198.51.100.0/24") }, ["us", "eu", "ap"]],
    ["of an unknown place the fallback", {}, ["us", "eu", "ap"]],
    ["of a code that is no country the fallback", { country: "ZZ" }, ["us", "eu", "ap"]],
  ])("%s", (_, place, expected) => {
    expect(order(place)).toEqual(expected);
  });
});

describe("the answer", () => {
  const ask = (states: RegionStates, country = "AT") => answerFor(zone, www, { place: { country }, states });

  it("is the nearest region with all its addresses", () => {
    expect(ask({})).toEqual({
      region: "eu",
      addresses: ["192.0.2.1", "2001:db8:1::1"],
      next: ["us", "ap"],
      isFailOpen: false,
    });
  });

  it.each<[what: string, states: RegionStates, region: string]>([
    ["leaves out what is down", { checks: { eu: "down" } }, "us"],
    ["leaves out what is overloaded while another is up", { checks: { eu: "overloaded", us: "down" } }, "ap"],
    ["takes what is overloaded before what is down", { checks: { eu: "down", us: "overloaded", ap: "down" } }, "us"],
    ["leaves out what a person drained, though it is up", { overrides: { eu: "drained" } }, "us"],
    ["takes what a person forced, though it is down", { checks: { eu: "down" }, overrides: { eu: "forced" } }, "eu"],
    [
      "does not take what is drained though all else is overloaded",
      { checks: { us: "overloaded", ap: "overloaded" }, overrides: { eu: "drained" } },
      "us",
    ],
  ])("%s", (_, states, region) => {
    expect(ask(states)).toMatchObject({ region, isFailOpen: false });
  });

  it("fails open when nothing is up: each client its own region", () => {
    const checks = { eu: "down", us: "down", ap: "down" } as const;
    expect(ask({ checks })).toMatchObject({ region: "eu", isFailOpen: true });
    expect(ask({ checks }, "US")).toMatchObject({ region: "us", isFailOpen: true });
  });

  it("follows the weights, of those that are up", () => {
    const draw = (of: number, states: RegionStates = {}) =>
      answerFor(zone, share, { place: {}, states, draw: of }).region;
    expect([draw(0), draw(0.88), draw(0.9), draw(0.995)]).toEqual(["eu", "eu", "us", "ap"]);
    expect(draw(0.5, { checks: { eu: "down" } })).toBe("us");
    expect(draw(0.9, { checks: { eu: "down", us: "down" } })).toBe("ap");
  });
});

describe("the client's subnet", () => {
  const placeOf: PlaceOf = (network) => {
    const [austria, brazil] = [at("203.0.113.0/24"), at("192.0.2.0/25")];
    if (contains(austria, network)) return { place: { country: "AT" }, prefixLength: 24 };
    if (contains(brazil, network)) return { place: { country: "BR" }, prefixLength: 25 };
    return undefined;
  };
  const ask = (address?: string, prefixLength = 24) =>
    placeOfQuestion(
      zone,
      { resolver: "192.0.2.9", ...(address === undefined ? {} : { subnet: { address, prefixLength } }) },
      placeOf,
    );

  it("decides where it is told", () => {
    expect(ask("203.0.113.77")).toMatchObject({ place: { country: "AT" }, scopePrefixLength: 24 });
  });

  it("is not told: the resolver's place, and no prefix in the answer", () => {
    expect(ask()).toMatchObject({ place: { country: "BR" }, scopePrefixLength: null });
  });

  it("of length 0 asks not to be told apart: the answer is for everybody", () => {
    expect(ask("0.0.0.0", 0)).toMatchObject({ place: { country: "BR" }, scopePrefixLength: 0 });
  });

  it("is answered with a longer prefix where a rule divides it, and with one that keeps a neighbour's rule out", () => {
    expect(ask("198.51.100.0", 24).scopePrefixLength).toBe(25);
    expect(ask("198.51.101.0", 24).scopePrefixLength).toBe(24);
    expect(ask("198.51.0.0", 16).scopePrefixLength).toBe(25);
    // For all that the database knows as one, though the question was more exact.
    expect(ask("203.0.113.64", 28).scopePrefixLength).toBe(24);
  });
});

describe("for every zone, client and state", () => {
  const names = ["eu", "us", "ap", "sa"];
  const orders = fc.shuffledSubarray(names, { minLength: 1 });
  const zones: fc.Arbitrary<Zone> = fc
    .record({
      points: fc.array(fc.tuple(fc.integer({ min: -90, max: 90 }), fc.integer({ min: -180, max: 180 })), {
        minLength: 4,
        maxLength: 4,
      }),
      weights: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 4, maxLength: 4 }),
      routing: fc.record(
        {
          networks: fc.dictionary(fc.constantFrom("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"), orders),
          countries: fc.dictionary(fc.constantFrom("AT", "US", "JP"), orders),
          continents: fc.dictionary(fc.constantFrom("EU", "AS"), orders),
          nearest: fc.boolean(),
          fallback: orders,
        },
        { requiredKeys: [] },
      ),
      isWeighted: fc.boolean(),
    })
    .map(({ points, weights, routing, isWeighted }) =>
      parseZone({
        zone: "geo.example.com",
        nameServers: [{ name: "ns1", addresses: ["192.0.2.53"] }],
        regions: Object.fromEntries(
          names.map((name, index) => [
            name,
            {
              addresses: [`192.0.2.${index + 1}`],
              latitude: points[index]?.[0],
              longitude: points[index]?.[1],
              weight: weights[index],
            },
          ]),
        ),
        records: { www: { routing: isWeighted ? { weighted: true } : routing } },
      }),
    );
  const places: fc.Arbitrary<Place> = fc.record(
    {
      country: fc.constantFrom("ZZ", ...countries.map(({ code }) => code)),
      network: fc.constantFrom("10.1.2.3", "10.2.0.0/16", "192.0.2.1", "2001:db8::1", "::/0").map(at),
    },
    { requiredKeys: [] },
  );
  const states: fc.Arbitrary<RegionStates> = fc.record({
    checks: fc.dictionary(fc.constantFrom(...names), fc.constantFrom("up", "overloaded", "down")),
    overrides: fc.dictionary(fc.constantFrom(...names), fc.constantFrom("drained", "forced")),
  }) as fc.Arbitrary<RegionStates>;
  const draws = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

  it("the order holds each region once", () => {
    fc.assert(
      fc.property(zones, places, (of, place) => {
        expect([...preferredRegions(of, of.records["www"] as DnsRecord, place)].sort()).toEqual([...names].sort());
      }),
    );
  });

  it("the answer is never empty, and never a region that is down or drained while another is not", () => {
    fc.assert(
      fc.property(zones, places, states, draws, (of, place, given, draw) => {
        const answer = answerFor(of, of.records["www"] as DnsRecord, { place, states: given, draw });
        expect(answer.addresses.length).toBeGreaterThan(0);
        const isOut = (name: string) =>
          given.overrides?.[name] === "drained" ||
          (given.overrides?.[name] !== "forced" && given.checks?.[name] === "down");
        expect(answer.isFailOpen).toBe(names.every(isOut));
        if (!answer.isFailOpen) expect(isOut(answer.region)).toBe(false);
        expect([answer.region, ...answer.next].sort()).toEqual([...names].sort());
      }),
    );
  });

  it("a region that goes down moves its own clients only", () => {
    fc.assert(
      fc.property(zones, places, states, fc.constantFrom(...names), (of, place, given, lost) => {
        const record = of.records["www"] as DnsRecord;
        if (record.routing.weighted === true) return;
        const before = answerFor(of, record, { place, states: given });
        const after = answerFor(of, record, {
          place,
          states: { ...given, checks: { ...given.checks, [lost]: "down" } },
        });
        if (before.region !== lost) expect(after.region).toBe(before.region);
      }),
    );
  });
});
