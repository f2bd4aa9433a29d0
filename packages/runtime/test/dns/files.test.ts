/** The same zone for gdnsd, Route 53 and Cloudflare, in the shapes that these document. */
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { countries } from "../../src/dns/country.ts";
import { cloudflareRequests } from "../../src/dns/drivers/cloudflare-files.ts";
import { gdnsdAdminState, gdnsdFiles, needsCountries } from "../../src/dns/drivers/gdnsd-files.ts";
import { route53Template } from "../../src/dns/drivers/route53-files.ts";
import { type LocationMap, locationMap } from "../../src/dns/location-map.ts";
import { preferredRegions } from "../../src/dns/route.ts";
import { type DnsRecord, parseZone, type ZoneInput } from "../../src/dns/zone-model.ts";

const input: ZoneInput = {
  zone: "geo.example.com",
  nameServers: [{ name: "ns1", addresses: ["192.0.2.53", "2001:db8::53"] }, { name: "ns.example.net." }],
  regions: {
    eu: { addresses: ["192.0.2.1", "192.0.2.11", "2001:db8:1::1"], latitude: 50, longitude: 8, weight: 900 },
    us: { addresses: ["192.0.2.2", "2001:db8:2::1"], latitude: 39, longitude: -77, weight: 100 },
    ap: { addresses: ["192.0.2.3"], latitude: 1, longitude: 104 },
  },
  records: {
    www: { routing: { nearest: true, countries: { TR: ["us"] } }, health: { port: 8080, host: "www.example.com" } },
    "@": { regions: ["us", "eu"], routing: {} },
    "a.share": { regions: ["eu", "us"], routing: { weighted: true }, health: {} },
  },
};
const zone = parseZone(input);
const place = {
  listen: [
    { host: "127.0.0.1", port: 5_353 },
    { host: "::1", port: 5_353 },
  ],
  runFolder: "/r",
  stateFolder: "/s",
  database: "/d.mmdb",
  serial: 7,
};

/** As a server would look a country up. */
function lookUp(
  { order, continents }: LocationMap,
  code: string,
  continent: keyof typeof continents,
): readonly string[] {
  return continents[continent]?.countries[code] ?? continents[continent]?.order ?? order;
}

describe("the table by place", () => {
  it("says of every country what the policy says, in few lines", () => {
    const record = zone.records["www"] as DnsRecord;
    const map = locationMap(zone, record);
    for (const { code, continent } of countries) {
      expect({ code, order: lookUp(map, code, continent) }).toEqual({
        code,
        order: preferredRegions(zone, record, { country: code }),
      });
    }
    const lines = Object.values(map.continents).reduce((sum, of) => sum + 1 + Object.keys(of.countries).length, 0);
    expect(lines).toBeLessThan(countries.length / 2);
  });

  it("is empty where place does not matter", () => {
    expect(locationMap(zone, zone.records["@"] as DnsRecord)).toEqual({ order: ["us", "eu"], continents: {} });
    expect(needsCountries(zone)).toBe(true);
    expect(needsCountries({ ...zone, records: { "@": zone.records["@"] as DnsRecord } })).toBe(false);
  });
});

describe("for gdnsd", () => {
  const files = gdnsdFiles(zone, place);

  it("the zone file has the servers, their addresses and the names", () => {
    expect(files.zone.split("\n").filter((line) => line !== "" && !line.startsWith(";"))).toEqual([
      "$TTL 3600",
      "@ 30 SOA ns1.geo.example.com. hostmaster.geo.example.com. ( 7 7200 1800 1209600 30 )",
      "@ NS ns1.geo.example.com.",
      "@ NS ns.example.net.",
      "ns1 A 192.0.2.53",
      "ns1 AAAA 2001:db8::53",
      "www 30/5 DYNA geoip!www",
      "@ 30/5 DYNA geoip!zone_itself",
      "a.share 30/5 DYNA weighted!a_share",
    ]);
  });

  it("the configuration listens, asks, and answers regions with their addresses", () => {
    expect(files.config).toContain('listen => [ 127.0.0.1:5353, "[::1]:5353" ]');
    expect(files.config).toMatch(
      /www_health => \{\n {4}plugin => http_status\n {4}port => 8080\n {4}url_path => "\/readyz"\n {4}vhost => www.example.com/,
    );
    // 30 s down at least, asked every 5 s.
    expect(files.config).toMatch(/down_thresh => 3\n {4}ok_thresh => 3\n {4}up_thresh => 6/);
    expect(files.config).toContain("eu => { addrs_v4 => [ 192.0.2.1, 192.0.2.11 ], addrs_v6 => [ 2001:db8:1::1 ] }");
    expect(files.config).toMatch(/TR => \[ us, (?:eu, ap|ap, eu) \]/);
    // 900 of eu over two addresses, 100 of us over one.
    expect(files.config).toContain("eu_2 => [ 192.0.2.11, 450000 ]");
    expect(files.config).toContain("us_1 => [ 192.0.2.2, 100000 ]");
  });

  it("a person's word is a line a record, and of weights one an address", () => {
    expect(gdnsdAdminState(zone, { us: "drained", ap: "forced" }).split("\n")).toEqual([
      "geoip/www/us => DOWN",
      "geoip/zone_itself/us => DOWN",
      "192.0.2.2/a_share_health => DOWN",
      "2001:db8:2::1/a_share_health => DOWN",
      "geoip/www/ap => UP",
      "",
    ]);
    expect(gdnsdAdminState(zone, {})).toBe("");
  });
});

describe("for Route 53", () => {
  // Of AWS::Route53::RecordSetGroup and AWS::Route53::HealthCheck in the reference of CloudFormation, what is used here.
  const ref = z.strictObject({ Ref: z.string() });
  const recordSet = z.strictObject({
    Name: z.string().endsWith(".").max(254),
    Type: z.enum(["A", "AAAA"]),
    SetIdentifier: z.string().min(1).max(128),
    TTL: z.string().regex(/^\d+$/).optional(),
    ResourceRecords: z.array(z.string()).length(1).optional(),
    MultiValueAnswer: z.literal(true).optional(),
    HealthCheckId: ref.optional(),
    AliasTarget: z
      .strictObject({ DNSName: z.string(), HostedZoneId: ref, EvaluateTargetHealth: z.literal(true) })
      .optional(),
    Failover: z.enum(["PRIMARY", "SECONDARY"]).optional(),
    GeoLocation: z
      .union([
        z.strictObject({ ContinentCode: z.string().length(2) }),
        z.strictObject({ CountryCode: z.string().min(1).max(2) }),
      ])
      .optional(),
    Weight: z.int().min(0).max(255).optional(),
  });
  const sets = (resource: unknown) =>
    z.array(recordSet).parse((resource as { Properties: { RecordSets: unknown } }).Properties.RecordSets);
  const { Resources: resources } = route53Template(zone);
  const www = sets(resources["WwwRecords"]);

  it("every name that is led to is there before, every health check too, and no set is there twice", () => {
    for (const [name, resource] of Object.entries(resources)) {
      if (resource.Type !== "AWS::Route53::RecordSetGroup") continue;
      const seen = new Set<string>();
      const before = new Set<string>();
      for (const set of sets(resource)) {
        const key = `${set.Name} ${set.Type} ${set.SetIdentifier}`;
        expect(seen, `${name}: ${key}`).not.toContain(key);
        seen.add(key);
        before.add(`${set.Name} ${set.Type}`);
        if (set.AliasTarget !== undefined) expect(before).toContain(`${set.AliasTarget.DNSName} ${set.Type}`);
        if (set.HealthCheckId !== undefined) expect(Object.keys(resources)).toContain(set.HealthCheckId.Ref);
        expect([set.AliasTarget, set.ResourceRecords].filter((of) => of !== undefined)).toHaveLength(1);
        expect(
          [set.MultiValueAnswer, set.Failover, set.GeoLocation, set.Weight].filter((of) => of !== undefined),
        ).toHaveLength(1);
      }
    }
  });

  /** The regions that Route 53 would go through for a country, by following the names. */
  const followed = (code: string, continent: string): string[] => {
    const named = (key: object) =>
      www.find(({ Type, GeoLocation }) => Type === "A" && JSON.stringify(GeoLocation) === JSON.stringify(key));
    const start = named({ CountryCode: code }) ?? named({ ContinentCode: continent }) ?? named({ CountryCode: "*" });
    const found: string[] = [];
    let at = start?.AliasTarget?.DNSName;
    for (let steps = 0; at !== undefined && steps < 10; steps++) {
      const here = www.filter(({ Name, Type }) => Name === at && Type === "A");
      const region = (name: string | undefined) => /^(\w+)\.region\./.exec(name ?? "")?.[1];
      const primary = here.find(({ Failover }) => Failover === "PRIMARY");
      found.push((region(at) ?? region(primary?.AliasTarget?.DNSName)) as string);
      at = here.find(({ Failover }) => Failover === "SECONDARY")?.AliasTarget?.DNSName;
    }
    return found;
  };

  it("following the names from any country gives the policy's order", () => {
    for (const { code, continent } of countries) {
      const order = preferredRegions(zone, zone.records["www"] as DnsRecord, { country: code });
      expect({ code, order: followed(code, continent) }).toEqual({ code, order });
    }
  });

  it("IPv6 leads to regions that have it", () => {
    const v6 = www.filter(({ Type }) => Type === "AAAA").map(({ Name }) => Name);
    expect(v6).toContain("eu.us.order.www.geo.example.com.");
    expect(v6.filter((name) => name.includes("ap."))).toEqual([]);
  });

  it("asks each address, but not those of a region that a person has forced; a drained one comes last", () => {
    expect(resources["WwwEuHealth2"]).toEqual({
      Type: "AWS::Route53::HealthCheck",
      Properties: {
        HealthCheckConfig: {
          Type: "HTTP",
          IPAddress: "192.0.2.11",
          Port: 8_080,
          ResourcePath: "/readyz",
          FullyQualifiedDomainName: "www.example.com",
          RequestInterval: 10,
          FailureThreshold: 3,
        },
      },
    });
    const { Resources: said } = route53Template(zone, { eu: "drained", us: "forced" });
    expect(Object.keys(said)).not.toContain("WwwUsHealth1");
    const everywhere = sets(said["WwwRecords"]).find(
      ({ Type, SetIdentifier }) => Type === "A" && SetIdentifier === "everywhere",
    );
    expect(everywhere?.AliasTarget?.DNSName).toBe("us.ap.eu.order.www.geo.example.com.");
    const share = sets(said["AShareRecords"]).find(({ Type, SetIdentifier }) => Type === "A" && SetIdentifier === "eu");
    expect(share?.Weight).toBe(0);
  });

  it("weights keep their proportion within what Route 53 takes", () => {
    const shares = sets(resources["AShareRecords"]).filter(({ Weight }) => Weight !== undefined);
    expect(shares.map(({ Type, SetIdentifier, Weight }) => [Type, SetIdentifier, Weight])).toEqual([
      ["A", "eu", 255],
      ["A", "us", 28],
      ["AAAA", "eu", 255],
      ["AAAA", "us", 28],
    ]);
  });
});

describe("for Cloudflare", () => {
  const requests = cloudflareRequests(zone);
  const bodyOf = (name: string) => requests.find((request) => request.name === name)?.body;

  it("every id that is used was given before", () => {
    const given = new Set<string>();
    for (const request of requests) {
      for (const [, used] of JSON.stringify(request.body).matchAll(/\{\{([^}]+)\}\}/g)) expect(given).toContain(used);
      expect(given).not.toContain(request.name);
      given.add(request.name);
    }
  });

  it("a region is a pool with its addresses and its place", () => {
    expect(bodyOf("pool_www_us")).toEqual({
      name: "geo-example-com-pool-www-us",
      enabled: true,
      minimum_origins: 1,
      origins: [
        { name: "us-1", address: "192.0.2.2", enabled: true, weight: 1 },
        { name: "us-2", address: "2001:db8:2::1", enabled: true, weight: 1 },
      ],
      monitor: "{{monitor_www}}",
      latitude: 39,
      longitude: -77,
    });
    expect(
      cloudflareRequests(zone, { us: "drained" }).find(({ name }) => name === "pool_www_us")?.body["enabled"],
    ).toBe(false);
  });

  it("a load balancer steers by place with the policy's orders, and by weight", () => {
    const www = bodyOf("load_balancer_www") as {
      region_pools: Record<string, string[]>;
      country_pools: Record<string, string[]>;
    };
    expect(www).toMatchObject({ steering_policy: "geo", proxied: false, ttl: 30, fallback_pool: "{{pool_www_eu}}" });
    expect(www.region_pools["ENAM"]).toEqual(["{{pool_www_us}}", "{{pool_www_eu}}", "{{pool_www_ap}}"]);
    expect(www.country_pools["TR"]?.[0]).toBe("{{pool_www_us}}");
    expect(bodyOf("load_balancer_a_share")).toMatchObject({
      name: "a.share.geo.example.com",
      steering_policy: "random",
      random_steering: { pool_weights: { "{{pool_a_share_eu}}": 1, "{{pool_a_share_us}}": 0.11 } },
    });
    expect(bodyOf("load_balancer_zone")).toMatchObject({ name: "geo.example.com", steering_policy: "off" });
  });
});

it("providers refuse what they cannot do", () => {
  const www = { routing: { networks: { "198.51.100.0/24": ["us"] } } };
  const of = parseZone({ ...input, records: { www } });
  for (const act of [() => route53Template(of), () => cloudflareRequests(of)]) {
    expect(act).toThrow(expect.objectContaining({ code: "CAPABILITY_MISSING" }));
  }
});
