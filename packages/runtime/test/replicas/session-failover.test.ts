/** What people see while their shard's leader dies and a follower takes its place, under synchronous replication. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { type ReplicaServer, startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { RunningApp } from "../../src/app/app.ts";
import { type MovingAddress, movingAddress } from "../database/replication/support.ts";
import type { NotesTables } from "./support/notes-service.ts";
import { serversOf, startNotes } from "./support/notes-site.ts";
import { checkSessions } from "./support/session-checker.ts";

const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);

let replicas: TestReplicas;
let redis: TestRedis;
let leaderAddress: MovingAddress;
let folder: string;
const apps: RunningApp<NotesTables>[] = [];

beforeAll(async () => {
  const settings = { synchronous_standby_names: 'ANY 1 ("follower-1", "follower-2")' };
  [replicas, redis] = await Promise.all([startTestReplicas({ followers: 2, settings }), startTestRedis()]);
  leaderAddress = await movingAddress(replicas.leader);
  folder = await mkdtemp(join(tmpdir(), "rungs-notes-"));
  const shards = [{ ...serversOf(replicas), leaderUrl: leaderAddress.url }];
  for (let index = 0; index < 2; index++) apps.push(await startNotes({ folder, redisUrl: redis.url, shards }));
});
afterAll(async () => {
  for (const app of apps) await app.stop();
  await leaderAddress?.close();
  await Promise.all([replicas?.stop(), redis?.stop()]);
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** As a fail-over manager does: the follower that has received most leads, the other follows it. */
async function failOver(): Promise<void> {
  await replicas.leader.kill();
  await leaderAddress.pointTo(undefined);
  leaderAddress.breakAll();
  const received = async (server: ReplicaServer) => {
    const sql = "select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::text as received";
    return { server, bytes: BigInt((await server.query<{ received: string }>(sql))[0]?.received ?? "0") };
  };
  const found = await Promise.all(replicas.followers.map(received));
  const [first, second] = found.sort((a, b) => (a.bytes > b.bytes ? -1 : 1)).map(({ server }) => server);
  await first?.promote();
  await second?.follow(first as ReplicaServer);
  await leaderAddress.pointTo(first);
}

it(`a fail-over takes nothing back from anybody, and writes and followers go on after it (seed ${seed})`, async () => {
  const addresses = apps.map(({ address }) => address);
  const check = (ms: number, part: number) =>
    checkSessions({ addresses, seed: seed + part, people: 20, ms, readsMin: ms / 20, taggedShare: 0.1 });
  const [during] = await Promise.all([check(8_000, 1), sleep(2_000).then(failOver)]);
  console.log("during", during);
  expect([during.staleOwnReads, during.backwardReads]).toEqual([[], []]);
  expect([during.reads > 100, during.writes > 20]).toEqual([true, true]);
  const after = await check(2_500, 2);
  const metrics = await (await fetch(`${addresses[0]}/metrics`)).text();
  const ofFollowers = /database_reads\{[^}]*role="follower"[^}]*\} (\d+)/.exec(metrics)?.[1];
  console.log("after", after, { ofFollowers });
  expect([after.staleOwnReads, after.backwardReads, after.failures]).toEqual([[], [], 0]);
  expect(metrics).toMatch(/database_replication_events\{[^}]*kind="timeline"[^}]*\} 2/);
}, 90_000);
