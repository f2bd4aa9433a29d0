import { describe, expect, it } from "vitest";
import {
  defaultTopology,
  diffTopologies,
  env,
  type Flags,
  presetFor,
  presetShards,
  refuseUnsupported,
  resolveTopology,
  rungOf,
  type TopologyInput,
  unsupportedSettings,
} from "../../src/topology/index.ts";

const rungs = [1, 2, 3, 4, 5] as const;
const topologyOf = (content: TopologyInput) => resolveTopology({ file: { name: "f", content } }).topology;

describe("presets", () => {
  it("sit at their own rung, and rung 1 is the default", () => {
    expect(rungs.map((rung) => rungOf(presetFor(rung)))).toEqual([1, 2, 3, 4, 5]);
    expect(presetFor(1)).toEqual(defaultTopology);
  });

  it("keep what the rung below sets", () => {
    for (const rung of [2, 3, 4, 5] as const) {
      const removed = diffTopologies(presetFor((rung - 1) as 1 | 2 | 3 | 4), presetFor(rung)).filter(
        ({ to }) => to === undefined,
      );
      // The count of embedded shards gives way to a list of servers at rung 4.
      expect(removed.map(({ path }) => path)).toEqual(rung === 4 ? ["database.shards"] : []);
    }
  });
});

describe("shards from rung 4 on", () => {
  const shardsOf = (flags: Flags, environment = {}) => resolveTopology({ flags, environment }).topology.database.shards;

  it("is one where nobody says a number, and servers of the preset however many there are", () => {
    expect(shardsOf({ rung: "4" })).toEqual([
      { leader: env("SHARD_0_LEADER_URL"), followers: [env("SHARD_0_FOLLOWER_URL")] },
    ]);
    expect(shardsOf({ rung: "4", shards: "3" })).toEqual(presetShards(3));
    expect(shardsOf({ rung: "5" }, { RUNGS_SHARDS: "2" })).toEqual(presetShards(2));
    expect(shardsOf({ rung: "3", shards: "3" })).toBe(3);
  });

  it("follow the split points of ranges, unless a number is given, which must fit", () => {
    const range = { rung: "4", strategy: "range", split: ["g", "n"] } as const;
    expect(shardsOf(range)).toEqual(presetShards(3));
    expect(resolveTopology({ flags: range }).topology.database).toMatchObject({
      strategy: "range",
      splits: ["g", "n"],
    });
    expect(() => shardsOf({ ...range, shards: "2" })).toThrow(
      "database.splits: expected 1 split point(s) for 2 shard(s) by range, got 2 (from flag --split).",
    );
  });

  it("give way to servers by address", () => {
    expect(shardsOf({ rung: "4" }, { DATABASE_URL: "postgres://a/x" })).toHaveLength(1);
    expect(shardsOf({ rung: "4" }, { DATABASE_URL: "postgres://a/x" })).not.toEqual(presetShards(1));
  });
});

describe("rungOf", () => {
  const marks: readonly (readonly [TopologyInput, number])[] = [
    [{ database: { shards: 3 } }, 1],
    [{ database: { shards: [{ leader: "postgres://a/x" }] } }, 1],
    [{ web: { processes: 2 } }, 2],
    [{ web: { balancer: "haproxy" } }, 2],
    [{ sessions: { url: "redis://h" } }, 2],
    [{ cache: { url: "redis://h" } }, 3],
    [{ cdn: { provider: "varnish" } }, 3],
    [{ database: { shards: [{ leader: "postgres://a/x", followers: [env("F")] }] } }, 4],
    [{ database: { shards: [{ leader: "postgres://a/x" }, { leader: "postgres://b/x" }] } }, 4],
    [{ queue: { url: "amqp://h" } }, 5],
    [{ services: { workers: {} } }, 5],
    [{ services: { payments: { processes: 2 } } }, 5],
    [{ services: { web: { url: "http://h" } } }, 1],
    [{ services: {} }, 1],
    [{ regions: { eu: { addresses: ["192.0.2.1"] } } }, 5],
    [{ regions: {} }, 1],
  ];
  it.each(marks)("%j is at rung %i", (input, rung) => {
    expect(rungOf(topologyOf(input))).toBe(rung);
  });
});

describe("diffTopologies", () => {
  it("is empty for equal topologies, secrets included", () => {
    for (const rung of rungs) expect(diffTopologies(presetFor(rung), presetFor(rung))).toEqual([]);
  });

  it("lists each changed setting with its tier", () => {
    expect(diffTopologies(presetFor(1), presetFor(2))).toEqual([
      { tier: "sessions", path: "sessions.url", from: undefined, to: env("REDIS_URL") },
      { tier: "web", path: "web.balancer", from: undefined, to: "nginx" },
      { tier: "web", path: "web.processes", from: 1, to: 4 },
    ]);
    const one = topologyOf({ database: { shards: [{ leader: env("A") }] } });
    const two = topologyOf({ database: { shards: [{ leader: env("A") }, { leader: env("B") }] } });
    expect(diffTopologies(one, two)).toEqual([
      { tier: "database", path: "database.shards[1].leader", from: undefined, to: env("B") },
    ]);
  });
});

describe("unsupportedSettings", () => {
  it("is empty for all that rung 1 runs: several embedded shards, servers by URL, no cache", () => {
    const servers = [{ leader: env("A"), followers: [env("C"), env("D")] }, { leader: env("B") }];
    for (const input of [
      {},
      { database: { shards: 3 } },
      { database: { shards: servers } },
      { cache: { isEnabled: false } },
    ]) {
      expect(unsupportedSettings(topologyOf(input))).toEqual([]);
      expect(() => refuseUnsupported(topologyOf(input))).not.toThrow();
    }
  });

  it("names every setting that would be ignored", () => {
    expect(unsupportedSettings(presetFor(5))).toEqual(["web.processes", "web.balancer", "cdn"]);
    expect(unsupportedSettings(topologyOf({ regions: { eu: { addresses: ["192.0.2.1"] } } }))).toEqual(["regions"]);
    expect(unsupportedSettings(topologyOf({ database: { key: "team_id" }, log: { isPretty: true } }))).toEqual([
      "database.key",
      "log.isPretty",
    ]);
    const varnish = { provider: "varnish", addresses: ["http://10.0.0.5:6082"], token: env("T") } as const;
    expect(unsupportedSettings(topologyOf({ cdn: varnish }))).toEqual([]);
    expect(unsupportedSettings(topologyOf({ cdn: { provider: "cloudflare", zone: "z", token: env("T") } }))).toEqual(
      [],
    );
    expect(unsupportedSettings(topologyOf({ cdn: { provider: "fastly", zone: "z", token: env("T") } }))).toEqual([
      "cdn.provider",
    ]);
    expect(() => refuseUnsupported(presetFor(2))).toThrow(
      expect.objectContaining({
        name: "UnsupportedError",
        code: "CAPABILITY_MISSING",
        message:
          "One process alone cannot carry out web.processes and web.balancer. Start the app with all its servers: rungs up.",
      }),
    );
    const worldwide = topologyOf({ web: { processes: 2 }, regions: { eu: { addresses: ["192.0.2.1"] } } });
    expect(() => refuseUnsupported(worldwide)).toThrow(
      "One process alone cannot carry out web.processes and regions. Start the app with all its servers: rungs up.",
    );
  });
});
