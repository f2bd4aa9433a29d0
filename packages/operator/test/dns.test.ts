/** A zone on a real gdnsd: who is answered what, and what happens when regions go, come back, flap, or are taken out by a person. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { askDns, type DnsReply, exchangeUdp } from "@rungs/contract/dns-client";
import { answerFor, type DnsRecord, parseNetwork, parseZone, type Zone } from "rungs/dns";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toMaxmindLayout } from "../src/stack/dns/country-database.ts";
import { type GdnsdComponent, gdnsdComponent } from "../src/stack/dns/gdnsd.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { serverHome } from "../src/stack/process/server-home.ts";
import { countryData } from "./support/countries.ts";

const { content: source, random, countryAt, randomAddress, subnetsOf } = countryData();
const regionNames = ["eu", "us", "ap"] as const;
type Region = (typeof regionNames)[number];

/** By hand, not by the policy: Frankfurt, Virginia or Singapore. South Africa lies between two and is named in the zone. */
const expected: Readonly<Record<Region, string>> = {
  eu: "AT DE FR GB PL SE UA RU TR EG NG KE SA IL ZA",
  us: "US CA MX BR AR CL CO",
  ap: "IN CN JP KR SG ID AU NZ",
};
const countries = regionNames.flatMap((region) => expected[region].split(" ").map((code) => ({ code, region })));

/** Answers of the regions' balancers to /readyz. */
const health: Record<Region, (count: number) => number> = { eu: () => 200, us: () => 200, ap: () => 200 };
const asked: Record<Region, number> = { eu: 0, us: 0, ap: 0 };
const check = { intervalMs: 2_000, timeoutMs: 1_000, failures: 2, clearAfter: 2, successes: 2, downMsMin: 4_000 };

let folder = "";
let port = 0;
let gdnsd: GdnsdComponent;
let zone: Zone;
const balancers: Server[] = [];
const patience = () => AbortSignal.timeout(20_000);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-dns-"));
  await chmod(folder, 0o755);
  const database = join(folder, "country.mmdb");
  await writeFile(database, toMaxmindLayout(source).content, { mode: 0o644 });
  const healthPort = await startBalancers();
  port = (await choosePorts(["dns"], {}))["dns"] as number;
  zone = parseZone({
    zone: "geo.example.com",
    ttlSeconds: 5,
    nameServers: [{ name: "ns1", addresses: ["127.0.0.1"] }],
    regions: {
      eu: { addresses: ["192.0.2.1", "2001:db8:1::1"], latitude: 50, longitude: 8.6, weight: 90 },
      us: { addresses: ["192.0.2.2", "2001:db8:2::1"], latitude: 39, longitude: -77, weight: 10 },
      ap: { addresses: ["192.0.2.3", "2001:db8:3::1"], latitude: 1.3, longitude: 103.9, weight: 1 },
      large: { addresses: Array.from({ length: 64 }, (_, index) => `198.51.100.${index}`), latitude: 0, longitude: 0 },
      "eu-lab": { addresses: ["127.0.10.1"], latitude: 50, longitude: 8.6 },
      "us-lab": { addresses: ["127.0.10.2"], latitude: 39, longitude: -77 },
      "ap-lab": { addresses: ["127.0.10.3"], latitude: 1.3, longitude: 103.9 },
    },
    records: {
      large: { regions: ["large"], routing: {} },
      www: {
        regions: ["eu", "us", "ap"],
        routing: {
          nearest: true,
          countries: { ZA: ["eu"] },
          networks: { "198.18.1.0/24": ["ap"], "2001:db8:77::/48": ["ap"] },
          fallback: ["us", "eu"],
        },
      },
      share: { regions: ["eu", "us"], routing: { weighted: true } },
      live: {
        regions: ["eu-lab", "us-lab", "ap-lab"],
        routing: { nearest: true },
        health: { port: healthPort, ...check },
      },
    },
  });
  gdnsd = await startGdnsd("gdnsd", database);
}, 60_000);

afterAll(async () => {
  await gdnsd?.stop();
  for (const server of balancers) {
    server.close();
    server.closeAllConnections();
  }
  await rm(folder, { recursive: true, force: true });
});

describe("places", () => {
  it.each(countries)("$code is answered $region, by IPv4 and by IPv6", async ({ code, region }) => {
    for (const family of [4, 6] as const) {
      const subnets = subnetsOf(code, family, 3);
      expect(subnets.length, `${code} has networks of IPv${family}`).toBeGreaterThan(0);
      for (const subnet of subnets) {
        for (const type of ["A", "AAAA"]) {
          const reply = await askDns(port, { name: "www.geo.example.com", type, subnet });
          expect({ subnet, regions: regionsIn(reply) }).toEqual({ subnet, regions: [region] });
          expect(reply.scopePrefixLength).toBeGreaterThan(0);
        }
      }
    }
  });

  it("unknown ones get the default", async () => {
    for (const subnet of ["10.1.2.0/24", "240.0.0.0/8", "fd00::/48"]) {
      expect(regionsIn(await askDns(port, { name: "www.geo.example.com", subnet }))).toEqual(["us"]);
    }
    // No subnet, and one of length 0: the resolver's own address counts, which is loopback.
    expect(regionsIn(await askDns(port, { name: "www.geo.example.com" }))).toEqual(["us"]);
    const reply = await askDns(port, { name: "www.geo.example.com", subnet: "0.0.0.0/0" });
    expect([regionsIn(reply), reply.scopePrefixLength]).toEqual([["us"], 0]);
  });

  it("networks that are named in the zone stand above countries, with their own prefix in the answer", async () => {
    const v4 = await askDns(port, { name: "www.geo.example.com", subnet: "198.18.1.0/24" });
    const v6 = await askDns(port, { name: "www.geo.example.com", type: "AAAA", subnet: "2001:db8:77::/56" });
    expect([regionsIn(v4), v4.scopePrefixLength]).toEqual([["ap"], 24]);
    expect([regionsIn(v6), v6.scopePrefixLength]).toEqual([["ap"], 48]);
  });

  it("the server answers what the policy says, for random addresses of both families", async () => {
    let known = 0;
    for (let count = 0; count < 400; count++) {
      const address = randomAddress(count % 2 === 0 ? 4 : 6);
      const country = countryAt(address);
      if (country !== undefined) known++;
      const place = { country, network: parseNetwork(address) };
      const { addresses } = answerFor(zone, zone.records["www"] as DnsRecord, { place });
      const subnet = `${address}/${address.includes(":") ? 128 : 32}`;
      const reply = await askDns(port, { name: "www.geo.example.com", subnet });
      expect({ address, country, answer: reply.answers[0]?.data }).toEqual({ address, country, answer: addresses[0] });
    }
    expect(known).toBeGreaterThan(100);
  });

  it("an answer says how long it may be kept, and comes by TCP too", async () => {
    const reply = await askDns(port, { name: "www.geo.example.com", overTcp: true, subnet: "198.18.1.0/24" });
    expect(reply.answers).toEqual([{ type: "A", data: "192.0.2.3", ttlSeconds: 5 }]);
  });

  it("weights share out whoever asks", async () => {
    let first = 0;
    const all = 600;
    for (let count = 0; count < all; count++) {
      if (regionsIn(await askDns(port, { name: "share.geo.example.com" }))[0] === "eu") first++;
    }
    // 90 to 10; five standard deviations are 0.061.
    expect(first / all).toBeGreaterThan(0.839);
    expect(first / all).toBeLessThan(0.961);
  });
});

describe("health", () => {
  const austria = "131.130.0.0/16";
  const lab = async () => (await askDns(port, { name: "live.geo.example.com", subnet: austria })).answers[0]?.data;
  const detectMsMax = check.failures * check.intervalMs + check.timeoutMs + 1_000;

  it("a region that is down is left within its failures, and taken again within its successes", async () => {
    await until("Austria is answered eu", async () => (await lab()) === "127.0.10.1", 10_000);
    health.eu = () => 503;
    const downMs = await until(
      "Austria is answered another region",
      async () => (await lab()) !== "127.0.10.1",
      detectMsMax,
    );
    expect(await lab()).toBe("127.0.10.2");
    health.eu = () => 200;
    const upMs = await until(
      "Austria is answered eu again",
      async () => (await lab()) === "127.0.10.1",
      check.downMsMin + 2 * check.intervalMs + 1_000,
    );
    console.info(
      `region down: answers changed after ${downMs} ms; up again: after ${upMs} ms; TTL ${zone.ttlSeconds} s`,
    );
  });

  it("one that fails every other check does not pull its users along", async () => {
    health.eu = (count) => (count % 2 === 0 ? 503 : 200);
    const since = asked.eu;
    let changes = 0;
    let before = await lab();
    await until(
      "seven checks were made",
      async () => {
        const now = await lab();
        if (now !== before) changes++;
        before = now;
        return asked.eu >= since + 7;
      },
      30_000,
    );
    expect(changes).toBeLessThanOrEqual(1);
    expect(before).toBe("127.0.10.2");
    health.eu = () => 200;
    await until("Austria is answered eu again", async () => (await lab()) === "127.0.10.1", 15_000);
  });

  it("a person takes a region out and puts it back without a restart, whatever its health", async () => {
    const pid = gdnsd.processes()[0]?.pid;
    await gdnsd.override({ eu: "drained", "eu-lab": "drained" }, patience());
    const name = "www.geo.example.com";
    const www = async () => regionsIn(await askDns(port, { name, subnet: austria }))[0];
    const drainMs = await until(
      "eu is drained",
      async () => (await www()) === "us" && (await lab()) === "127.0.10.2",
      5_000,
    );
    await until(
      "weights leave it out too",
      async () => regionsIn(await askDns(port, { name: "share.geo.example.com" }))[0] === "us",
      5_000,
    );
    expect((await gdnsd.states(patience()))["geoip/www/eu"]).toBe("DOWN");
    await gdnsd.override({}, patience());
    await until("eu is back", async () => (await www()) === "eu" && (await lab()) === "127.0.10.1", 5_000);
    console.info(`drained after ${drainMs} ms`);
    expect(gdnsd.processes()[0]?.pid).toBe(pid);
  });

  it("no region is up: each client is answered its own, for want of a better one", async () => {
    for (const region of regionNames) health[region] = () => 503;
    const states = async () =>
      Object.entries(await gdnsd.states(patience())).filter(([service]) => service.endsWith("/live_health"));
    await until("all are down", async () => (await states()).every(([, state]) => state === "DOWN"), 15_000);
    await until("Austria is answered eu", async () => (await lab()) === "127.0.10.1", 5_000);
    // A person knows better than the checks.
    await gdnsd.override({ "us-lab": "forced" }, patience());
    await until("Austria is answered us", async () => (await lab()) === "127.0.10.2", 5_000);
    await gdnsd.override({}, patience());
    for (const region of regionNames) health[region] = () => 200;
  });
});

describe("changes", () => {
  it("another zone takes over without a question lost", async () => {
    const before = gdnsd.processes()[0]?.pid;
    const asking = new AbortController();
    let answered = 0;
    const asker = (async () => {
      while (!asking.signal.aborted) {
        await askDns(port, { name: "www.geo.example.com", subnet: "198.18.1.0/24" });
        answered++;
      }
    })();
    await gdnsd.change({ ...zone, ttlSeconds: 7 }, patience());
    asking.abort();
    await asker;
    expect(answered).toBeGreaterThan(0);
    const reply = await askDns(port, { name: "www.geo.example.com" });
    expect(reply.answers[0]?.ttlSeconds).toBe(7);
    expect(gdnsd.processes()).toHaveLength(1);
    expect(gdnsd.processes()[0]).toMatchObject({ state: "ready", crashes: 0 });
    expect(gdnsd.processes()[0]?.pid).not.toBe(before);
  });

  it("one that gdnsd does not take changes nothing", async () => {
    const broken = join(folder, "broken.mmdb");
    await writeFile(broken, "no database", { mode: 0o644 });
    const plain: Zone = {
      ...zone,
      records: { www: { ...(zone.records["www"] as DnsRecord), routing: { fallback: ["ap"] } } },
    };
    const own = (await choosePorts(["dns"], {}))["dns"] as number;
    const other = await startGdnsd("other", broken, { port: own, zone: plain });
    try {
      await expect(other.change(zone, patience())).rejects.toMatchObject({
        code: "CONFIG_INVALID",
        message: expect.stringContaining("broken.mmdb"),
      });
      expect(regionsIn(await askDns(own, { name: "www.geo.example.com" }))).toEqual(["ap"]);
      expect(await readFile(join(folder, "other", "etc", "config"), "utf8")).not.toContain("broken.mmdb");
    } finally {
      await other.stop();
    }
  });

  it("a crash is followed by a new start", async () => {
    const { pid } = gdnsd.processes()[0] as { pid: number };
    process.kill(pid, "SIGKILL");
    await until(
      "it answers again",
      () =>
        askDns(port, { name: "www.geo.example.com" }).then(
          ({ answers }) => answers.length === 1 && gdnsd.processes()[0]?.pid !== pid,
          () => false,
        ),
      10_000,
    );
  });
});

describe("hostile questions", () => {
  it.each<[what: string, question: Parameters<typeof askDns>[1], code: string]>([
    ["another zone", { name: "example.org" }, "REFUSED"],
    ["the whole zone", { name: "geo.example.com", type: "AXFR", overTcp: true }, "NOTIMP"],
    ["a name that is not there", { name: "nobody.geo.example.com" }, "NXDOMAIN"],
  ])("%s: %s", async (_, question, code) => {
    const reply = await askDns(port, question);
    expect(reply.code).toBe(code);
    expect(reply.answers).toEqual([]);
  });

  it("everything about a name: one short record that says nothing (RFC 8482)", async () => {
    const reply = await askDns(port, { name: "www.geo.example.com", type: "ANY" });
    expect(reply.answers.map(({ type }) => type)).toEqual(["HINFO"]);
    expect(reply.bytes).toBeLessThan(200);
  });

  it("a long answer goes by UDP to nobody who has not shown an address of theirs: it is cut, and whole by TCP", async () => {
    const name = "large.geo.example.com";
    const byUdp = await askDns(port, { name });
    expect(byUdp).toMatchObject({ isTruncated: true, answers: [] });
    expect(byUdp.bytes).toBeLessThanOrEqual(512);
    expect((await askDns(port, { name, overTcp: true })).answers).toHaveLength(64);
  });

  it("name and version of the server stay untold", async () => {
    expect((await askDns(port, { name: "version.bind", type: "TXT", class: "CH" })).answers[0]?.data).toBe("-");
  });

  it("malformed ones get an error or nothing, no more than a header longer than they were, and the server lives", async () => {
    const { pid } = gdnsd.processes()[0] as { pid: number };
    for (let count = 0; count < 150; count++) {
      const bytes = random.bytes(count % 60);
      // Half of them look like a question at first.
      if (bytes.length > 12 && count % 2 === 0) bytes.set([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
      const answer = await exchangeUdp(port, bytes, 20);
      if (answer !== undefined) {
        expect(answer.length).toBeLessThanOrEqual(bytes.length + 12);
        expect((answer.readUInt8(3) & 0xf) !== 0 || answer.readUInt16BE(6) === 0).toBe(true);
      }
    }
    // A name that points to itself.
    await exchangeUdp(port, Buffer.from([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]), 20);
    expect(regionsIn(await askDns(port, { name: "www.geo.example.com" }))).toEqual(["us"]);
    expect(gdnsd.processes()[0]?.pid).toBe(pid);
  });
});

async function startGdnsd(
  name: string,
  database: string,
  other: { port?: number; zone?: Zone } = {},
): Promise<GdnsdComponent> {
  const { user } = await serverHome(folder, `${name}-home`);
  const programs = ["gdnsd", "gdnsdctl"].map((program) => findProgram(program, process.env));
  const [program, controlProgram] = programs;
  if (program === undefined || controlProgram === undefined)
    throw new Error("gdnsd is not installed: apt-get install gdnsd");
  const logFolder = join(folder, "log");
  await mkdir(logFolder, { recursive: true });
  const component = gdnsdComponent({
    program,
    controlProgram,
    folder: join(folder, name),
    user,
    logFolder,
    port,
    zone,
    database,
    ...other,
  });
  await component.start(patience());
  return component;
}

/** One balancer a region, on addresses of their own and one port. */
async function startBalancers(): Promise<number> {
  let shared = 0;
  for (const [index, region] of regionNames.entries()) {
    const server = createServer((request, response) => {
      asked[region]++;
      response.statusCode = request.url === "/readyz" ? health[region](asked[region]) : 404;
      response.end();
    });
    balancers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(shared, `127.0.10.${index + 1}`, resolve);
    });
    shared = (server.address() as AddressInfo).port;
  }
  return shared;
}

function regionsIn({ answers }: DnsReply): string[] {
  return answers.map(
    ({ data }) =>
      regionNames[Number(/^192\.0\.2\.(\d)$|^2001:db8:(\d)::1$/.exec(data)?.slice(1).find(Boolean)) - 1] ?? data,
  );
}

/** Polls until it holds; gives the time that took. */
async function until(what: string, holds: () => Promise<boolean>, withinMs: number): Promise<number> {
  const since = performance.now();
  while (!(await holds())) {
    if (performance.now() - since > withinMs) throw new Error(`Not within ${withinMs} ms: ${what}`);
    await sleep(50);
  }
  return Math.round(performance.now() - since);
}
