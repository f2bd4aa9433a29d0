/** Two regions with a member of the database each: writes go to the leader's, wherever they arrive, and with it when it moves. */
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { type ReplicaServer, startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RegionsReport } from "../../src/app/open/regions.ts";
import { type MovingAddress, movingAddress } from "../database/replication/support.ts";
import type { Ran } from "./support/visits-service.ts";
import { Browser, openRegionWay, type RegionWay, startVisits, type VisitsRegion } from "./support/visits-site.ts";

interface Counted {
  readonly region: string;
  readonly value: number;
}

let redis: TestRedis;
let folder: string;
beforeAll(async () => {
  redis = await startTestRedis();
  folder = await mkdtemp(join(tmpdir(), "rungs-visits-"));
});
afterAll(async () => {
  await redis?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

describe("a leader in one region and its follower in another", () => {
  let replicas: TestReplicas;
  let leaderAddress: MovingAddress;
  let ways: { readonly eu: RegionWay; readonly us: RegionWay };
  let eu: VisitsRegion;
  let us: VisitsRegion;
  const ran: Ran[] = [];

  beforeAll(async () => {
    replicas = await startTestReplicas({
      followers: 1,
      settingsOf: [{ "rungs.region": "eu" }, { "rungs.region": "us" }],
    });
    leaderAddress = await movingAddress(replicas.leader);
    ways = { eu: await openRegionWay(), us: await openRegionWay() };
    // Each region reads from its own member, which in one of them is the leader and left alone.
    const shardsBy = (member: ReplicaServer | undefined) => [
      { leaderUrl: leaderAddress.url, followerUrls: [member?.connectionString ?? ""] },
    ];
    const settings = { folder, redisUrl: redis.url, ways, ran };
    eu = await startVisits({ name: "eu", shards: shardsBy(replicas.leader), ...settings });
    us = await startVisits({ name: "us", shards: shardsBy(replicas.followers[0]), ...settings });
  });
  afterAll(async () => {
    await Promise.all([us, eu].map((region) => region?.app.stop()));
    for (const way of Object.values(ways ?? {})) await way.close();
    await leaderAddress?.close();
    await replicas?.stop();
  });

  async function signedIn(region: VisitsRegion) {
    const browser = new Browser();
    const user = randomUUID();
    const answer = await browser.get<object>(region, "POST", "/sign-in", { user });
    return { browser, user, answer };
  }

  it("has a write in the far region done by the leader's, as if the client had come there", async () => {
    const { browser, answer } = await signedIn(us);
    expect(answer).toEqual({ region: "eu", ip: browser.address, protocol: "https", host: "visits.example" });
    // Set by the leader's region, as safe as the far region's own.
    expect(browser.cookieNames).toContain("__Host-session");
    expect(await browser.get(us, "POST", "/visits")).toEqual({ region: "eu", value: 1 });
    expect(await browser.get(us, "GET", "/visits")).toEqual({ region: "us", value: 1 });
    expect(await us.report()).toEqual({
      region: "us",
      leaders: [{ shard: 0, region: "eu", isSaid: true }],
      forwarded: [{ region: "eu", outcome: "answered", requests: 2 }],
      received: 0,
    });
    expect((await eu.report()).received).toBe(2);
  });

  it("shows a person in the far region their own write at once, though its follower is behind", async () => {
    const { browser } = await signedIn(us);
    await replicas.followers[0]?.delayReplay(300);
    for (let number = 1; number <= 10; number++) {
      const wrote = await browser.get<Counted>(us, "POST", "/visits");
      expect(wrote).toEqual({ region: "eu", value: number });
      expect(await browser.get<Counted>(us, "GET", "/visits")).toEqual({ region: "us", value: number });
      // And in the other region, where they go next.
      expect(await browser.get<Counted>(eu, "GET", "/visits")).toEqual({ region: "eu", value: number });
    }
    await replicas.followers[0]?.delayReplay(0);
  });

  it("takes uploads from the far region", async () => {
    const { browser } = await signedIn(us);
    const body = new Uint8Array(30_000_000);
    expect(await browser.get(us, "POST", "/upload", body)).toEqual({ region: "eu", bytes: body.length });
  });

  it("refuses whoever is not signed in, and what another site sends, in the far region as in its own", async () => {
    const stranger = new Browser();
    for (const region of [eu, us]) expect((await stranger.ask(region, "POST", "/visits")).status).toBe(401);
    const { browser } = await signedIn(us);
    browser.origin = "https://elsewhere.example";
    for (const region of [eu, us]) expect((await browser.ask(region, "POST", "/visits")).status).toBe(403);
  });

  it("that moves by plan takes the writes and the jobs of both regions with it", async () => {
    const { browser, user } = await signedIn(us);
    const ranHere = () => ran.filter((job) => job.user === user);
    for (let number = 0; number < 5; number++) {
      await browser.get(us, "POST", "/visits");
      await browser.get(eu, "POST", "/visits");
    }
    await until("all ten jobs have run", async () => ranHere().length === 10);
    expect(new Set(ran.map(({ region }) => region))).toEqual(new Set(["eu"]));
    // This one is not due before the leader has moved.
    await browser.get(us, "POST", "/visits", { delayMs: 1_500 });
    await replicas.leader.shutDown();
    await leadElsewhere(replicas.followers[0] as ReplicaServer);
    await until("the late job has run", async () => ranHere().length === 11);
    await until("the region left behind knows", async () => (await eu.report()).leaders[0]?.region === "us");
    expect(await browser.get(eu, "POST", "/visits")).toEqual({ region: "us", value: 12 });
    expect(await browser.get(us, "POST", "/visits")).toEqual({ region: "us", value: 13 });
    expect(await browser.get(eu, "GET", "/visits")).toEqual({ region: "eu", value: 13 });
    await until("the new jobs have run", async () => ranHere().length === 13);
    // The late one may have been taken by a process that had not asked where the leader is since it moved.
    const moved = ranHere().slice(11);
    expect(moved.map(({ region }) => region)).toEqual(["us", "us"]);
    expect(
      ranHere()
        .map(({ value }) => value)
        .sort((a, b) => a - b),
    ).toEqual(Array.from({ length: 13 }, (_, at) => at + 1));
  });

  it("that is lost has writes refused with a time to come back until the follower leads; then they are done there", async () => {
    const { leader: first } = replicas;
    const second = replicas.followers[0] as ReplicaServer;
    await first.follow(second);
    const { browser } = await signedIn(eu);
    expect(await browser.get(eu, "POST", "/visits")).toEqual({ region: "us", value: 1 });
    await first.caughtUpWith(second);
    await until("its own member is in use", async () =>
      /^database_follower\{[^}]*kind="up"[^}]*\} 1$/m.test(await (await fetch(`${eu.app.address}/metrics`)).text()),
    );
    ways.us.leadTo(undefined);
    await second.kill();
    await leaderAddress.pointTo(undefined);
    leaderAddress.breakAll();
    const before = outcomesOf(await eu.report());
    // Its own member serves on, so users that came to this region stay.
    await until(
      "its own member is known to serve",
      async () => (await fetch(`${eu.app.address}/readyz`)).status === 200,
    );
    expect(await browser.get(eu, "GET", "/visits")).toEqual({ region: "eu", value: 1 });
    const answer = await browser.ask(eu, "POST", "/visits");
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("1");
    await leadElsewhere(first);
    await until("writes are done in the other region", async () => {
      const again = await browser.ask(eu, "POST", "/visits");
      return again.status === 200 && ((await again.json()) as Counted).region === "eu";
    });
    // None that was refused was done.
    expect(await browser.get(eu, "GET", "/visits")).toEqual({ region: "eu", value: 2 });
    const report = await eu.report();
    expect(report.leaders).toEqual([{ shard: 0, region: "eu", isSaid: true }]);
    const after = outcomesOf(report);
    expect(after["undelivered"]).toBeGreaterThan(before["undelivered"] ?? 0);
    expect(after["unknown"]).toEqual(before["unknown"]);
  });

  /** As a fail-over manager does. */
  async function leadElsewhere(next: ReplicaServer): Promise<void> {
    await leaderAddress.pointTo(undefined);
    leaderAddress.breakAll();
    await next.promote();
    await leaderAddress.pointTo(next);
  }

  const outcomesOf = ({ forwarded }: RegionsReport): Record<string, number> =>
    Object.fromEntries(forwarded.map(({ outcome, requests }) => [outcome, requests]));
});

it("leaders in two regions take each their own people's writes, by the topology where they do not say it", async () => {
  const sets = await Promise.all([startTestReplicas({ followers: 0 }), startTestReplicas({ followers: 0 })]);
  const ways = { eu: await openRegionWay(), us: await openRegionWay() };
  const shards = sets.map(({ leader }, shard) => ({
    leaderUrl: leader.connectionString,
    followerUrls: [],
    // The first is where leaders are by default.
    ...(shard === 0 ? {} : { region: "us" }),
  }));
  const ran: Ran[] = [];
  const settings = { folder, redisUrl: redis.url, shards, ways, ran };
  await redis.cli("flushall");
  const eu = await startVisits({ name: "eu", ...settings });
  const us = await startVisits({ name: "us", ...settings });
  try {
    const personOn = async (shard: number) => {
      for (;;) {
        const user = randomUUID();
        if ((await eu.app.context.db.shardOf(user)) === shard) return user;
      }
    };
    for (const [shard, home] of ["eu", "us"].entries()) {
      const browser = new Browser();
      // Nobody's request goes to the home database's leader.
      const user = await personOn(shard);
      expect(await browser.get(us, "POST", "/sign-in", { user })).toMatchObject({ region: "eu" });
      expect(await browser.get(us, "POST", "/visits")).toEqual({ region: home, value: 1 });
      expect(await browser.get(eu, "POST", "/visits")).toEqual({ region: home, value: 2 });
    }
    await until("all jobs have run", async () => ran.length === 4);
    for (const { region, user } of ran) {
      expect(region).toBe((await eu.app.context.db.shardOf(user)) === 0 ? "eu" : "us");
    }
    expect((await us.report()).leaders).toEqual([
      { shard: 0, region: "eu", isSaid: false },
      { shard: 1, region: "us", isSaid: false },
    ]);
  } finally {
    await Promise.all([us, eu].map((region) => region.app.stop()));
    for (const way of Object.values(ways)) await way.close();
    for (const set of sets) await set.stop();
  }
});
