/** The notes site: web processes, in all but that they share this one's memory. */
import type { TestReplicas } from "@rungs/contract/test-replicas";
import { pino } from "pino";
import { type RunningApp, startApp } from "../../../src/app.ts";
import { defineApp } from "../../../src/service.ts";
import { resolveTopology } from "../../../src/topology/index.ts";
import { type NotesTables, notes } from "./notes-service.ts";

/** Starts one. */
export function startNotes(options: {
  readonly folder: string;
  readonly redisUrl: string;
  readonly shards: readonly { readonly leaderUrl: string; readonly followerUrls: readonly string[] }[];
}): Promise<RunningApp<NotesTables>> {
  const { folder, redisUrl, shards } = options;
  const environment: Record<string, string> = {};
  const named = (name: string, url: string) => {
    environment[name] = url;
    return { env: name };
  };
  const content = {
    dataDirectory: folder,
    web: { port: 0, loopLatenessMsMax: 0 },
    sessions: { url: redisUrl },
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

/** How an app reaches a set of servers. */
export function serversOf(set: TestReplicas) {
  return {
    leaderUrl: set.leader.connectionString,
    followerUrls: set.followers.map(({ connectionString }) => connectionString),
  };
}
