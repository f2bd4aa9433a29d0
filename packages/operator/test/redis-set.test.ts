/** The sessions' Redis of three regions on real servers and Sentinels: who is the master, planned and unplanned, and what is lost. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "@rungs/contract/until";
import { openRedis } from "rungs/redis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findProgram } from "../src/stack/process/find-program.ts";
import { choosePorts } from "../src/stack/process/ports.ts";
import { askRedis } from "../src/stack/redis/redis-ask.ts";
import { type RedisSet, redisSet, redisSetPorts } from "../src/stack/redis/redis-set.ts";
import { startAll, stopAll } from "../src/stack/start-order.ts";

const regions = ["eu", "us", "ap"];
const password = "redis-secret";
const patience = (ms = 40_000) => AbortSignal.timeout(ms);

let folder: string;
let ports: Record<string, number>;
let set: RedisSet;

function make(): RedisSet {
  const program = findProgram("redis-server", process.env);
  if (program === undefined) throw new Error("redis-server is not installed: apt-get install redis-server");
  return redisSet({
    ...{ program, folder, regions, ports, password },
    logFolder: join(folder, "logs"),
    sentinelPassword: "sentinel-secret",
  });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-redis-set-"));
  await mkdir(join(folder, "logs"));
  ports = await choosePorts(redisSetPorts(regions), {});
  set = make();
  await startAll(set.components, { signal: patience() });
}, 60_000);
afterAll(async () => {
  await stopAll(set?.components ?? []);
  await rm(folder, { recursive: true, force: true });
}, 40_000);

const part = (name: string) => {
  const found = set.components.find((component) => component.name === name);
  if (found === undefined) throw new Error(`There is no ${name}.`);
  return found;
};
const pidOf = (name: string) => part(name).processes()[0]?.pid as number;
const roles = async () => (await set.report(patience())).map(({ role }) => role);
const loginOf = (region: string) => ({ port: ports[`${region}-redis`] as number, password });

/** Writes number after number, as the processes of a region do, and keeps which were acknowledged. */
async function startWriter() {
  const redis = await openRedis({ url: set.urlFor("us") });
  const acknowledged: number[] = [];
  let failed = 0;
  let isStopped = false;
  const running = (async () => {
    for (let number = 0; !isStopped; number++) {
      await redis.command("numbers", ["SADD", "numbers", String(number)], { isRepeatable: true }).then(
        () => acknowledged.push(number),
        () => failed++,
      );
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();
  return {
    acknowledged,
    async stop(region: string) {
      isStopped = true;
      await running;
      await redis.close();
      const [reply] = await askRedis(loginOf(region), [["SMEMBERS", "numbers"]], patience());
      const there = new Set((Array.isArray(reply) ? reply : []).map(Number));
      return { failed, lost: acknowledged.filter((number) => !there.has(number)).length };
    },
  };
}

describe("the Redis of several regions", () => {
  it("starts a server and a Sentinel a region; the first is the master", async () => {
    expect(set.components.map(({ name, region }) => [name, region])).toEqual(
      ["redis", "sentinel"].flatMap((kind) => regions.map((region) => [`${region}-${kind}`, region])),
    );
    expect(await roles()).toEqual(["master", "replica", "replica"]);
    expect(await set.masterRegion(patience())).toBe("eu");
    await expect(askRedis({ ...loginOf("eu"), password: "wrong" }, [["PING"]], patience())).rejects.toThrow(
      "WRONGPASS",
    );
  });

  it("of two regions a witness makes three Sentinels", () => {
    expect(redisSetPorts(["eu", "us"]).slice(2)).toEqual(["eu-sentinel", "us-sentinel", "witness-sentinel-1"]);
  });

  it("a region's own server answers with what was written at the master", async () => {
    const master = await openRedis({ url: set.urlFor("us") });
    const own = await openRedis({ url: set.replicaUrlFor("us") });
    await master.command("word", ["SET", "word", "hello"]);
    await until("the copy has it", async () => (await own.command("word", ["GET", "word"])) === "hello");
    await Promise.all([master.close(), own.close()]);
  });

  it("the master moves as planned under a writer, and not one write is lost", async () => {
    const writer = await startWriter();
    await until("it writes", async () => writer.acknowledged.length > 50);
    // Not the one that Sentinels would choose by themselves.
    const moved = await set.moveTo("us", patience());
    const count = writer.acknowledged.length;
    await until("it writes on", async () => writer.acknowledged.length > count + 50);
    const { lost, failed } = await writer.stop("us");
    console.info(
      `planned: writes waited ${moved?.pauseMs} ms; ${writer.acknowledged.length} acknowledged, ${lost} lost, ${failed} failed`,
    );
    expect(moved).toMatchObject({ from: "eu", to: "us" });
    expect(lost).toBe(0);
    await until("the old one copies", async () => (await roles()).join() === "replica,master,replica");
    expect(await set.moveTo("us", patience())).toBeUndefined();
  }, 60_000);

  it("a new start of everything keeps the master that was chosen last", async () => {
    expect(await set.masterRegion(patience())).toBe("us");
    await stopAll(set.components);
    set = make();
    await startAll(set.components, { signal: patience() });
    expect(await set.masterRegion(patience())).toBe("us");
    expect(await roles()).toEqual(["replica", "master", "replica"]);
    const [reply] = await askRedis(loginOf("eu"), [["GET", "word"]], patience());
    expect(reply).toBe("hello");
  }, 90_000);

  it("the region of the master is lost: another one takes over, and the old one comes back as a replica", async () => {
    const writer = await startWriter();
    await until("it writes", async () => writer.acknowledged.length > 50);
    const since = performance.now();
    await Promise.all([part("us-redis").lose?.(), part("us-sentinel").lose?.()]);
    const master = async () => (await set.masterRegion(patience())) ?? "";
    await until("another one is the master", async () => (await master()) !== "us", 30_000);
    const count = writer.acknowledged.length;
    await until("it writes on", async () => writer.acknowledged.length > count + 10, 30_000);
    const againMs = Math.round(performance.now() - since);
    expect((await roles())[1]).toBe("away");
    expect(part("us-redis").processes()).toEqual([]);
    await part("us-redis").start(patience());
    await part("us-sentinel").start(patience());
    // At once: a former master that said otherwise would take writes.
    expect((await roles()).sort()).toEqual(["master", "replica", "replica"]);
    expect((await roles())[1]).toBe("replica");
    const { lost, failed } = await writer.stop(await master());
    console.info(
      `lost region: writes again after ${againMs} ms; ${writer.acknowledged.length} acknowledged, ${lost} lost, ${failed} failed`,
    );
  }, 90_000);

  it("a server that crashes comes back, as a replica when another one was chosen meanwhile", async () => {
    const name = `${await set.masterRegion(patience())}-redis`;
    const pid = pidOf(name);
    process.kill(pid, "SIGKILL");
    await until("it runs again", async () => {
      const { pid: now } = part(name).processes()[0] ?? {};
      return now !== undefined && now !== pid;
    });
    await until("there is one master", async () => (await roles()).sort().join() === "master,replica,replica", 30_000);
    const [reply] = await askRedis(loginOf((await set.masterRegion(patience())) ?? ""), [["GET", "word"]], patience());
    expect(reply).toBe("hello");
  }, 60_000);
});
