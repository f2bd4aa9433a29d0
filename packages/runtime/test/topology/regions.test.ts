import { describe, expect, it } from "vitest";
import {
  defaultLeaderRegion,
  describeTopology,
  env,
  otherRegions,
  parseCommandLine,
  refuseUnsupported,
  resolveTopology,
  type TopologyInput,
  unsupportedSettings,
} from "../../src/topology/index.ts";

const eu = { addresses: ["192.0.2.1"], isLeader: true, url: "http://10.1.0.1:8081" };
const us = { addresses: ["192.0.2.2"], url: "http://10.2.0.1:8081" };
const regions = { eu, us };
const topologyOf = (content: TopologyInput, flags = {}, environment = {}) =>
  resolveTopology({ file: { name: "f", content }, flags, environment }).topology;

function problems(content: unknown, environment = {}): string {
  try {
    resolveTopology({ file: { name: "f", content }, environment });
  } catch (error) {
    expect(error).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
    return (error as Error).message;
  }
  throw new Error("the topology was accepted");
}

describe("regions of a topology", () => {
  it("are carried out by a process that says where it runs", () => {
    expect(unsupportedSettings(topologyOf({ regions, region: "us" }))).toEqual([]);
    expect(topologyOf({ regions }, {}, { RUNGS_REGION: "us" }).region).toBe("us");
    expect(topologyOf({ regions }, parseCommandLine(["--region", "eu"]).flags, { RUNGS_REGION: "us" }).region).toBe(
      "eu",
    );
    expect(unsupportedSettings(topologyOf({ regions }))).toEqual(["regions"]);
    expect(() => refuseUnsupported(topologyOf({ regions }))).toThrow(
      "One process alone cannot carry out regions. Start the app with all its servers: rungs up. Or say in which region this process runs: RUNGS_REGION.",
    );
  });

  it("know where leaders are that do not say it, and how the others are reached", () => {
    const topology = topologyOf({ regions, region: "us" });
    expect(defaultLeaderRegion(topology)).toBe("eu");
    expect(defaultLeaderRegion(topologyOf({ regions: { us } }))).toBe("us");
    expect(defaultLeaderRegion(topologyOf({}))).toBeUndefined();
    expect([...otherRegions(topology)]).toEqual([["eu", eu.url]]);
    expect(otherRegions(topologyOf({ regions })).size).toBe(0);
    expect(otherRegions(topologyOf({})).size).toBe(0);
  });

  it("may be named as any other thing is", () => {
    const topology = topologyOf({ regions: { eu, constructor: us }, region: "constructor" });
    expect(defaultLeaderRegion(topology)).toBe("eu");
    expect(problems({ regions, region: "constructor" })).toContain('region: "constructor" is no region of regions');
  });

  it.each([
    [
      { regions, region: "asia" },
      'region: "asia" is no region of regions; set regions.asia, or leave it out (from file f).',
    ],
    [{ region: "eu" }, 'region: "eu" is no region of regions; set regions.eu, or leave it out'],
    [
      { regions: { eu, us: { addresses: us.addresses } }, region: "eu" },
      'regions.us.url: expected the inner address of the region\'s balancer, because region is "eu", and writes whose leader is in us go there, got nothing',
    ],
    [
      {
        regions,
        database: {
          shards: [
            { leader: env("A"), region: "eu" },
            { leader: env("B"), region: "asia" },
          ],
        },
      },
      'database.shards[1].region: "asia" is no region of regions',
    ],
    [
      { database: { shards: [{ leader: env("A"), region: "EU" }] } },
      "database.shards[0].region: expected a region's name",
    ],
    [{ regions: { eu: { ...eu, url: "http://u:hush@h:80" } } }, "regions.eu.url: expected a base address, such as"],
    [
      { regions: { eu: { ...eu, ulr: "http://h:80" } } },
      "regions.eu.ulr: no such setting; did you mean regions.eu.url?",
    ],
    [
      { sessions: { replica: "redis://h:1" } },
      "sessions.replica: has an effect only with sessions.url, which is not set",
    ],
    [
      { sessions: { url: "redis://h:1", replica: "redis+sentinel://h:1/m" } },
      "sessions.replica: expected a URL such as redis://host (redis, rediss), got another text",
    ],
    [
      { sessions: { url: "redis://h:1", replica: "redis://:hush@h:1" } },
      'sessions.replica: holds a password or token, and secrets are given by reference only; write `replica: env("REDIS_REPLICA_URL")`',
    ],
  ])("%j is refused", (content, message) => {
    const said = problems(content);
    expect(said).toContain(message);
    expect(said).not.toContain("hush");
  });

  it("are told with the variable that named them", () => {
    expect(problems({ regions }, { RUNGS_REGION: "su" })).toContain("(from env RUNGS_REGION)");
  });

  it("are shown setting by setting", () => {
    const content: TopologyInput = {
      regions,
      region: "us",
      sessions: { url: env("REDIS_URL"), replica: env("REDIS_REPLICA_URL") },
      database: { shards: [{ leader: env("A"), region: "us" }] },
    };
    const lines = describeTopology(resolveTopology({ file: { name: "f", content } }));
    expect(lines).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^database\.shards\[0\]\.region +us +\(file f\)$/),
        expect.stringMatching(/^sessions\.replica +\[secret env:REDIS_REPLICA_URL\] +\(file f\)$/),
        expect.stringMatching(/^regions\.us\.url +http:\/\/10\.2\.0\.1:8081\/ +\(file f\)$/),
        expect.stringMatching(/^region +us +\(file f\)$/),
      ]),
    );
  });
});
