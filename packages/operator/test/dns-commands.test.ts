/** `rungs dns`: checks a zone, writes it for a server or provider, and takes a database of countries. */
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CountryResponse, Reader } from "maxmind";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rungs } from "./support/cli.ts";
import { databasePath } from "./support/countries.ts";

const zone = {
  zone: "geo.example.com",
  nameServers: [{ name: "ns1", addresses: ["192.0.2.53"] }],
  regions: {
    eu: { addresses: ["192.0.2.1"], latitude: 50, longitude: 8 },
    us: { addresses: ["192.0.2.2"], latitude: 39, longitude: -77 },
  },
  records: { www: { routing: { nearest: true }, health: {} }, share: { routing: { weighted: true } } },
};

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-dns-"));
  await writeFile(join(folder, "rungs.dns.json"), JSON.stringify(zone));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const run = (...args: string[]) => rungs(["dns", ...args], { folder });
async function json(...args: string[]) {
  const { code, stdout, stderr } = await run(...args, "--json");
  expect({ args, code, stderr }).toMatchObject({ code: 0 });
  return JSON.parse(stdout);
}
const written = (...path: string[]) => readFile(join(folder, "dns", ...path), "utf8");

describe("rungs dns update-data", () => {
  it("writes a file of one's own for gdnsd, and says how old it is", async () => {
    const { code, stdout, stderr } = await run("update-data", "--from", databasePath, "--json");
    const told = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(told).toMatchObject({ database: join(folder, ".rungs", "dns", "country.mmdb"), unknownCodes: ["AP"] });
    expect(told.countries).toBeGreaterThan(230);
    expect(stderr.includes("days old")).toBe(told.ageDays > 60);
    const content = await readFile(told.database);
    expect(new Reader<CountryResponse>(content).get("131.130.70.8")?.country?.iso_code).toBe("AT");
    // gdnsd runs as another user.
    expect((await stat(told.database)).mode & 0o044).toBe(0o044);
  });

  it.each([
    ["no database", "rungs.dns.json", 2, "it is no MaxMind DB file"],
    ["no file", "nothing", 3, "There is no file"],
  ])("refuses %s", async (_, file, code, message) => {
    expect(await run("update-data", "--from", file)).toMatchObject({
      code,
      stderr: expect.stringContaining(message),
    });
  });
});

describe("rungs dns check", () => {
  it("tells who is sent where, and that gdnsd takes the zone", async () => {
    expect(await json("check", "--countries", "at,br,jp")).toEqual({
      zone: "geo.example.com",
      ttlSeconds: 30,
      orders: [
        { record: "www", regions: ["eu", "us"], countries: ["AT", "JP"] },
        { record: "www", regions: ["us", "eu"], countries: ["BR"] },
        { record: "share", regions: ["eu", "us"], countries: [] },
      ],
      gdnsd: "takes it",
    });
  });

  it("tells what is wrong, with exit code 2 and no stack", async () => {
    await writeFile(
      join(folder, "wrong.json"),
      JSON.stringify({ ...zone, records: { www: { routing: { fallback: ["mars"] } } } }),
    );
    const { code, stderr } = await run("check", "--zone", "wrong.json");
    expect(code).toBe(2);
    expect(stderr).toContain('records.www.routing.fallback: there is no region "mars" here; there are eu, us.');
    expect(stderr).not.toContain("    at ");
  });

  it("takes the regions of the topology when the zone lists none", async () => {
    const { regions: _, ...rest } = zone;
    const own = join(folder, "own");
    await mkdir(own);
    await writeFile(join(own, "rungs.dns.json"), JSON.stringify({ ...rest, records: { www: { routing: {} } } }));
    const regions = { eu: { addresses: ["192.0.2.7"], isLeader: true }, us: { addresses: ["192.0.2.8"] } };
    await writeFile(join(own, "rungs.config.json"), JSON.stringify({ regions }));
    const { code, stdout, stderr } = await rungs(["dns", "export", "gdnsd", "--json"], { folder: own });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout).files).toContain("config");
    expect(await readFile(join(own, "dns", "gdnsd", "config"), "utf8")).toContain(
      "us => { addrs_v4 => [ 192.0.2.8 ] }",
    );
  });

  it("says where a zone is looked for when there is none", async () => {
    expect(await rungs(["dns", "check"], { folder: tmpdir() })).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("rungs.dns.ts"),
    });
  });
});

describe("rungs dns export", () => {
  it("writes the files of gdnsd, with what a person says of regions", async () => {
    const { files } = await json("export", "gdnsd", "--listen", "192.0.2.53,2001:db8::53", "--drained", "eu");
    expect(files).toEqual(["config", "zones/geo.example.com", "admin_state"]);
    expect(await written("gdnsd", "config")).toContain('listen => [ 192.0.2.53:53, "[2001:db8::53]:53" ]');
    expect(await written("gdnsd", "admin_state")).toBe("geoip/www/eu => DOWN\n192.0.2.1/up => DOWN\n");
  });

  it("writes a template for Route 53 and requests for Cloudflare", async () => {
    await json("export", "route53");
    await json("export", "cloudflare");
    expect(Object.keys(JSON.parse(await written("route53", "route53.json")).Resources)).toContain("WwwRecords");
    expect(JSON.parse(await written("cloudflare", "cloudflare.json"))).toHaveLength(7);
  });

  it.each([
    [["export"], "For what? One of gdnsd, route53, cloudflare."],
    [["export", "bind"], "For what? One of gdnsd, route53, cloudflare."],
    [["export", "gdnsd", "--drained", "mars"], '--drained: there is no region "mars"; there are eu, us.'],
    [["check", "--countries", "UK"], '--countries: expected codes of ISO 3166-1 such as AT,BR, found "UK".'],
  ])("%j is refused", async (args, message) => {
    expect(await run(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining(message) });
  });
});
