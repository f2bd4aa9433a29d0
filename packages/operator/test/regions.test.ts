/**
 * Two regions on this machine under writers: drained, evacuated as planned, lost at once, and brought back.
 *
 * What is counted: writes that were acknowledged and are not there afterwards, and for how long nobody took any.
 *
 * `REGIONS_DISTANCE_MS=80` puts them that far apart, there and back; `REGIONS_WRITERS=40` is how many write when one is lost.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { askDns } from "@rungs/contract/dns-client";
import { until } from "@rungs/contract/until";
import { openPostgres } from "rungs/database/postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RegionReport, RegionsReport, StackStatus } from "../src/stack/component.ts";
import { askChange, askRegions } from "../src/stack/control/control-client.ts";
import { patroniUser } from "../src/stack/databases/patroni-config.ts";
import { askJson } from "../src/stack/process/http-json.ts";
import type { Evacuation } from "../src/stack/regions/region-evacuation.ts";
import { rungs } from "./support/cli.ts";
import { reckon, startWriters, type Writers, whole } from "./support/failover.ts";
import { type RunningStack, stackApp, startStackApp } from "./support/stack.ts";

const distanceMs = process.env["REGIONS_DISTANCE_MS"] ?? "20";
const writersOfLoss = Number(process.env["REGIONS_WRITERS"] ?? 6);
const args = ["--rung", "5", "--regions", "eu,us", "--distance-ms", distanceMs, "--processes", "1", "--workers", "1"];
const writesAgainWithinMs = 30_000;

let stack: RunningStack;

async function regions() {
  const all = (await askRegions(stack.folder, AbortSignal.timeout(20_000))) as RegionsReport;
  const [eu, us] = all.regions as [RegionReport, RegionReport];
  return { eu, us, all };
}

/** Where a region's users reach it. */
const urlOf = ({ addresses }: RegionReport) => `http://${addresses[0]}:${stack.port}`;

async function answered(): Promise<string | undefined> {
  const { all } = await regions();
  const { answers } = await askDns(all.dns.port, { name: all.dns.names[0] as string });
  return answers[0]?.data;
}

/** Reads at one region, again and again; what was not answered by 200 is counted. */
function startReaders(url: string) {
  let isStopped = false;
  let [good, failed] = [0, 0];
  const read = async () => {
    while (!isStopped) {
      const isGood = await fetch(`${url}/read`, { signal: AbortSignal.timeout(5_000) }).then(
        async (answer) => (await answer.text()) !== "" && answer.ok,
        () => false,
      );
      if (isGood) good++;
      else failed++;
      await sleep(20);
    }
  };
  const all = [read(), read()];
  return {
    async stop() {
      isStopped = true;
      await Promise.all(all);
      return { good, failed };
    },
  };
}

/** What the commands ask of the launcher. */
function change<T>(path: string): Promise<{ readonly result: T }> {
  return askChange(stack.folder, `/regions/${path}`, { signal: AbortSignal.timeout(140_000), onProgress: () => {} });
}

/** Loses a region, and waits until another one leads and takes writes; gives when that began, and when it led. */
async function lose(name: string, other: "eu" | "us", writers: Writers) {
  const sinceMs = performance.now();
  await change(`lose?region=${name}`);
  await until(`${other} leads`, async () => (await regions())[other].leaders.includes(0), writesAgainWithinMs);
  const ledMs = performance.now();
  await until(`${other} takes writes`, async () => writesAfter(writers, ledMs) > 20, writesAgainWithinMs);
  return { sinceMs, ledMs };
}

/** The longest time without an acknowledged write after a moment. */
function longestPause({ acknowledged }: Writers, sinceMs: number): number {
  const times = [...acknowledged.values()].map(({ atMs }) => atMs).filter((atMs) => atMs > sinceMs);
  let [last, longest] = [sinceMs, 0];
  for (const atMs of times.sort((one, other) => one - other)) {
    longest = Math.max(longest, atMs - last);
    last = atMs;
  }
  return Math.round(longest);
}

const writesAfter = ({ acknowledged }: Writers, sinceMs: number) =>
  [...acknowledged.values()].filter(({ sentMs }) => sentMs > sinceMs).length;

/** Commits wait for no other server from now on: what `--replication asynchronous` says to Patroni. */
async function commitAlone(): Promise<void> {
  const { processes } = (await stack.status()) as unknown as StackStatus;
  const patroni = processes.find(({ name }) => name.includes("patroni"));
  const password = (await readFile(join(stack.folder, "secrets", "patroni-password"), "utf8")).trim();
  const { status } = await askJson({
    url: `http://127.0.0.1:${patroni?.port}/config`,
    method: "PATCH",
    body: { synchronous_mode: false },
    login: { user: patroniUser, password },
    signal: AbortSignal.timeout(10_000),
  });
  expect(status).toBe(200);
  await until("commits wait for nobody", async () => {
    const { shards } = (await stack.status()) as unknown as StackStatus;
    return (
      shards[0]?.members
        .map(({ role }) => role)
        .sort()
        .join() === "leader,replica"
    );
  });
}

/** What the surviving region has of what was acknowledged. */
async function lostOf(writers: Writers, url: string) {
  await writers.stop();
  return reckon({ ...stack, app: url }, writers);
}

describe("regions", () => {
  beforeAll(async () => {
    stack = await startStackApp(args);
    await whole(stack, 0, 60_000);
  }, 150_000);
  afterAll(async () => {
    await stack?.dispose();
  }, 60_000);

  it("are shown with who leads where, and how they are", async () => {
    await until("both are up for DNS", async () => {
      const { eu, us } = await regions();
      return eu.health === "up" && us.health === "up";
    });
    const { eu, us } = await regions();
    expect(eu).toMatchObject({ name: "eu", state: "open", leaders: [0], members: 1, sessions: "master" });
    expect(us).toMatchObject({ name: "us", state: "open", leaders: [], members: 1, sessions: "replica" });
    const { stdout, code } = await stack.run("regions");
    expect(code).toBe(0);
    expect(stdout).toMatch(/eu +\S+ +open +up +shard 0 +1 +master/);
  }, 60_000);

  it("are drained and taken back for users by their name, and never all of them", async () => {
    const { eu, us } = await regions();
    const drained = await stack.run("regions", "drain", "eu", "--json");
    expect([drained.code, drained.stderr]).toEqual([0, ""]);
    await until("users are sent to us", async () => (await answered()) === us.addresses[0], 10_000);
    // What still comes is served.
    expect((await fetch(`${urlOf(eu)}/append?id=still`, { method: "POST" })).status).toBe(200);
    const last = await stack.run("regions", "drain", "us");
    expect([last.code, last.stderr]).toEqual([4, expect.stringContaining("last region")]);
    await expect(change("evacuate?region=us&to=eu")).rejects.toMatchObject({
      code: "REGION_REFUSED",
      message: expect.stringContaining("undrain eu"),
    });
    const unknown = await stack.run("regions", "undrain", "ue", "--json");
    expect([unknown.code, JSON.parse(unknown.stderr)]).toMatchObject([3, { error: { code: "NOT_FOUND" } }]);
    expect((await stack.run("regions", "undrain", "eu")).code).toBe(0);
    await until("users are sent to eu", async () => (await answered()) === eu.addresses[0], 10_000);
  }, 60_000);

  it.each([
    ["drain?region=ue", "NOT_FOUND", 'no region "ue"'],
    ["evacuate?region=eu&to=mars", "NOT_FOUND", 'no region "mars"'],
    ["evacuate?region=eu&to=eu", "REGION_REFUSED", "the same region"],
    ["return?region=us", "REGION_REFUSED", "not lost"],
  ])("refuse %s by %s", async (path, code, message) => {
    await expect(change(path)).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  });

  it("one is evacuated under writers: nothing is lost, and the pause is told", async () => {
    const { eu, us } = await regions();
    const both = [eu, us].map((region) => startWriters(urlOf(region), 4));
    const since = performance.now();
    await until("all write", async () => both.every((writers) => writers.acknowledged.size > 20));
    const { code, stdout, stderr } = await stack.run("regions", "evacuate", "eu", "--to", "us", "--json");
    expect([code, stderr]).toEqual([0, ""]);
    const { result } = JSON.parse(stdout) as { result: Evacuation };
    const after = performance.now();
    await until("all write again", async () => both.every((writers) => writesAfter(writers, after) > 20));
    expect(result).toMatchObject({ from: "eu", to: "us", shards: [{ shard: 0 }], sessions: { from: "eu", to: "us" } });
    expect(await regions()).toMatchObject({
      eu: { state: "drained", leaders: [], sessions: "replica" },
      us: { state: "open", leaders: [0], sessions: "master" },
    });
    await until("users are sent to us", async () => (await answered()) === us.addresses[0]);
    for (const [index, writers] of both.entries()) {
      const { lost, twice, acknowledged } = await lostOf(writers, urlOf(us));
      const told = result.shards.map(({ pauseMs }) => pauseMs).join();
      process.stdout.write(
        `evacuated in ${result.tookMs} ms; at ${index === 0 ? "eu" : "us"}: ${acknowledged} acknowledged, ${lost.length} lost, ${writers.failures.length} failed, pause ${longestPause(writers, since)} ms (told: ${told} ms, sessions ${result.sessions?.pauseMs} ms)\n`,
      );
      expect([lost, twice]).toEqual([[], []]);
    }
    // Once more: there is nothing left to do.
    expect(await change("evacuate?region=eu")).toMatchObject({ result: { shards: [], sessions: null } });
    await change("undrain?region=eu");
  }, 120_000);

  it("one is lost at once: the other one reads on and takes writes soon, and nothing acknowledged is lost", async () => {
    await whole(stack, 0, 60_000);
    const { eu } = await regions();
    const writers = startWriters(urlOf(eu), writersOfLoss);
    const readers = startReaders(urlOf(eu));
    await until("all write", async () => writers.acknowledged.size > 50);
    const { sinceMs } = await lose("us", "eu", writers);
    const pauseMs = longestPause(writers, sinceMs);
    const reads = await readers.stop();
    const { lost, twice, acknowledged } = await lostOf(writers, urlOf(eu));
    process.stdout.write(
      `lost, synchronous: writes again after ${pauseMs} ms; ${acknowledged} acknowledged, ${lost.length} lost, ${writers.failures.length} failed; reads ${reads.good} good, ${reads.failed} failed\n`,
    );
    expect([lost, twice]).toEqual([[], []]);
    expect(reads.failed).toBe(0);
    expect(reads.good).toBeGreaterThan(50);
    await until("the sessions' master is in eu", async () => (await regions()).eu.sessions === "master");
    await until("DNS knows", async () => (await regions()).us.health === "down");
    expect(await regions()).toMatchObject({
      eu: { leaders: [0] },
      us: { state: "lost", members: 0, processes: 0, ready: 0, sessions: "away" },
    });
    await expect(change("lose?region=eu")).rejects.toMatchObject({ message: expect.stringContaining("last region") });
  }, 120_000);

  it("it comes back: what led there follows, and both have the same rows", async () => {
    const words = ["regions", "return", "us", "--dir", stack.folder];
    const { code, stderr } = await rungs(words, { folder: stackApp, endWithinMs: 140_000 });
    expect([code, stderr]).toEqual([0, ""]);
    expect(await regions()).toMatchObject({
      eu: { leaders: [0], sessions: "master" },
      us: { state: "open", leaders: [], members: 1, sessions: "replica" },
    });
    const { eu, us } = await regions();
    expect((await fetch(`${urlOf(us)}/append?id=after-return`, { method: "POST" })).status).toBe(200);
    const password = (await readFile(join(stack.folder, "secrets", "postgres-app-password"), "utf8")).trim();
    const members = ((await stack.status()) as unknown as StackStatus).shards[0]?.members ?? [];
    const rowsOn = async (port: number) => {
      const database = openPostgres({
        name: "test",
        address: { host: "127.0.0.1", port, user: "app", password, database: "app" },
        pool: { connectionsMax: 1 },
      });
      const sql =
        "select count(*)::int as rows, md5(string_agg(entry_id::text, ',' order by entry_id)) as sum from entries";
      return database.query<{ rows: number; sum: string }>(undefined, sql, []).finally(() => database.close());
    };
    await until("both have the same rows", async () => {
      const [one, other] = await Promise.all(members.map(({ port }) => rowsOn(port)));
      return one?.[0]?.rows !== 0 && JSON.stringify(one) === JSON.stringify(other);
    });
    await until("DNS sends to it again", async () => (await regions()).us.health === "up", 30_000);
    expect(members.map(({ timeline }) => timeline)).toEqual([members[0]?.timeline, members[0]?.timeline]);
    expect((await fetch(`${urlOf(eu)}/read`)).status).toBe(200);
  }, 180_000);

  it("in the asynchronous setting a lost region takes with it what it had acknowledged last; how much is told", async () => {
    await commitAlone();
    const { eu, us } = await regions();
    const [there, here] = [startWriters(urlOf(eu), writersOfLoss), startWriters(urlOf(us), 3)];
    await until("all write", async () => there.acknowledged.size > 50 && here.acknowledged.size > 5);
    const { sinceMs, ledMs } = await lose("eu", "us", here);
    const pauseMs = longestPause(here, sinceMs);
    const found = [await lostOf(there, urlOf(us)), await lostOf(here, urlOf(us))];
    const lost = found.flatMap((each) => each.lost);
    const acknowledged = found.reduce((sum, each) => sum + each.acknowledged, 0);
    process.stdout.write(
      `lost, asynchronous: writes again after ${pauseMs} ms; ${acknowledged} acknowledged, ${lost.length} lost\n`,
    );
    expect(found.flatMap(({ twice }) => twice)).toEqual([]);
    const all = new Map([...there.acknowledged, ...here.acknowledged]);
    expect(lost.filter((id) => (all.get(id)?.atMs ?? 0) > ledMs)).toEqual([]);
  }, 120_000);
});
