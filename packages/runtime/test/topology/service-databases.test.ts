/** `services.GROUP.database`: what it may say, and which database a process uses. */
import { describe, expect, it } from "vitest";
import {
  databaseGroupOf,
  defaultTopology,
  env,
  ownDatabaseGroup,
  refuseUngrouped,
  resolveTopology,
  type TopologyInput,
  topologyOfDatabase,
} from "../../src/topology/index.ts";

const resolved = (content: TopologyInput) => resolveTopology({ file: { name: "rungs.config.ts", content } }).topology;
const problemOf = (content: TopologyInput): string => {
  try {
    resolved(content);
  } catch (error) {
    return (error as Error).message;
  }
  return "";
};
const queue = { url: "amqp://localhost:5672" };
const money = {
  services: ["payments", "ledger"],
  database: { shards: [{ leader: env("MONEY_0") }, { leader: env("MONEY_1") }] },
};

describe("a database that the services of a group own", () => {
  const topology = resolved({ queue, services: { money, workers: {} }, group: "money" });

  it("takes the place of the app's for the processes of its group, with the app's bounds", () => {
    expect(databaseGroupOf(topology, "ledger")).toBe("money");
    expect(databaseGroupOf(topology, "articles")).toBeUndefined();
    expect(ownDatabaseGroup(topology)).toBe("money");
    expect(ownDatabaseGroup({ ...topology, group: "web" })).toBeUndefined();
    expect(topologyOfDatabase(topology, "money").database).toEqual({
      ...defaultTopology.database,
      shards: money.database.shards,
    });
    expect(topologyOfDatabase(topology, undefined)).toBe(topology);
  });

  it("is for processes that know their group", () => {
    expect(() => refuseUngrouped(topology)).not.toThrow();
    expect(() => refuseUngrouped({ ...topology, group: undefined })).toThrow(
      "services.money.database: its services own a database",
    );
  });

  it.each<[what: string, content: TopologyInput, problem: string]>([
    ["needs a broker", { services: { money } }, "services.money.database: needs queue.url"],
    [
      "is not for workers",
      { queue, services: { workers: { database: { shards: 1 } } } },
      'services.workers.database: is the app\'s, since "workers" has what no other group names',
    ],
    [
      "has no followers",
      {
        queue,
        services: {
          money: { ...money, database: { shards: [{ leader: "postgres://a/x", followers: ["postgres://b/x"] }] } },
        },
      },
      "services.money.database.shards[0].followers: have no effect",
    ],
    [
      "is on no server of the app",
      { queue, database: { shards: [{ leader: env("MONEY_1") }] }, services: { money } },
      "services.money.database.shards[1].leader: names a server of database",
    ],
    [
      "is not for several regions",
      { queue, region: "eu", regions: { eu: { addresses: ["10.0.0.1"] } }, services: { money } },
      "services.money.database: is not for several regions in this version",
    ],
    [
      "has split points as the app's",
      {
        queue,
        services: { money: { database: { strategy: "range", splits: ["m", "t"], shards: 2 }, services: ["payments"] } },
      },
      "services.money.database.splits: expected 1 split point(s) for 2 shard(s)",
    ],
    [
      "knows its settings",
      { queue, services: { money: { database: { shard: 2 } } } } as TopologyInput,
      "services.money.database.shard: no such setting; did you mean services.money.database.shards?",
    ],
  ])("%s", (_what, content, problem) => {
    expect(problemOf(content)).toContain(problem);
  });

  it("keeps passwords out of messages", () => {
    const shards = [{ leader: "postgres://app:hunter2@db/app" }];
    const problem = problemOf({ queue, services: { money: { database: { shards } } } });
    expect(problem).toContain("services.money.database.shards[0].leader");
    expect(problem).not.toContain("hunter2");
  });
});
