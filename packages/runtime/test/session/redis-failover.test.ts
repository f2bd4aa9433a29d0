/** What people see when the master of their sessions dies and Sentinels choose another. */
import { randomUUID } from "node:crypto";
import { sampleSession } from "@rungs/contract/session-store-contract";
import { startTestCluster, startTestSentinels, type TestRedis, type TestSentinels } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openRedis } from "../../src/redis/redis.ts";
import { redisSessionStore } from "../../src/session/drivers/redis-session-store.ts";
import { type Person, type RedisSite, type Seen, startRedisSite } from "./redis-site.ts";

let sentinels: TestSentinels;
let site: RedisSite;

async function signedIn(user = randomUUID()): Promise<Person> {
  const person = site.person();
  expect((await person.post("/sign-in", { user })).status).toBe(200);
  return person;
}

/** Both replicas have all that the master had written when this was called. Sentinels write to it all the time. */
async function copied(): Promise<void> {
  let written: number | undefined;
  await until("the replicas have everything", async () => {
    // Asked each time: on a machine that stands still for a second the Sentinels choose another.
    const info = await (await sentinels.master()).cli("info", "replication");
    const own = Number(/^master_repl_offset:(\d+)/m.exec(info)?.[1]);
    const theirs = [...info.matchAll(/^slave\d+:.*offset=(\d+)/gm)].map(([, offset]) => Number(offset));
    written ??= own;
    return theirs.length === 2 && Math.min(...theirs) >= written;
  });
}

/** The replicas hear nothing of the master any more, as on the wrong side of a broken network. */
async function cutOff(): Promise<void> {
  const master = await sentinels.master();
  for (const server of sentinels.servers.filter((each) => each !== master))
    await server.cli("replicaof", "127.0.0.1", "1");
}

async function another(old: { readonly port: number }): Promise<void> {
  await until("another master is named", async () => (await sentinels.master()).port !== old.port);
}

describe("a fail-over of the sessions' Redis", () => {
  beforeEach(async () => {
    sentinels = await startTestSentinels({ downMs: 1_000 });
    site = await startRedisSite({ url: sentinels.url, count: 2 });
  });
  afterEach(async () => {
    await site?.stop();
    await sentinels?.stop();
  });

  it("shows 503 with Retry-After for seconds and signs nobody out", async () => {
    const people = await Promise.all(Array.from({ length: 20 }, () => signedIn()));
    await copied();
    const seen: (Seen & { readonly at: number })[] = [];
    let isOver = false;
    const visits = people.slice(0, 4).map(async (person) => {
      while (!isOver) {
        const answer = await person.get("/me");
        seen.push({ ...answer, at: performance.now() });
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
    const master = await sentinels.master();
    const killedAt = performance.now();
    await master.kill();
    await another(master);
    await until(
      "all are served again",
      async () => seen.length > 0 && seen.slice(-20).every(({ status }) => status === 200),
    );
    isOver = true;
    await Promise.all(visits);
    const failures = seen.filter(({ status }) => status !== 200);
    expect(new Set(failures.map(({ status }) => status))).toEqual(new Set([503]));
    for (const { retryAfter, setsCookie, ms } of failures) {
      expect([retryAfter === null, setsCookie, ms < 3_000]).toEqual([false, false, true]);
    }
    const lastFailureAt = Math.max(...failures.map(({ at }) => at)) - killedAt;
    process.stdout.write(`fail-over: ${failures.length} answers of 503 in ${Math.round(lastFailureAt)} ms\n`);
    expect(lastFailureAt).toBeLessThan(8_000);
    for (const person of people) expect((await person.get("/me")).status).toBe(200);
    // And the old master comes back as a copy, without anything of its own.
    await master.restart();
    for (const person of people) expect((await person.get("/me")).status).toBe(200);
  });

  it("brings no revoked session back, though the new master never heard of the revocation", async () => {
    const user = randomUUID();
    const [left, thief, kept, stranger] = [
      await signedIn(),
      await signedIn(user),
      await signedIn(user),
      await signedIn(),
    ];
    const stale = [left.cookie(), thief.cookie()];
    const unnoted = sampleSession();
    const redis = await openRedis({ url: sentinels.url });
    const storeAlone = await redisSessionStore({ redis });
    await storeAlone.create(unnoted);
    await copied();
    await cutOff();
    expect((await left.post("/sign-out")).status).toBe(200);
    expect((await kept.post("/sign-out-others")).text).toBe('{"count":1}');
    expect(await storeAlone.revoke(unnoted.tokenHash)).toBe(true);
    const master = await sentinels.master();
    await master.kill();
    await another(master);
    for (const person of [kept, stranger]) {
      await until("those who stayed are served", async () => (await person.get("/me")).status === 200);
    }
    for (const cookie of stale) {
      for (const { address } of site.processes) {
        const statuses: number[] = [];
        await until("the process knows the new master", async () => {
          statuses.push((await fetch(`${address}/me`, { headers: { cookie } })).status);
          return statuses.at(-1) !== 503;
        });
        expect([...new Set(statuses)].sort()).not.toContain(200);
        expect(statuses.at(-1)).toBe(401);
      }
    }
    // The same without the record in the database: so the test sees what it is there to see.
    await until("the store alone works", async () => (await storeAlone.read(unnoted.tokenHash)) !== undefined);
    await redis.close();
  });

  it("leaves a master that was demoted while it was frozen, and writes to it no more", async () => {
    const person = await signedIn();
    await copied();
    const master = await sentinels.master();
    master.freeze(true);
    await another(master);
    await until("the new master serves", async () => (await person.post("/data", { during: "kept" })).status === 200);
    master.freeze(false);
    await until("the old master is a copy", async () =>
      (await master.cli("info", "replication")).includes("role:slave"),
    );
    for (let turn = 0; turn < 4; turn++) {
      const { status } = await person.post("/data", { [`after${turn}`]: "kept" });
      expect(status).toBe(200);
    }
    expect(Object.keys(JSON.parse((await person.get("/data")).text)).sort()).toEqual([
      "after0",
      "after1",
      "after2",
      "after3",
      "during",
    ]);
  });
});

describe("a fail-over in a Cluster of sessions", () => {
  it("brings no revoked session back, though the replica that took over was known before as one", async () => {
    const cluster = await startTestCluster({ replicas: 1 });
    // All nodes are named in the address, so that there are connections to the replicas too.
    const url = `redis+cluster://${cluster.servers.map(({ port }) => `127.0.0.1:${port}`).join(",")}`;
    site = await startRedisSite({ url, count: 2 });
    const people = await Promise.all(Array.from({ length: 12 }, () => signedIn()));
    const master = cluster.servers[0] as TestRedis;
    const replica = await replicaOf(master, cluster.servers);
    await until("the replica has everything", async () => {
      const [mine, copy] = await Promise.all([master.cli("dbsize"), replica.cli("dbsize")]);
      return Number(mine) > 0 && mine === copy;
    });
    // From now on the replica cannot log in to its master.
    await master.cli("config", "set", "requirepass", "new");
    await master.cli("client", "kill", "type", "replica").catch(() => {});
    await killReplicaLinks(master);
    const cookies = people.map((person) => person.cookie());
    for (const person of people) expect((await person.post("/sign-out")).status).toBe(200);
    expect(Number(await replica.cli("dbsize"))).toBeGreaterThan(0);
    await master.kill();
    await until("the replica took over", async () => (await replica.cli("role")).startsWith("master"));
    for (const [index, cookie] of cookies.entries()) {
      const { address } = site.processes[index % 2] as (typeof site.processes)[0];
      const statuses: number[] = [];
      await until("the process is served", async () => {
        statuses.push((await fetch(`${address}/me`, { headers: { cookie } })).status);
        return statuses.at(-1) !== 503;
      });
      expect(statuses.at(-1)).toBe(401);
    }
    await site.stop();
    await cluster.stop();
  });
});

async function replicaOf(master: TestRedis, servers: readonly TestRedis[]): Promise<TestRedis> {
  for (const server of servers) {
    if ((await server.cli("info", "replication")).includes(`master_port:${master.port}`)) return server;
  }
  throw new Error(`The master on port ${master.port} has no replica.`);
}

async function killReplicaLinks(master: TestRedis): Promise<void> {
  await master.cli("--no-auth-warning", "-a", "new", "client", "kill", "type", "replica");
}
