/** What a zone may say, and how mistakes in it are told. */
import { describe, expect, it } from "vitest";
import { continents, countries, countryOf, distanceKm } from "../../src/dns/country.ts";
import { contains, parseNetwork } from "../../src/dns/network.ts";
import { parseZone, regionsOf, type ZoneInput } from "../../src/dns/zone-model.ts";

const zone: ZoneInput = {
  zone: "geo.example.com",
  nameServers: [{ name: "ns1", addresses: ["192.0.2.53"] }],
  regions: {
    eu: { addresses: ["192.0.2.1", "2001:db8:1::1"], latitude: 50, longitude: 8 },
    us: { addresses: ["192.0.2.2"], latitude: 39, longitude: -77 },
  },
  records: { www: { routing: { nearest: true }, health: {} } },
};
const www = (change: object): unknown => ({ ...zone, records: { www: change } });
const messageOf = (input: unknown): string => {
  try {
    parseZone(input);
  } catch (error) {
    return (error as Error).message;
  }
  return "";
};

describe("a zone", () => {
  it("is filled in with what was left out", () => {
    const parsed = parseZone(zone);
    expect(parsed).toMatchObject({ ttlSeconds: 30, contact: "hostmaster@geo.example.com" });
    expect(parsed.records["www"]?.health).toEqual({
      path: "/readyz",
      port: 80,
      intervalMs: 5_000,
      timeoutMs: 2_000,
      failures: 3,
      clearAfter: 3,
      successes: 3,
      downMsMin: 30_000,
    });
  });

  it("names regions in the order of its fallback, each once", () => {
    const parsed = parseZone(www({ routing: { fallback: ["us"] } }));
    expect(regionsOf(parsed, parsed.records["www"] as never)).toEqual(["us", "eu"]);
  });

  it.each<[what: string, input: unknown, message: string]>([
    [
      "a region that is not there",
      www({ routing: { countries: { AT: ["asia"] } } }),
      'records.www.routing.countries.AT: there is no region "asia" here; there are eu, us.',
    ],
    [
      "a region outside of the record's",
      www({ regions: ["eu"], routing: { fallback: ["us"] } }),
      'records.www.routing.fallback: there is no region "us" here; there are eu.',
    ],
    [
      "a region twice",
      www({ routing: { fallback: ["us", "us"] } }),
      "records.www.routing.fallback: names a region twice.",
    ],
    [
      "no country",
      www({ routing: { countries: { UK: ["eu"] } } }),
      "expected a country's code of ISO 3166-1, such as AT",
    ],
    [
      "no continent",
      www({ routing: { continents: { XX: ["eu"] } } }),
      "records.www.routing.continents: no such setting: XX.",
    ],
    [
      "no network",
      www({ routing: { networks: { "192.0.2.1/24": ["eu"] } } }),
      "expected a network such as 192.0.2.0/24",
    ],
    [
      "IPv4 as IPv6",
      www({ routing: { networks: { "::ffff:192.0.2.0/120": ["eu"] } } }),
      "expected a network such as 192.0.2.0/24",
    ],
    ["an unknown setting", www({ routing: { near: true } }), "records.www.routing: no such setting: near."],
    [
      "half seconds",
      www({ health: { intervalMs: 2_500 } }),
      "records.www.health.intervalMs: expected milliseconds in whole seconds, 2000 to 255000.",
    ],
    [
      "a time-out as long as the interval",
      www({ health: { intervalMs: 2_000, timeoutMs: 2_000 } }),
      "records.www.health.timeoutMs: expected less than intervalMs.",
    ],
    [
      "a weight beside places",
      www({ routing: { weighted: true, nearest: true } }),
      "records.www.routing.weighted: has no place for nearest beside it.",
    ],
    [
      "a host name as an address",
      { ...zone, regions: { eu: { addresses: ["lb.example.com"] } } },
      "regions.eu.addresses.0: expected an IPv4 or IPv6 address.",
    ],
    [
      "distance without a point",
      { ...zone, regions: { eu: { addresses: ["192.0.2.1"] } } },
      "regions.eu: needs latitude and longitude, because records.www.routing.nearest is true.",
    ],
    [
      "a name server without address",
      { ...zone, nameServers: [{ name: "ns1" }] },
      'nameServers.0.addresses: expected at least one, because "ns1" lies in the zone.',
    ],
    ["text that would end a line of a file", { ...zone, zone: "a.example\nevil" }, "zone: expected a zone's name"],
    [
      "a path that would end a line of a file",
      www({ health: { path: "/a\n}" } }),
      "records.www.health.path: expected a path such as /readyz.",
    ],
  ])("refuses %s and says where", (_, input, message) => {
    expect(messageOf(input)).toContain(message);
  });

  it("tells all mistakes at once", () => {
    expect(
      messageOf(www({ routing: { fallback: ["a"], countries: { AT: ["b"] } } })).match(/there is no region/g),
    ).toHaveLength(2);
  });
});

describe("networks", () => {
  it.each([
    ["10.0.0.0/8", "10.255.1.2", true],
    ["10.0.0.0/8", "11.0.0.0", false],
    ["2001:db8::/32", "2001:db8:ffff::1", true],
    ["2001:db8::/32", "2001:db9::", false],
    ["0.0.0.0/0", "::", false],
    ["::/0", "2001:db8::1", true],
    ["192.0.2.0/24", "::ffff:192.0.2.9", true],
  ])("%s and %s", (outer, inner, isInside) => {
    const [a, b] = [parseNetwork(outer), parseNetwork(inner)];
    expect(a && b && contains(a, b)).toBe(isInside);
  });

  it.each(["10.0.0.1/8", "10.0.0.0/33", "2001:db8::/129", "fe80::1%eth0", "300.1.1.1", "x", "", "10.0.0.0/8/8"])(
    "%s is none",
    (text) => {
      expect(parseNetwork(text)).toBeUndefined();
    },
  );
});

describe("countries", () => {
  it("are each on one continent and on the Earth", () => {
    expect(countries.length).toBe(250);
    for (const { code, continent, latitude, longitude } of countries) {
      expect(code).toMatch(/^[A-Z]{2}$/);
      expect(continents).toContain(continent);
      expect(Math.abs(latitude)).toBeLessThanOrEqual(90);
      expect(Math.abs(longitude)).toBeLessThanOrEqual(180);
    }
  });

  it("are as far apart as they are", () => {
    const [vienna, newYork] = [
      { latitude: 48.2, longitude: 16.4 },
      { latitude: 40.7, longitude: -74 },
    ];
    expect(distanceKm(vienna, newYork)).toBeCloseTo(6_800, -2);
    expect(distanceKm({ latitude: 0, longitude: 179 }, { latitude: 0, longitude: -179 })).toBeCloseTo(222, 0);
    expect(countryOf("ZZ")).toBeUndefined();
  });
});
