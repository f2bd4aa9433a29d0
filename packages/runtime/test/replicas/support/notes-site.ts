/** The notes site: web processes, in all but that they share this one's memory. */
import type { TestReplicas } from "@rungs/contract/test-replicas";
import { pino } from "pino";
import { type RunningApp, startApp } from "../../../src/app/app.ts";
import { defineApp } from "../../../src/app/service.ts";
import { resolveTopology } from "../../../src/topology/index.ts";
import { type NotesTables, notes } from "./notes-service.ts";

/** Where a process is, and how the regions are reached. */
export interface NotesRegion {
  readonly here: string;
  readonly port: number;
  /** Inner addresses by region; the leaders are in the first. */
  readonly urls: Readonly<Record<string, string>>;
  /** The Redis of this region. */
  readonly replicaUrl: string;
}

/** Starts one. */
export function startNotes(options: {
  readonly folder: string;
  readonly redisUrl: string;
  readonly shards: readonly { readonly leaderUrl: string; readonly followerUrls: readonly string[] }[];
  readonly region?: NotesRegion;
}): Promise<RunningApp<NotesTables>> {
  const { folder, redisUrl, shards, region } = options;
  const environment: Record<string, string> = {};
  const named = (name: string, url: string) => {
    environment[name] = url;
    return { env: name };
  };
  const content = {
    dataDirectory: folder,
    web: { port: region?.port ?? 0, loopLatenessMsMax: 0 },
    sessions: { url: redisUrl, ...(region === undefined ? {} : { replica: region.replicaUrl }) },
    ...(region === undefined ? {} : { region: region.here, regions: regionsOf(region) }),
    database: {
      shards: shards.map(({ leaderUrl, followerUrls }, shard) => ({
        leader: named(`LEADER_${shard}`, leaderUrl),
        followers: followerUrls.map((url, index) => named(`FOLLOWER_${shard}_${index}`, url)),
      })),
      replicas: { lagMsMax: 30_000 },
      pool: { connectionsMax: 8 },
    },
  };
  const { topology } = resolveTopology({ file: { name: "test", content } });
  const log = pino({ level: process.env["NOTES_LOG"] ?? "silent" }, pino.destination(2));
  return startApp(defineApp({ name: "notes", services: [notes] }), { topology, environment, log });
}

function regionsOf({ urls }: NotesRegion) {
  const regions = Object.entries(urls).map(([name, url], index) => {
    return [name, { addresses: ["127.0.0.1"], url, isLeader: index === 0 }] as const;
  });
  return Object.fromEntries(regions);
}

/** How an app reaches a set of servers. */
export function serversOf(set: TestReplicas) {
  return {
    leaderUrl: set.leader.connectionString,
    followerUrls: set.followers.map(({ connectionString }) => connectionString),
  };
}
