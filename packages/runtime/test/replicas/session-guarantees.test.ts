/**
 * What people see of their own and others' writes over three web processes, a leader and two followers, one of which is always
 * behind while the other stands still again and again.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { type ReplicaServer, startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { RunningApp } from "../../src/app/app.ts";
import { ReadContext } from "../../src/database/index.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import type { NotesTables } from "./support/notes-service.ts";
import { serversOf, startNotes } from "./support/notes-site.ts";
import { checkSessions } from "./support/session-checker.ts";

const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);
const people = 40;

let replicas: TestReplicas;
let redis: TestRedis;
let folder: string;
const apps: RunningApp<NotesTables>[] = [];
let addresses: string[];

beforeAll(async () => {
  [replicas, redis] = await Promise.all([startTestReplicas({ followers: 2 }), startTestRedis()]);
  folder = await mkdtemp(join(tmpdir(), "rungs-notes-"));
  const shards = [serversOf(replicas)];
  for (let index = 0; index < 3; index++) apps.push(await startNotes({ folder, redisUrl: redis.url, shards }));
  addresses = apps.map(({ address }) => address);
});
afterEach(() => {
  vi.restoreAllMocks();
});
afterAll(async () => {
  for (const app of apps) await app.stop();
  await Promise.all([replicas?.stop(), redis?.stop()]);
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** By reason, over all processes. */
async function figures(name: string): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const address of addresses) {
    const text = await (await fetch(`${address}/metrics`)).text();
    for (const [, labels = "", value] of text.matchAll(new RegExp(`^\\S*${name}\\{([^}]*)\\} (\\S+)$`, "gm"))) {
      const key = [...labels.matchAll(/(?:role|reason|kind)="([^"]*)"/g)].map(([, word]) => word).join(" ");
      found[key.trim()] = (found[key.trim()] ?? 0) + Number(value);
    }
  }
  return found;
}

async function standStillAtRandom(
  follower: ReplicaServer | undefined,
  random: ReturnType<typeof seededRandom>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted && follower !== undefined) {
    await follower.pauseReplay();
    await sleep(50 + random.next() * 400);
    await follower.resumeReplay();
    await sleep(50 + random.next() * 800);
  }
}

async function check(
  part: number,
  options: { readonly ms: number; readonly readsMin: number; readonly taggedShare: number },
) {
  const over = new AbortController();
  const before = await figures("database_reads");
  const [history] = await Promise.all([
    checkSessions({ addresses, seed: seed + part, people, ...options }).finally(() => over.abort()),
    standStillAtRandom(replicas.followers[1], seededRandom(seed), over.signal),
  ]);
  const after = await figures("database_reads");
  const reads = Object.fromEntries(Object.entries(after).map(([key, value]) => [key, value - (before[key] ?? 0)]));
  return { history, reads };
}

describe(`forty people over three processes and two followers, seed ${seed}`, () => {
  it.each([
    ["one that is 5 s behind and one", 5_000],
    ["one that is 0.3 s behind and one", 300],
  ])(
    "never miss an own write nor see what they have read undone, with %s that stands still at times",
    async (_which, delayMs) => {
      await replicas.followers[0]?.delayReplay(delayMs);
      const { history, reads } = await check(delayMs, { ms: 7_000, readsMin: 600, taggedShare: 0.1 });
      const shared = Object.values(reads).reduce((sum, value) => sum + value, 0);
      const byFollowers = (reads["follower"] ?? 0) / shared;
      console.log(delayMs, history, { byFollowers, routed: reads }, await figures("session_reads"));
      expect([history.staleOwnReads, history.backwardReads]).toEqual([[], []]);
      expect([history.failures, history.reads > 500, history.writes > 50]).toEqual([0, true, true]);
      expect(reads["follower"]).toBeGreaterThan(50);
      expect(await figures("session_reads")).toMatchObject({ notesRefused: 0, failures: 0 });
    },
    60_000,
  );

  it("would be found to, were nothing asked of followers (planted fault)", async () => {
    vi.spyOn(ReadContext.prototype, "requiredOf").mockReturnValue(undefined);
    const { history } = await check(3, { ms: 3_000, readsMin: 400, taggedShare: 0 });
    const undone = history.backwardReads.filter((line) => !history.staleOwnReads.includes(line));
    console.log("planted", { stale: history.staleOwnReads.length, undone: undone.length });
    expect(history.staleOwnReads.length).toBeGreaterThan(0);
    expect(undone.length).toBeGreaterThan(0);
  }, 60_000);

  it("nobody loads an old value into a cache after its invalidation was heard", async () => {
    const [one, other] = addresses as [string, string];
    const user = "0190c0de-0000-7000-8000-00000000000a";
    const json = { "content-type": "application/json" };
    const body = JSON.stringify({ user });
    const token = await (await fetch(`${one}/token`, { method: "POST", headers: json, body })).text();
    const follower = replicas.followers[1];
    await follower?.pauseReplay();
    for (let round = 0; round < 20; round++) {
      const headers = { ...json, authorization: `Bearer ${token}` };
      const wrote = Number(await (await fetch(`${one}/tagged`, { method: "POST", headers, body: "{}" })).text());
      // Nobody's session: what holds it to the write is what the process has heard.
      await expect.poll(async () => Number(await (await fetch(`${other}/open`)).text())).toBe(wrote);
    }
    await follower?.resumeReplay();
  });

  it("a process asks leaders while it may have missed something, and followers again soon after", async () => {
    await redis.cli("client", "kill", "type", "pubsub", "skipme", "yes");
    await expect.poll(async () => (await figures("database_read_floors"))["doubts"]).toBeGreaterThan(3);
    await expect.poll(async () => (await figures("database_read_floors"))["inDoubt"], { timeout: 5_000 }).toBe(0);
  });

  it("a follower that is gone makes no process unready", async () => {
    await replicas.followers[1]?.kill();
    for (const address of addresses) {
      expect((await fetch(`${address}/readyz`)).status).toBe(200);
      expect((await fetch(`${address}/open`)).status).toBe(200);
    }
    await replicas.followers[1]?.start();
  });
});

it(`so it is over two shards, each with a follower that stands still at times (seed ${seed})`, async () => {
  const sets = await Promise.all([startTestReplicas({ followers: 1 }), startTestReplicas({ followers: 1 })]);
  const inner = await mkdtemp(join(tmpdir(), "rungs-notes-"));
  const site = { folder: inner, redisUrl: redis.url, shards: sets.map(serversOf) };
  const processes = [await startNotes(site), await startNotes(site)];
  const over = new AbortController();
  const random = seededRandom(seed + 4);
  const [history] = await Promise.all([
    checkSessions({
      addresses: processes.map(({ address }) => address),
      ...{ seed: seed + 4, people: 30, ms: 6_000, readsMin: 400, taggedShare: 0.1 },
    }).finally(() => over.abort()),
    ...sets.map(({ followers }) => standStillAtRandom(followers[0], random, over.signal)),
  ]);
  const text = await (await fetch(`${processes[0]?.address}/metrics`)).text();
  const byFollowers = [...text.matchAll(/database_reads\{[^}]*role="follower"[^}]*\} (\d+)/g)].map(([, count]) =>
    Number(count),
  );
  console.log("two shards", history, { byFollowers });
  for (const each of processes) await each.stop();
  await Promise.all(sets.map((set) => set.stop()));
  await rm(inner, { recursive: true, force: true });
  expect([history.staleOwnReads, history.backwardReads, history.failures]).toEqual([[], [], 0]);
  expect(byFollowers).toHaveLength(2);
  expect(Math.min(...byFollowers)).toBeGreaterThan(10);
}, 90_000);
