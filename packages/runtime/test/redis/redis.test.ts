import { startTestCluster, startTestRedis, startTestSentinels, type TestRedis } from "@rungs/contract/test-redis";
import { until } from "@rungs/contract/until";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { RedisLink } from "../../src/redis/redis-link.ts";
import { redisScript } from "../../src/redis/redis-script.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function serve(options?: Parameters<typeof startTestRedis>[0]): Promise<TestRedis> {
  const server = await startTestRedis(options);
  ends.push(server.stop);
  return server;
}

async function open(options: Parameters<typeof openRedis>[0]): Promise<Redis> {
  const redis = await openRedis(options);
  ends.push(() => redis.close());
  return redis;
}

describe("opening a way to Redis", () => {
  it("says at once that a login is refused, and repeats none of it", async () => {
    const server = await serve({ settings: { requirepass: "right" }, cliFlags: ["-a", "right", "--no-auth-warning"] });
    const since = performance.now();
    for (const login of ["", ":hunter2@", "nobody:hunter2@"]) {
      const opening = openRedis({ url: `redis://${login}127.0.0.1:${server.port}` });
      await expect(opening).rejects.toMatchObject({
        code: "CONFIG_INVALID",
        message: expect.not.stringContaining("hunter2"),
      });
    }
    expect(performance.now() - since).toBeLessThan(5_000);
  });

  it("waits for a server that is still to come, and gives up in time when none does", async () => {
    const server = await serve();
    await server.kill();
    const failing = openRedis({ url: server.url, openMs: 300 });
    await expect(failing).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
    const opening = open({ url: server.url });
    await server.restart();
    await (await opening).check();
  });
});

describe("a command", () => {
  it("is sent once more when it is repeatable and the connection breaks under it, and else fails", async () => {
    const server = await serve();
    const redis = await open({ url: server.url });
    const breakOff = () => server.cli("client", "kill", "type", "normal", "skipme", "yes");
    const slow = redisScript("local t = redis.call('INCR', KEYS[1]) return t");
    await redis.run(slow, ["n"], []);
    await server.cli("client", "pause", "400", "all");
    const asked = redis.command("n", ["GET", "n"], { isRepeatable: true });
    const counted = redis.run(slow, ["n"], []);
    counted.catch(() => {});
    await until("they wait", async () => (await redis.stats()).commands >= 3);
    await breakOff();
    expect(Number(await asked)).toBeGreaterThanOrEqual(1);
    await expect(counted).rejects.toMatchObject({ code: "REDIS_UNREACHABLE", canRetry: false });
  });

  it("raises the server's own error for a mistake, and goes on", async () => {
    const redis = await open({ url: (await serve()).url });
    await redis.command("a", ["SET", "a", "text"]);
    await expect(redis.command("a", ["HGET", "a", "b"])).rejects.toThrow("WRONGTYPE");
    expect(await redis.command("a", ["GET", "a"])).toBe("text");
    expect(redis.stats()).toMatchObject({ retries: 0, failures: 0, connections: 1 });
  });

  it("finds out by a refused write that its server is a replica now, and connects anew", async () => {
    const server = await serve();
    const redis = await open({ url: server.url, commandMs: 300 });
    await server.cli("replicaof", "127.0.0.1", "1");
    await expect(redis.command("a", ["SET", "a", "1"])).rejects.toMatchObject({
      code: "REDIS_UNREACHABLE",
      canRetry: true,
    });
    expect(redis.stats().connections).toBeGreaterThan(1);
    await server.cli("replicaof", "no", "one");
    await until("it is a master again", async () => (await redis.command("a", ["SET", "a", "1"])) === "OK");
  });

  it("is refused as unavailable, not as a mistake, by a server without memory to spare", async () => {
    const redis = await open({
      url: (await serve({ settings: { maxmemory: "200kb", "maxmemory-policy": "noeviction" } })).url,
    });
    await expect(redis.command("a", ["SET", "a", "x".repeat(10)])).rejects.toMatchObject({
      code: "REDIS_UNREACHABLE",
      canRetry: true,
    });
  });

  it("is not missed when its reply came while this process was busy for longer than its deadline", async () => {
    const redis = await open({ url: (await serve()).url, commandMs: 300 });
    await redis.command("a", ["SET", "a", "here"]);
    const asked = redis.command("a", ["GET", "a"]);
    // Sent once this task yields; the answer then waits in the socket.
    await new Promise((resolve) => setImmediate(resolve));
    const until = performance.now() + 500;
    while (performance.now() < until);
    expect(await asked).toBe("here");
    expect(redis.stats()).toMatchObject({ failures: 0, connections: 1 });
  });

  it("waits behind what must precede the use of each new connection", async () => {
    const server = await serve();
    const redis = await open({ url: server.url });
    const order: string[] = [];
    await redis.beforeUse(async () => {
      await redis.command("a", ["GET", "a"], { isAhead: true });
      await new Promise((resolve) => setTimeout(resolve, 100));
      order.push("before");
    });
    await server.restart();
    await until("it answers", async () => {
      await redis.command("a", ["GET", "a"], { isRepeatable: true });
      order.push("command");
      return true;
    });
    expect(order).toEqual(["before", "before", "command"]);
  });

  it("fails while what must precede it fails, and works once that does", async () => {
    const server = await serve();
    const redis = await open({ url: server.url, commandMs: 300 });
    let isBroken = false;
    await redis.beforeUse(async () => {
      if (isBroken) throw new Error("the database is away");
    });
    isBroken = true;
    await server.restart();
    for (let turn = 0; turn < 5; turn++) {
      await expect(redis.command("a", ["GET", "a"])).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
    }
    isBroken = false;
    await until("it works", async () => (await redis.command("a", ["GET", "a"])) === null);
  });
});

describe("a link", () => {
  it("leaves a server that answers still, when another has taken over", async () => {
    const servers = [await serve(), await serve()] as const;
    let current = 0;
    const link = new RedisLink({
      name: "Redis",
      canMove: true,
      find: async () => ({ host: "127.0.0.1", port: (servers[current] as TestRedis).port }),
      ...{ login: {}, tls: undefined, database: 0 },
      times: { commandMs: 500, connectMs: 500, pingMs: 50 },
      log: { debug() {}, info() {}, warn() {}, error() {} },
      clock: systemClock,
      random: systemRandom,
    });
    ends.push(() => link.close());
    await link.opened(performance.now() + 1_000);
    current = 1;
    await expect.poll(() => link.node?.port).toBe(servers[1].port);
    await link.opened(performance.now() + 1_000);
  });
});

describe("a Cluster", () => {
  it("is used on while one master is frozen, and follows slots that move", { timeout: 60_000 }, async () => {
    const cluster = await startTestCluster({ replicas: 1 });
    ends.push(cluster.stop);
    const redis = await open({ url: cluster.url, commandMs: 500 });
    const keys = Array.from({ length: 60 }, (_, index) => `key${index}`);
    const setAll = () =>
      Promise.allSettled(keys.map((key) => redis.command(key, ["SET", key, "1"], { isRepeatable: true })));
    const counted = async () => (await setAll()).filter(({ status }) => status === "fulfilled").length;
    expect(await counted()).toBe(60);
    const frozen = cluster.servers[1] as TestRedis;
    frozen.freeze(true);
    const during = await counted();
    expect(during).toBeGreaterThan(25);
    expect(during).toBeLessThan(60);
    await until("the replica serves its slots", async () => (await counted()) === 60);
    frozen.freeze(false);
    await until("the frozen one is a replica", async () =>
      (await frozen.cli("info", "replication")).includes("role:slave"),
    );
    expect(await counted()).toBe(60);
    // A slot is moved as `redis-cli --cluster reshard` does it; the key answers ASK in between, and MOVED after.
    const slots = await (cluster.servers[0] as TestRedis).cli("cluster", "nodes");
    const masters = slots.split("\n").filter((line) => line.includes("master") && !line.includes("fail"));
    const [slot, key] = [12182, "foo"];
    const idOf = (line: string) => line.split(" ", 1)[0] as string;
    const portOf = (line: string) => Number(/:(\d+)@/.exec(line)?.[1]);
    const has = (line: string) =>
      line
        .split(" ")
        .slice(8)
        .some((range) => {
          const [from, to = from] = range.split("-").map(Number) as [number, number?];
          return from <= slot && slot <= (to ?? from);
        });
    const source = masters.find(has) as string;
    const target = masters.find((line) => !has(line)) as string;
    const at = (line: string) => cluster.servers.find(({ port }) => port === portOf(line)) as TestRedis;
    await redis.command(key, ["SET", key, "before"]);
    await at(target).cli("cluster", "setslot", String(slot), "importing", idOf(source));
    await at(source).cli("cluster", "setslot", String(slot), "migrating", idOf(target));
    await at(source).cli("migrate", "127.0.0.1", String(portOf(target)), key, "0", "5000");
    expect(await redis.command(key, ["GET", key])).toBe("before");
    for (const line of [target, source]) await at(line).cli("cluster", "setslot", String(slot), "node", idOf(target));
    expect(await redis.command(key, ["SET", key, "after"])).toBe("OK");
    // Which node owns the slot in the end is the nodes' own affair: after the fail-over their gossip may still disagree.
    expect(await redis.command(key, ["GET", key])).toBe("after");
  });
});

describe("Sentinels", () => {
  it("are asked in turn: a dead and a frozen one hold nothing up for long", { timeout: 60_000 }, async () => {
    const sentinels = await startTestSentinels({ password: "p@ss" });
    ends.push(sentinels.stop);
    const [first, second] = sentinels.sentinels as [TestRedis, TestRedis];
    await first.kill();
    second.freeze(true);
    const since = performance.now();
    const url = `${sentinels.url.replace("://", "://:p%40ss@")}?sentinelPassword=sentinel%20p%40ss`;
    const redis = await open({ url, connectMs: 500 });
    await redis.check();
    expect(performance.now() - since).toBeLessThan(2_500);
    second.freeze(false);
  });
});
