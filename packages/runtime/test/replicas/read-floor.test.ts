/**
 * What is loaded into a cache is as new as what the process has heard of, also for those without a session, as a CDN is after its purge:
 * by a checker over HTTP that writes through one web process and looks through another, while the only follower stands still.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import type { RunningApp } from "../../src/app/app.ts";
import type { Position, ReadContext } from "../../src/database/index.ts";
import { ReadRouter } from "../../src/database/replication/read-router.ts";
import type { NotesTables } from "./support/notes-service.ts";
import { serversOf, startNotes } from "./support/notes-site.ts";

/** After this an old value is not on its way out, but kept. */
const keptMs = 2_000;

let replicas: TestReplicas;
let redis: TestRedis;
let folder: string;
const apps: RunningApp<NotesTables>[] = [];

beforeAll(async () => {
  [replicas, redis] = await Promise.all([startTestReplicas({ followers: 1 }), startTestRedis()]);
  folder = await mkdtemp(join(tmpdir(), "rungs-notes-"));
  const shards = [serversOf(replicas)];
  for (let index = 0; index < 2; index++) apps.push(await startNotes({ folder, redisUrl: redis.url, shards }));
});
afterEach(() => {
  vi.restoreAllMocks();
});
afterAll(async () => {
  for (const app of apps) await app.stop();
  await Promise.all([replicas?.stop(), redis?.stop()]);
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** Loads that were older than a write acknowledged before, and were kept, of so many. */
async function oldLoads(rounds: number): Promise<string[]> {
  const [writer, reader] = apps.map(({ address }) => address) as [string, string];
  const post = (path: string, body: object, token?: string) =>
    fetch(writer + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify(body),
    }).then((answer) => answer.text());
  const token = await post("/token", { user: "0190c0de-0000-7000-8000-00000000000b" });
  const found: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const wrote = Number(await post("/tagged", {}, token));
    const until = performance.now() + keptMs;
    let value: number;
    do value = Number(await (await fetch(`${reader}/open`)).text());
    while (value !== wrote && performance.now() < until);
    if (value !== wrote) found.push(`wrote ${wrote}, and ${value} was loaded`);
  }
  return found;
}

it("no load is older than an invalidation that was heard before", async () => {
  await replicas.followers[0]?.pauseReplay();
  expect(await oldLoads(20)).toEqual([]);
  await replicas.followers[0]?.resumeReplay();
});

it("would be found to, were there no floor (planted fault)", async () => {
  const router = ReadRouter.prototype as unknown as { demandOf(context: ReadContext): Position | undefined };
  vi.spyOn(router, "demandOf").mockImplementation((context) => context.requiredOf(0));
  await replicas.followers[0]?.caughtUpWith(replicas.leader);
  await replicas.followers[0]?.pauseReplay();
  expect(await oldLoads(2)).toHaveLength(2);
  await replicas.followers[0]?.resumeReplay();
}, 30_000);
