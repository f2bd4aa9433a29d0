import { describe, expect, it } from "vitest";
import { env, resolveTopology, type TopologyInput } from "../../src/topology/index.ts";

const resolve = (database: NonNullable<TopologyInput["database"]>) =>
  resolveTopology({ file: { name: "rungs.config.ts", content: { database } } }).topology.database;

describe("settings of followers", () => {
  it("have defaults, and are changed one by one", () => {
    const shards = [{ leader: env("L"), followers: [env("A"), env("B")] }];
    expect(resolve({ shards }).replicas).toEqual({ lagMsMax: 5_000, waitMsMax: 50 });
    expect(resolve({ shards, replicas: { waitMsMax: 0 } }).replicas).toEqual({ lagMsMax: 5_000, waitMsMax: 0 });
  });

  it("are refused past the bounds within which names may be given to others", () => {
    expect(() => resolve({ replicas: { lagMsMax: 30_001 } })).toThrow(
      "database.replicas.lagMsMax: expected an integer from 1 to 30000, got 30001 (from file rungs.config.ts).",
    );
  });

  it("name each follower once", () => {
    const shards = [{ leader: env("L"), followers: [env("A"), env("B"), env("A")] }];
    expect(() => resolve({ shards })).toThrow(
      "database.shards[0].followers[2]: names the same server as one before it in the list (from file rungs.config.ts).",
    );
  });
});
