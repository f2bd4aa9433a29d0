/** What people see while the Redis of their sessions is gone, frozen, or back; and that any process serves any of them. */
import { randomUUID } from "node:crypto";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Person, type RedisSite, startRedisSite } from "./redis-site.ts";

let server: TestRedis;
let site: RedisSite;
beforeAll(async () => {
  server = await startTestRedis({ settings: { appendonly: "yes", appendfsync: "everysec" } });
  site = await startRedisSite({ url: server.url, count: 2 });
});
afterAll(async () => {
  await site?.stop();
  await server?.stop();
});

async function signedIn(user = randomUUID()): Promise<Person> {
  const person = site.person();
  expect((await person.post("/sign-in", { user })).status).toBe(200);
  return person;
}

/** The person is served, and so would they be by every other process. */
async function works(person: Person): Promise<void> {
  for (const { address } of site.processes) {
    const check = async () => (await fetch(`${address}/readyz`)).status === 200;
    await until("the process is ready again", check, 10_000);
  }
  await until("the session works again", async () => (await person.get("/me")).status === 200, 10_000);
}

describe("a site of two processes with sessions in Redis", () => {
  it("knows a person in whichever process they land, and forgets them in both", async () => {
    const person = await signedIn();
    for (let turn = 0; turn < 4; turn++) expect((await person.get("/me")).status).toBe(200);
    const cookie = person.cookie();
    expect((await person.post("/sign-out")).status).toBe(200);
    for (let turn = 0; turn < 2; turn++) expect((await person.get("/me")).status).toBe(401);
    expect(cookie).not.toBe(person.cookie());
  });

  it("loses no change that requests in both make to one session at once", async () => {
    const person = await signedIn();
    const names = Array.from({ length: 20 }, (_, index) => `field${index}`);
    await Promise.all(names.map((name) => person.post("/data", { [name]: "set" })));
    expect(Object.keys(JSON.parse((await person.get("/data")).text)).sort()).toEqual([...names].sort());
  });

  it("counts failed sign-ins in both together", async () => {
    const account = `${randomUUID()}@example.com`;
    const person = site.person();
    const verdicts = await Promise.all(Array.from({ length: 14 }, () => person.post("/guess", { account })));
    expect(verdicts.filter(({ text }) => JSON.parse(text).isAllowed)).toHaveLength(10);
  });

  it("brings a live message of one to the streams of the other", async () => {
    const heard: string[] = [];
    const [, other] = site.processes;
    const stream = await other?.context.live.open({ topics: ["room"], owner: "ann" });
    stream?.start({ write: (text) => heard.push(text) > 0, waitingBytes: () => 0, end() {}, cut() {} });
    await site.person({ process: 0 }).post("/tell", { topic: "room" });
    await expect.poll(() => heard.join("")).toContain("event: told");
    stream?.closed();
  });
});

describe("while Redis is gone", () => {
  it("answers 503 with Retry-After in bounded time, keeps the cookie, serves pages without a session, and says it is not ready", async () => {
    const person = await signedIn();
    await server.kill();
    const answers = await Promise.all(Array.from({ length: 20 }, () => person.get("/me")));
    for (const { status, retryAfter, setsCookie, ms } of answers) {
      expect(status).toBe(503);
      expect(Number(retryAfter)).toBeGreaterThan(0);
      expect(setsCookie).toBe(false);
      expect(ms).toBeLessThan(2_000);
    }
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    const later = await person.get("/me");
    expect([later.status, later.ms < 200]).toEqual([503, true]);
    expect((await person.post("/sign-out")).status).toBe(503);
    expect((await person.get("/")).status).toBe(200);
    expect((await person.get("/healthz")).status).toBe(200);
    expect((await person.get("/readyz")).text).toBe('{"status":"not ready","failing":["redis"]}');
    await server.restart();
    const since = performance.now();
    await works(person);
    expect(performance.now() - since).toBeLessThan(3_000);
  });

  it("keeps sessions over a crash of Redis, for they are in its append-only file", async () => {
    const people = await Promise.all(Array.from({ length: 20 }, () => signedIn()));
    await until("the file is written", async () =>
      (await server.cli("info", "persistence")).includes("aof_pending_bio_fsync:0"),
    );
    // "everysec": what is older than that is on disk, and what is younger with the kernel, which did not crash.
    await server.restart();
    for (const person of people) await works(person);
  });
});

describe("while Redis is frozen", () => {
  it("answers 503 within bounds, also under many requests, and goes on when it thaws", async () => {
    const person = await signedIn();
    server.freeze(true);
    try {
      const since = performance.now();
      const answers = await Promise.all(Array.from({ length: 200 }, () => person.get("/me")));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([503]));
      expect(Math.max(...answers.map(({ ms }) => ms))).toBeLessThan(3_000);
      await until("it fails fast", async () => (await person.get("/me")).ms < 200);
      expect(performance.now() - since).toBeLessThan(6_000);
      expect((await person.get("/")).status).toBe(200);
    } finally {
      server.freeze(false);
    }
    const since = performance.now();
    await works(person);
    expect(performance.now() - since).toBeLessThan(3_000);
  });
});

describe("a site that climbs from sessions in its database to Redis", () => {
  it("keeps all who are signed in, and their data, and lets them end their sessions", async () => {
    const climbing = await startRedisSite({ url: undefined });
    const people = Array.from({ length: 8 }, () => climbing.person());
    const users = people.map(() => randomUUID());
    for (const [index, person] of people.entries()) {
      expect((await person.post("/sign-in", { user: users[index] })).status).toBe(200);
      await person.post("/data", { theme: "dark" });
    }
    await climbing.restart(server.url);
    for (const [index, person] of people.entries()) {
      const answers = await Promise.all([person.get("/me"), person.get("/data"), person.get("/me")]);
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
      expect(JSON.parse(answers[0].text).user).toBe(users[index]);
      expect(JSON.parse(answers[1].text)).toEqual({ theme: "dark" });
    }
    const [first] = people as [Person];
    const cookie = first.cookie();
    expect((await first.post("/sign-out")).status).toBe(200);
    await climbing.restart(server.url);
    const address = climbing.processes[0]?.address;
    expect((await fetch(`${address}/me`, { headers: { cookie } })).status).toBe(401);
    expect((await (people[1] as Person).get("/me")).status).toBe(200);
    await climbing.stop();
  });
});
