import { startTestCluster, startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { openRedis, type Redis } from "../../src/redis/redis.ts";
import { addressGroup } from "../../src/web/client-address.ts";
import { type FastifyRateLimitOptions, fastifyRateLimit } from "../../src/web/drivers/fastify-rate-limit.ts";
import { localRateLimitStore } from "../../src/web/drivers/local-rate-limit-store.ts";
import { redisRateLimitStore } from "../../src/web/drivers/redis-rate-limit-store.ts";
import { describeError } from "../../src/web/error-answer.ts";
import { judgeRate, type RateLimitStore, rateLimit } from "../../src/web/rate-limit.ts";

/** Every second one, with three at once. */
const slow = rateLimit({ name: "slow", perMinute: 60, burst: 3 });

describe("a rate limit", () => {
  it("lets a burst through, then one an interval, and says when to come back", () => {
    let arrivalMs: number | undefined;
    const ask = (now: number) => {
      const judged = judgeRate(arrivalMs, { limit: slow, now });
      arrivalMs = judged.arrivalMs;
      return judged.verdict;
    };
    expect([0, 0, 0, 0].map((now) => ask(now).isAllowed)).toEqual([true, true, true, false]);
    expect(ask(250)).toEqual({ isAllowed: false, remaining: 0, retryAfterMs: 750, resetMs: 2_750 });
    expect(ask(1_000).isAllowed).toBe(true);
    expect(ask(1_000).isAllowed).toBe(false);
    expect(ask(60_000)).toMatchObject({ isAllowed: true, remaining: 2 });
  });

  it("never lets more through than rate and burst allow, in any stretch of any traffic, and always what they allow", () => {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = seededRandom(seed);
    for (let round = 0; round < 200; round++) {
      const limit = rateLimit({
        name: "x",
        perMinute: 1 + random.next() * 6_000,
        burst: 1 + Math.floor(random.next() * 50),
      });
      const intervalMs = 60_000 / limit.perMinute;
      let arrivalMs: number | undefined;
      let now = 0;
      const passed: number[] = [];
      for (let index = 0; index < 300; index++) {
        now += random.next() < 0.5 ? 0 : random.next() * intervalMs * 3;
        const judged = judgeRate(arrivalMs, { limit, now });
        arrivalMs = judged.arrivalMs;
        if (judged.verdict.isAllowed) passed.push(now);
        const wait = judged.verdict.retryAfterMs;
        if (wait > 0)
          expect(judgeRate(arrivalMs, { limit, now: now + wait + 1e-6 }).verdict.isAllowed, `seed ${seed}`).toBe(true);
      }
      let excessMax = Number.NEGATIVE_INFINITY;
      for (let from = 0; from < passed.length; from++) {
        for (let to = from; to < passed.length; to++) {
          const spanMs = (passed[to] as number) - (passed[from] as number);
          excessMax = Math.max(excessMax, to - from + 1 - limit.burst - spanMs / intervalMs);
        }
      }
      expect(excessMax, `seed ${seed}`).toBeLessThan(0.01);
    }
  });
});

describe("what one subscriber has", () => {
  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0DB8:1:2::9", "2001:db8:1:2::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ])("%s is %s", (address, group) => {
    expect(addressGroup(address)).toBe(group);
  });
});

/** What every store does, over whatever it keeps. */
function storeSuite(
  name: string,
  open: () => Promise<{ stores: RateLimitStore[]; isAllOrNothing: boolean; close(): Promise<void> }>,
) {
  describe(`a store of limits: ${name}`, () => {
    let opened: Awaited<ReturnType<typeof open>>;
    beforeAll(async () => {
      opened = await open();
    });
    afterAll(() => opened?.close());
    // So slow that no interval passes while a test runs.
    const limit = rateLimit({ name: "hourly", perMinute: 1 / 60, burst: 5 });

    it("lets exactly the burst through however many ask at once, in every process", async () => {
      const verdicts = await Promise.all(
        Array.from({ length: 40 }, (_, index) =>
          (opened.stores[index % opened.stores.length] as RateLimitStore).take([{ limit, key: "crowd" }]),
        ),
      );
      const allowed = verdicts.flat().filter(({ isAllowed }) => isAllowed);
      expect(allowed.map(({ remaining }) => remaining).sort()).toEqual([0, 1, 2, 3, 4]);
      const refused = verdicts.flat().filter(({ isAllowed }) => !isAllowed);
      expect(refused).toHaveLength(35);
      for (const { retryAfterMs } of refused) expect(retryAfterMs).toBeGreaterThan(3_590_000);
    });

    it("keeps limits and keys apart", async () => {
      const store = opened.stores[0] as RateLimitStore;
      const one = rateLimit({ name: "one", perMinute: 1 / 60, burst: 1 });
      const other = { ...one, name: "other" };
      expect((await store.take([{ limit: one, key: "a" }]))[0]?.isAllowed).toBe(true);
      expect((await store.take([{ limit: one, key: "b" }]))[0]?.isAllowed).toBe(true);
      expect((await store.take([{ limit: other, key: "a" }]))[0]?.isAllowed).toBe(true);
      expect((await store.take([{ limit: one, key: "a" }]))[0]?.isAllowed).toBe(false);
    });

    it("takes from no limit when one refuses, where it can judge them in one step", async () => {
      if (!opened.isAllOrNothing) return expect(opened.isAllOrNothing).toBe(false);
      const store = opened.stores[0] as RateLimitStore;
      const narrow = rateLimit({ name: "narrow", perMinute: 1 / 60, burst: 1 });
      const both = [
        { limit, key: "pair" },
        { limit: narrow, key: "pair" },
      ];
      expect((await store.take(both)).map(({ isAllowed }) => isAllowed)).toEqual([true, true]);
      expect((await store.take(both)).map(({ isAllowed }) => isAllowed)).toEqual([true, false]);
      expect((await store.take([{ limit, key: "pair" }]))[0]?.remaining).toBe(3);
    });

    it("gives back what was used as time passes", async () => {
      const store = opened.stores[0] as RateLimitStore;
      const quick = rateLimit({ name: "quick", perMinute: 6_000, burst: 1 });
      expect((await store.take([{ limit: quick, key: "a" }]))[0]?.isAllowed).toBe(true);
      await expect.poll(async () => (await store.take([{ limit: quick, key: "a" }]))[0]?.isAllowed).toBe(true);
    });
  });
}

storeSuite("in the process's memory", async () => ({
  stores: [localRateLimitStore()],
  isAllOrNothing: true,
  close: async () => {},
}));

const overRedis = (
  name: string,
  isAllOrNothing: boolean,
  start: () => Promise<{ readonly url: string; stop(): Promise<void> }>,
) =>
  storeSuite(name, async () => {
    const server = await start();
    const ways = await Promise.all([openRedis({ url: server.url }), openRedis({ url: server.url })]);
    return {
      stores: ways.map((redis) => redisRateLimitStore({ redis })),
      isAllOrNothing,
      async close() {
        await Promise.all(ways.map((redis) => redis.close()));
        await server.stop();
      },
    };
  });
overRedis("Redis, two processes", true, startTestRedis);
overRedis("Redis Cluster, two processes", false, startTestCluster);

describe("limits on Fastify", () => {
  let app: FastifyInstance | undefined;
  afterEach(() => app?.close());

  function serve(options: Partial<FastifyRateLimitOptions>) {
    app = Fastify({ trustProxy: true });
    app.setErrorHandler((error, _request, reply) => {
      const { status, errors, retryAfterSeconds } = describeError(error);
      if (retryAfterSeconds !== undefined) reply.header("retry-after", retryAfterSeconds);
      return reply.code(status).send({ errors });
    });
    const limits = fastifyRateLimit(app, { store: localRateLimitStore(), ...options });
    app.get("/", async () => "home");
    app.get("/healthz", async () => "alive");
    app.get("/free", { config: { rateLimit: "off" } }, async () => "free");
    app.post("/sign-up", { config: { rateLimit: { perMinute: 1, burst: 2 } } }, async () => "made");
    const ask = (url: string, from = "192.0.2.1", user?: string) =>
      (app as FastifyInstance).inject({
        method: url === "/sign-up" ? "POST" : "GET",
        url,
        headers: { "x-forwarded-for": from, ...(user === undefined ? {} : { "x-user": user }) },
      });
    return { limits, ask };
  }
  const userOf: FastifyRateLimitOptions["userOf"] = async (request) => request.headers["x-user"] as string | undefined;
  const hourly = (name: string, burst: number) => rateLimit({ name, perMinute: 1 / 60, burst });

  it("answer 429 with Retry-After by address, and say in headers what is left", async () => {
    const { ask, limits } = serve({ address: hourly("address", 2) });
    const answers = [await ask("/"), await ask("/"), await ask("/")];
    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 429]);
    expect(answers[0]?.headers["ratelimit"]).toBe('"address";r=1;t=3600');
    expect(answers[0]?.headers["ratelimit-policy"]).toBe('"address";q=2;w=7200');
    expect(Number(answers[2]?.headers["retry-after"])).toBeGreaterThan(3_590);
    expect(answers[2]?.headers["ratelimit"]).toMatch(/^"address";r=0;t=3\d{3}$/);
    expect((await ask("/", "192.0.2.2")).statusCode).toBe(200);
    expect(limits.stats()).toEqual({ allowed: 3, refused: 1, fallbacks: 0 });
  });

  it("leave health checks and routes that say so alone", async () => {
    const { ask } = serve({ address: hourly("address", 1) });
    await ask("/");
    for (const url of ["/healthz", "/free"]) expect((await ask(url)).statusCode).toBe(200);
    expect((await ask("/")).statusCode).toBe(429);
  });

  it("count a user wherever they come from, and do not ask who it is once the address is refused", async () => {
    let asked = 0;
    const { ask } = serve({
      address: hourly("address", 3),
      user: hourly("user", 2),
      userOf: (request) => {
        asked++;
        return userOf(request);
      },
    });
    expect((await ask("/", "192.0.2.1", "ann")).statusCode).toBe(200);
    expect((await ask("/", "192.0.2.2", "ann")).statusCode).toBe(200);
    expect((await ask("/", "192.0.2.3", "ann")).statusCode).toBe(429);
    expect((await ask("/", "192.0.2.3", "bob")).statusCode).toBe(200);
    expect((await ask("/", "192.0.2.3")).statusCode).toBe(200);
    expect(asked).toBe(5);
    expect((await ask("/", "192.0.2.3")).statusCode).toBe(429);
    expect(asked).toBe(5);
  });

  it("count addresses that lead nowhere, and HEAD with GET", async () => {
    const { ask } = serve({ address: hourly("address", 2) });
    expect((await ask("/nowhere")).statusCode).toBe(404);
    expect(
      (await (app as FastifyInstance).inject({ method: "HEAD", url: "/", headers: { "x-forwarded-for": "192.0.2.1" } }))
        .statusCode,
    ).toBe(200);
    expect((await ask("/nowhere")).statusCode).toBe(429);
  });

  it("let a request through whose user cannot be told now", async () => {
    const userOf = () => Promise.reject(new Error("the session store is away"));
    const { ask } = serve({ user: hourly("user", 1), userOf });
    for (let turn = 0; turn < 3; turn++) expect((await ask("/")).statusCode).toBe(200);
  });

  it("hold a route to its own limit beside the others", async () => {
    const { ask } = serve({});
    const statuses = [await ask("/sign-up"), await ask("/sign-up"), await ask("/sign-up"), await ask("/")];
    expect(statuses.map(({ statusCode }) => statusCode)).toEqual([200, 200, 429, 200]);
    expect(statuses[0]?.headers["ratelimit-policy"]).toBe('"post-sign-up";q=2;w=120');
  });

  describe("with a store that fails", () => {
    let server: TestRedis;
    let redis: Redis;
    beforeAll(async () => {
      server = await startTestRedis();
      redis = await openRedis({ url: server.url, commandMs: 200 });
    });
    afterAll(async () => {
      await redis?.close();
      await server?.stop();
    });

    it("serve on, by this process's own count", async () => {
      const { ask, limits } = serve({ store: redisRateLimitStore({ redis }), address: hourly("address", 2) });
      expect((await ask("/")).statusCode).toBe(200);
      await server.kill();
      const since = performance.now();
      const statuses = [await ask("/"), await ask("/"), await ask("/")].map(({ statusCode }) => statusCode);
      expect(statuses).toEqual([200, 200, 429]);
      expect(performance.now() - since).toBeLessThan(1_500);
      expect(limits.stats().fallbacks).toBe(3);
    });
  });
});
