/** A small site with sessions in Redis, as one web process or several, and people who use it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { pino } from "pino";
import { type RunningApp, startApp } from "../../src/app/app.ts";
import { defineApp, defineService } from "../../src/app/service.ts";
import { requireUser } from "../../src/session/drivers/fastify-sessions.ts";
import { env, resolveTopology, type TopologyInput } from "../../src/topology/index.ts";

const site = defineService<Record<string, never>>("site", {
  routes(fastify, { sessions, live, loginThrottle }) {
    fastify.get("/", async () => "a page for everybody");
    fastify.post<{ Body: { user: string } }>("/sign-in", async ({ body }, reply) => {
      await reply.startSession(body.user);
      return "signed in";
    });
    fastify.post<{ Body: { account: string } }>("/guess", async ({ body, ip }) =>
      loginThrottle.attempt({ account: body.account, address: ip }),
    );
    fastify.get("/me", async (request) => ({ user: (await requireUser(request)).userId }));
    fastify.get("/data", async (request) => (await requireUser(request)).data);
    fastify.post<{ Body: Record<string, string> }>("/data", async (request) =>
      sessions.update((await requireUser(request)).token, request.body),
    );
    fastify.post("/sign-out", async (_request, reply) => {
      await reply.endSession();
      return "signed out";
    });
    fastify.post("/sign-out-others", async (request) => {
      const { userId, token } = await requireUser(request);
      return { count: await sessions.revokeAll(userId, token) };
    });
    fastify.post<{ Body: { topic: string } }>("/tell", async ({ body }) => {
      await live.send(body.topic, { event: "told", data: 1 });
      return "told";
    });
  },
});

/** A running site. */
export interface RedisSite {
  readonly processes: readonly RunningApp<Record<string, never>>[];
  /** Somebody with a cookie jar of their own; `process` is the one they reach, the next one each time by default. */
  person(options?: { readonly process?: number }): Person;
  /** Stops all processes and starts as many anew, with sessions in the Redis at `url`. */
  restart(url: string | undefined): Promise<void>;
  stop(): Promise<void>;
}

/** What a person does and sees. */
export interface Person {
  get(path: string): Promise<Seen>;
  post(path: string, body?: unknown): Promise<Seen>;
  cookie(): string;
}

/** An answer, and how long it took. */
export interface Seen {
  readonly status: number;
  readonly text: string;
  readonly retryAfter: string | null;
  /** Whether the answer touched the session cookie. */
  readonly setsCookie: boolean;
  readonly ms: number;
}

/** Starts `count` web processes (in this one) over one database and the Redis at `url`; without it sessions are in the database. */
export async function startRedisSite(options: {
  readonly url: string | undefined;
  readonly count?: number;
  readonly topology?: TopologyInput;
}): Promise<RedisSite> {
  const postgres: TestPostgres = await startTestPostgres();
  const folder = await mkdtemp(join(tmpdir(), "rungs-site-"));
  const processes: RunningApp<Record<string, never>>[] = [];

  async function start(url: string | undefined): Promise<void> {
    const content: TopologyInput = {
      ...options.topology,
      dataDirectory: folder,
      web: { port: 0, ...options.topology?.web },
      database: { shards: [{ leader: env("SITE_DATABASE_URL") }], pool: { connectionsMax: 8 } },
      ...(url === undefined ? {} : { sessions: { url: env("SITE_REDIS_URL"), ...options.topology?.sessions } }),
    };
    const { topology } = resolveTopology({ file: { name: "test", content } });
    const environment = { SITE_DATABASE_URL: postgres.connectionString, SITE_REDIS_URL: url };
    const definition = defineApp({ name: "site", services: [site] });
    for (let index = 0; index < (options.count ?? 1); index++) {
      processes.push(await startApp(definition, { topology, environment, log: pino({ level: "silent" }) }));
    }
  }
  const stopProcesses = async () => {
    const errors = await Promise.all(processes.splice(0).map((app) => app.stop()));
    if (errors.flat().length > 0) throw new AggregateError(errors.flat(), "The site did not stop cleanly");
  };

  await start(options.url);
  let turn = 0;
  return {
    processes,
    person: ({ process } = {}) =>
      personAt(() => (processes[process ?? turn++ % processes.length] as (typeof processes)[0]).address),
    async restart(url) {
      await stopProcesses();
      await start(url);
    },
    async stop() {
      await stopProcesses();
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function personAt(addressOf: () => string): Person {
  let cookie = "";
  const ask = async (method: string, path: string, body?: unknown): Promise<Seen> => {
    const since = performance.now();
    const url = addressOf();
    const answer = await fetch(`${url}${path}`, {
      method,
      headers: { cookie, origin: url, ...(method === "POST" ? { "content-type": "application/json" } : {}) },
      ...(method === "POST" ? { body: JSON.stringify(body ?? {}) } : {}),
    });
    const text = await answer.text();
    const set = answer.headers.get("set-cookie");
    if (set !== null) cookie = set.split(";", 1)[0] as string;
    const { status, headers } = answer;
    return {
      status,
      text,
      retryAfter: headers.get("retry-after"),
      setsCookie: set !== null,
      ms: performance.now() - since,
    };
  };
  return { get: (path) => ask("GET", path), post: (path, body) => ask("POST", path, body), cookie: () => cookie };
}
