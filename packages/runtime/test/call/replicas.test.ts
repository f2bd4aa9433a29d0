/**
 * The session guarantees through calls: two groups of processes over a leader and a follower that shows nothing new, so that whatever a
 * follower answers here is old.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestRedis, type TestRedis } from "@rungs/contract/test-redis";
import { startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { type RunningApp, startApp } from "../../src/app/app.ts";
import { defineApp, defineService, type ServiceContext } from "../../src/app/service.ts";
import { defineMethod, serve } from "../../src/call/index.ts";
import { env, resolveTopology, type TopologyInput } from "../../src/topology/index.ts";
import { until } from "./support/call-site.ts";

interface Tables {
  counts: { owner_id: string; value: number };
}
type Context = ServiceContext<Tables>;

const ownerId = "018f3c1e-7b7a-7cc2-9f43-5a1f7f0f4a11";
const output = z.object({ value: z.int() });
const counters = {
  read: defineMethod("counters.read", { input: z.object({}), output, isSafe: true }),
  readCached: defineMethod("counters.read_cached", { input: z.object({}), output, isSafe: true }),
  readToDecide: defineMethod("counters.read_to_decide", { input: z.object({}), output }),
  bump: defineMethod("counters.bump", { input: z.object({ tags: z.array(z.string()).default([]) }), output }),
};

const read = async ({ db }: Context) => {
  const query = db.for(ownerId).selectFrom("counts").select("value").where("owner_id", "=", ownerId);
  return { value: (await query.executeTakeFirst())?.value ?? 0 };
};
/** Without an invalidation nobody but the session has to see it: with one, all processes read from the leader until the follower has it. */
const bump = ({ db }: Context, ...tags: readonly string[]) =>
  db.for(ownerId).transaction(async (tx) => {
    if (tags.length > 0) tx.invalidate(...tags);
    return tx
      .insertInto("counts")
      .values({ owner_id: ownerId, value: 1 })
      .onConflict((on) => on.column("owner_id").doUpdateSet((eb) => ({ value: eb("counts.value", "+", 1) })))
      .returning("value")
      .executeTakeFirstOrThrow();
  });
const readCached = (context: Context) =>
  context.cache.read("count", { ttlMs: 60_000, tags: ["count"] }, () => read(context));

const service = defineService<Tables>("counters", {
  tables: { counts: { shardBy: "owner_id" } },
  migrations: [
    {
      name: "0001_counts",
      shards: { up: "create table counts (owner_id uuid primary key, value int not null)", down: "drop table counts" },
    },
  ],
  methods: [
    serve(counters.read, (_input, _call, context: Context) => read(context)),
    serve(counters.readCached, (_input, _call, context: Context) => readCached(context)),
    serve(counters.readToDecide, (_input, _call, context: Context) => read(context)),
    serve(counters.bump, ({ tags }, _call, context: Context) => bump(context, ...tags)),
  ],
});

/** Routes are GET, so that their units may read from followers. */
const front = defineService<Tables>("front", {
  routes(fastify, context) {
    const { call, sessions } = context;
    fastify.post("/token", async () => (await sessions.start(null)).token);
    fastify.get("/read", async (request) => {
      await request.session();
      return read(context);
    });
    fastify.get("/cached", async (request) => {
      await request.session();
      return readCached(context);
    });
    fastify.get("/read-there", () => call(counters.read, {}));
    fastify.get("/decide-there", () => call(counters.readToDecide, {}));
    fastify.get("/bump-then-read-there", async () => [await bump(context), await call(counters.read, {})]);
    fastify.get("/bump-then-cached-there", async () => [
      await bump(context, "count"),
      await call(counters.readCached, {}),
    ]);
    fastify.get("/bump-there-then-read", async () => [await call(counters.bump, {}), await read(context)]);
    fastify.post<{ Querystring: { tag?: string } }>("/bump-there", async (request) => {
      await request.session();
      const { tag } = request.query;
      return call(counters.bump, tag === undefined ? {} : { tags: [tag] });
    });
  },
});

let replicas: TestReplicas;
let redis: TestRedis;
let folder: string;
const apps: RunningApp<Tables>[] = [];

async function start(content: TopologyInput): Promise<RunningApp<Tables>> {
  const { topology } = resolveTopology({
    file: {
      name: "test",
      content: {
        ...content,
        dataDirectory: folder,
        web: { port: 0, loopLatenessMsMax: 0 },
        sessions: { url: env("SITE_REDIS_URL") },
        database: {
          shards: [{ leader: env("LEADER"), followers: [env("FOLLOWER")] }],
          replicas: { lagMsMax: 30_000 },
          pool: { connectionsMax: 4 },
        },
      },
    },
  });
  const environment = {
    SITE_REDIS_URL: redis.url,
    LEADER: replicas.leader.connectionString,
    FOLLOWER: replicas.followers[0]?.connectionString ?? "",
  };
  const definition = defineApp<Tables>({ name: "counts", services: [service, front] });
  const app = await startApp(definition, { topology, environment, log: pino({ level: "silent" }) });
  apps.push(app);
  return app;
}

const ask = async ({ address }: RunningApp<Tables>, path: string, token?: string, method = "GET") => {
  const answer = await fetch(`${address}${path}`, {
    method,
    ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
  });
  if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
  return answer.text();
};
const values = async (app: RunningApp<Tables>, path: string) =>
  (JSON.parse(await ask(app, path)) as { value: number }[]).map(({ value }) => value);

let [web, other, backend]: RunningApp<Tables>[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-calls-"));
  [replicas, redis] = await Promise.all([startTestReplicas({ followers: 1 }), startTestRedis()]);
  const groups = { counters: { processes: 1 } };
  backend = await start({ services: groups, group: "counters" });
  const services = { counters: { processes: 1, url: backend.address } };
  web = await start({ services, group: "web" });
  other = await start({ services, group: "web" });
  await replicas.followers[0]?.caughtUpWith(replicas.leader);
  await replicas.followers[0]?.pauseReplay();
}, 60_000);
afterAll(async () => {
  for (const app of apps.toReversed()) await app.stop();
  await Promise.all([replicas?.stop(), redis?.stop()]);
  await rm(folder, { recursive: true, force: true });
});

describe("reads through calls", () => {
  it("come from followers where nobody has seen more, and from the leader where something is decided by them", async () => {
    const app = web as RunningApp<Tables>;
    const { value } = JSON.parse(await ask(app, "/bump-there", undefined, "POST"));
    expect(value).toBe(1);
    await until(async () => JSON.parse(await ask(app, "/read-there")).value === 0, "the follower is read from");
    expect(JSON.parse(await ask(app, "/decide-there"))).toEqual({ value: 1 });
  });

  it("see what the caller has written", async () => {
    for (let round = 0; round < 20; round++) {
      const [written, there] = await values(web as RunningApp<Tables>, "/bump-then-read-there");
      expect(there).toBe(written);
    }
  });

  it("of the caller see what the callee has written", async () => {
    for (let round = 0; round < 20; round++) {
      const [there, here] = await values(web as RunningApp<Tables>, "/bump-there-then-read");
      expect(here).toBe(there);
    }
  });

  it("of a session see what a callee has written for it, through any process", async () => {
    const token = await ask(web as RunningApp<Tables>, "/token", undefined, "POST");
    const readBy = async (app: RunningApp<Tables> | undefined, path: string) =>
      JSON.parse(await ask(app as RunningApp<Tables>, path, token)).value as number;
    for (let round = 0; round < 20; round++) {
      const { value } = JSON.parse(await ask(web as RunningApp<Tables>, "/bump-there", token, "POST"));
      expect([await readBy(other, "/read"), await readBy(web, "/read")]).toEqual([value, value]);
    }
    // Whoever has not seen it is still answered by the follower, unless this process has just lost sight of what others announce.
    await until(
      async () => JSON.parse(await ask(other as RunningApp<Tables>, "/read")).value === 0,
      "a follower answers",
    );
  });

  it("from caches see what the caller has written, and the session what the callee has", async () => {
    const token = await ask(web as RunningApp<Tables>, "/token", undefined, "POST");
    for (let round = 0; round < 20; round++) {
      const [written, cached] = await values(web as RunningApp<Tables>, "/bump-then-cached-there");
      expect(cached).toBe(written);
      await ask(other as RunningApp<Tables>, "/cached", token);
      const { value } = JSON.parse(await ask(web as RunningApp<Tables>, "/bump-there?tag=count", token, "POST"));
      expect(JSON.parse(await ask(other as RunningApp<Tables>, "/cached", token))).toEqual({ value });
    }
  });
});
