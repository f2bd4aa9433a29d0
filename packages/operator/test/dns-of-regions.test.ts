/** A stack's name server, asked by real questions: regions that are drained by a person, and the zone where the app has none or its own. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askDns } from "@rungs/contract/dns-client";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toMaxmindLayout } from "../src/stack/dns/country-database.ts";
import { type DnsOfRegions, type DnsOfRegionsOptions, dnsOfRegions } from "../src/stack/dns/dns-of-regions.ts";
import { regionalZone } from "../src/stack/dns/regional-zone.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { placeOfRegion } from "../src/stack/regions/region-places.ts";
import { countryData } from "./support/countries.ts";

const regions = [
  { name: "eu", addresses: ["127.0.11.1"] },
  { name: "us", addresses: ["127.0.11.2"] },
];
const patience = () => AbortSignal.timeout(20_000);
const servers: Server[] = [];
let folder: string;
let options: DnsOfRegionsOptions;
let dns: DnsOfRegions;
let status = 200;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-dns-of-"));
  await chmod(folder, 0o755);
  for (const name of ["logs", "app", "dns"]) await mkdir(join(folder, name));
  const { content } = toMaxmindLayout(countryData().content);
  await writeFile(join(folder, "dns", "country.mmdb"), content, { mode: 0o644 });
  const [program, controlProgram] = ["gdnsd", "gdnsdctl"].map((name) => findProgram(name, process.env));
  if (program === undefined || controlProgram === undefined) throw new Error("gdnsd is missing: apt-get install gdnsd");
  options = {
    ...{ program, controlProgram, folder, logFolder: join(folder, "logs"), regions, appName: "Photo Shop!", needs: [] },
    port: (await choosePorts(["dns"], {}))["dns"] as number,
    appFolder: join(folder, "app"),
    appPort: await startBalancers(),
  };
  dns = await dnsOfRegions(options);
  await dns.component.start(patience());
}, 30_000);
afterAll(async () => {
  await dns?.component.stop();
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  await rm(folder, { recursive: true, force: true });
});

/** On each region's address, one port; eu's health is what the test says. */
async function startBalancers(): Promise<number> {
  const { app = 0 } = await choosePorts(["app"], {});
  for (const [index, { addresses }] of regions.entries()) {
    const server = createServer((_request, response) => {
      response.statusCode = index === 0 ? status : 200;
      response.end();
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(app, addresses[0], resolve));
  }
  return app;
}

const austria = "131.130.0.0/16";
const america = "8.8.8.0/24";
const answered = async (subnet = austria) =>
  (await askDns(options.port, { name: "www.photo-shop.test", subnet })).answers[0]?.data;

describe("the name server of a stack with regions", () => {
  it("sends users to the region that is near, by names and places that nobody had to write down", async () => {
    expect(dns.report).toMatchObject({ zone: "photo-shop.test", names: ["www.photo-shop.test"], file: null });
    expect(dns.remarks).toEqual([]);
    await until("both are up", async () => {
      const health = await dns.health(patience());
      return health["eu"] === "up" && health["us"] === "up";
    });
    expect([await answered(austria), await answered(america)]).toEqual(["127.0.11.1", "127.0.11.2"]);
  }, 30_000);

  it("drains a region and takes it back, within some seconds, and remembers it over a restart", async () => {
    const since = performance.now();
    await dns.drain(["eu"], patience());
    await until("Austria is sent to us", async () => (await answered()) === "127.0.11.2", 5_000);
    console.info(`drained after ${Math.round(performance.now() - since)} ms`);
    await dns.component.stop();
    dns = await dnsOfRegions(options);
    expect(dns.drained()).toEqual(["eu"]);
    await dns.component.start(patience());
    expect(await answered()).toBe("127.0.11.2");
    await dns.drain([], patience());
    await until("Austria is sent to eu again", async () => (await answered()) === "127.0.11.1", 5_000);
  }, 40_000);

  it("leaves a region whose health is bad", async () => {
    status = 503;
    await until("Austria is sent to us", async () => (await answered()) === "127.0.11.2");
    expect(await dns.health(patience())).toEqual({ eu: "down", us: "up" });
    status = 200;
  }, 30_000);
});

describe("the zone", () => {
  const from = (appFolder: string, hasCountries = true) =>
    regionalZone({ appFolder, appName: "shop", regions, port: 8_080, hasCountries });
  const write = async (name: string, content: object) => {
    const place = join(folder, name);
    await mkdir(place, { recursive: true });
    await writeFile(join(place, "rungs.dns.json"), JSON.stringify(content));
    return place;
  };
  const own = {
    zone: "geo.example.com",
    nameServers: [{ name: "ns1", addresses: ["192.0.2.53"] }],
    regions: {
      ap: { addresses: ["192.0.2.3"], latitude: 1, longitude: 104 },
      eu: { addresses: ["192.0.2.1"], latitude: 50, longitude: 9 },
      us: { addresses: ["192.0.2.2"], latitude: 39, longitude: -77 },
    },
    records: {
      www: {
        routing: { nearest: true, countries: { JP: ["ap", "us"], AU: ["ap"] }, fallback: ["us"] },
        health: { port: 80 },
      },
      far: { regions: ["ap"], routing: {} },
    },
  };

  it("of the app is led to the addresses on this machine; regions that do not run here are left out", async () => {
    const { zone, file } = await from(await write("own", own));
    expect(file).toBe("rungs.dns.json");
    expect(zone.zone).toBe("geo.example.com");
    expect(Object.entries(zone.regions).map(([name, { addresses }]) => [name, addresses])).toEqual([
      ["eu", ["127.0.11.1"]],
      ["us", ["127.0.11.2"]],
    ]);
    expect(Object.keys(zone.records)).toEqual(["www"]);
    expect(zone.records["www"]?.routing).toEqual({ nearest: true, countries: { JP: ["us"] }, fallback: ["us"] });
    expect(zone.records["www"]?.health).toMatchObject({ path: "/readyz", port: 8_080, host: "www.geo.example.com" });
  });

  it("that does not know a region is refused by its name", async () => {
    const { us: _, ...others } = own.regions;
    const records = { www: { routing: { nearest: true } } };
    const place = await write("without", { ...own, regions: others, records });
    await expect(from(place)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining('"us"'),
    });
  });

  it("goes by order without a database of countries, and says what to type", async () => {
    const { zone, remarks } = await from(folder, false);
    expect(zone.records["www"]?.routing).toEqual({});
    expect(remarks).toEqual([expect.stringContaining("rungs dns update-data")]);
  });

  it.each([
    ["eu-central-1", 50],
    ["us-west", 46],
    ["europa", undefined],
  ])("%s lies at latitude %s", (name, latitude) => {
    expect(placeOfRegion(name)?.latitude).toBe(latitude);
  });
});
