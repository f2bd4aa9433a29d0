/**
 * What people see who change the region with every request: two web processes in each of two, the leader in the first, a follower and a
 * Redis of its own in each. The second region's follower stands still again and again, and its Redis lags and stands still too.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "@rungs/contract/free-ports";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { openUnreliableWay, type UnreliableWay } from "@rungs/contract/unreliable-proxy";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { RunningApp } from "../../src/app/app.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import type { NearSessionStore, NearSessionStoreOptions } from "../../src/session/near-session-store.ts";
import type { NotesTables } from "./support/notes-service.ts";
import { startNotes } from "./support/notes-site.ts";
import { checkSessions } from "./support/session-checker.ts";

const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);
/** Switched on, sessions are read from the region's Redis whatever it has heard of. */
const planted = vi.hoisted(() => ({ isOn: false }));

vi.mock("../../src/session/near-session-store.ts", async (original) => {
  const real = await original<typeof import("../../src/session/near-session-store.ts")>();
  return {
    ...real,
    nearSessionStore(options: NearSessionStoreOptions): NearSessionStore {
      const near = real.nearSessionStore(options);
      return {
        ...near,
        read: (hash, how) => near.read(hash, planted.isOn ? { leastRevision: 0 } : how),
        changedElsewhere: (token) => planted.isOn || near.changedElsewhere(token),
      };
    },
  };
});

let replicas: TestReplicas;
let servers: TestRedis[];
let link: UnreliableWay;
let folder: string;
const apps: RunningApp<NotesTables>[] = [];
let addresses: string[];

beforeAll(async () => {
  const [set, master] = await Promise.all([startTestReplicas({ followers: 2 }), startTestRedis()]);
  replicas = set;
  link = await openUnreliableWay({ port: master.port });
  link.delay(100);
  const copy = await startTestRedis({ settings: { replicaof: `127.0.0.1 ${link.port}`, "repl-timeout": "3600" } });
  servers = [master, copy];
  folder = await mkdtemp(join(tmpdir(), "rungs-notes-"));
  const ports = await freePorts("eu1", "eu2", "us1", "us2");
  const urls = { eu: `http://127.0.0.1:${ports.eu1}`, us: `http://127.0.0.1:${ports.us1}` };
  for (const name of ["eu1", "eu2", "us1", "us2"] as const) {
    const here = name.slice(0, 2) as "eu" | "us";
    const [follower, redis] = here === "eu" ? [set.followers[0], master] : [set.followers[1], copy];
    const shards = [{ leaderUrl: set.leader.connectionString, followerUrls: [follower?.connectionString ?? ""] }];
    const region = { here, port: ports[name], urls, replicaUrl: redis.url };
    apps.push(await startNotes({ folder, redisUrl: master.url, shards, region }));
  }
  addresses = apps.map(({ address }) => address);
}, 60_000);
afterAll(async () => {
  for (const app of apps) await app.stop();
  await link?.cut();
  await Promise.all([replicas?.stop(), ...(servers ?? []).map((server) => server.stop())]);
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** By kind, over the processes of the second region. */
async function figures(name: string): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const address of addresses.slice(2)) {
    const text = await (await fetch(`${address}/metrics`)).text();
    for (const [, kind = "", value] of text.matchAll(
      new RegExp(`^\\S*${name}\\{[^}]*kind="([^"]*)"[^}]*\\} (\\S+)$`, "gm"),
    )) {
      found[kind] = (found[kind] ?? 0) + Number(value);
    }
  }
  return found;
}

async function disturb(random: ReturnType<typeof seededRandom>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const what = planted.isOn ? 0.6 : random.next();
    if (what < 0.5) await replicas.followers[1]?.pauseReplay();
    else link.silence(true);
    await sleep(planted.isOn ? 1_000 : 50 + random.next() * (what < 0.9 ? 600 : 2_500));
    await replicas.followers[1]?.resumeReplay();
    link.silence(false);
    await sleep(50 + random.next() * (planted.isOn ? 100 : 800));
  }
}

async function check(
  part: number,
  options: { readonly ms: number; readonly readsMin: number; readonly taggedShare: number; readonly keptShare: number },
) {
  const over = new AbortController();
  const [history] = await Promise.all([
    checkSessions({ addresses, seed: seed + part, people: 30, ...options }).finally(() => over.abort()),
    disturb(seededRandom(seed + part), over.signal),
  ]);
  return history;
}

describe(`people who change regions, seed ${seed}`, () => {
  it("never miss an own write nor see what they have read undone", async () => {
    const history = await check(1, { ms: 7_000, readsMin: 500, taggedShare: 0.1, keptShare: 0.25 });
    const records = await figures("session_record_reads");
    console.log("regions", history, records);
    expect([history.staleOwnReads, history.backwardReads]).toEqual([[], []]);
    // A machine that stands still for a second makes a command to Redis or a connection late, which is told.
    expect(history.failed.filter((line) => !line.includes(": 503 "))).toEqual([]);
    expect(history.failures).toBeLessThan(history.reads / 10);
    expect([history.reads > 300, history.writes > 30]).toEqual([true, true]);
    expect(records["near"]).toBeGreaterThan(10);
  }, 60_000);

  it("would be found to, were any record of the region's own Redis good enough (planted fault)", async () => {
    planted.isOn = true;
    const history = await check(2, { ms: 3_000, readsMin: 400, taggedShare: 0, keptShare: 0.9 });
    planted.isOn = false;
    const { reads, writes, failed } = history;
    const counts = { stale: history.staleOwnReads.length, undone: history.backwardReads.length };
    console.log("planted", await figures("session_record_reads"), { reads, writes, failed, ...counts });
    expect(history.staleOwnReads.length).toBeGreaterThan(0);
    expect(history.backwardReads.length).toBeGreaterThan(0);
  }, 60_000);
});
