/**
 * The composition root: a topology and an app's definition become a running process.
 *
 * Order of a start: databases, placement, migrations, cache, sessions, routes, listening. Stopping goes the other way.
 */
import { join, resolve } from "node:path";
import type { FastifyBaseLogger, FastifyRequest } from "fastify";
import type { Cache } from "../cache/index.ts";
import { fastifyCachePolicy } from "../cdn/drivers/fastify-cache-policy.ts";
import type { Purger } from "../cdn/index.ts";
import {
  directory,
  inReadContext,
  onLeaders,
  ReadContext,
  readContext,
  type ShardConnection,
} from "../database/index.ts";
import { sweepIdempotencyKeys } from "../idempotency/index.ts";
import { systemClock } from "../kernel/clock.ts";
import { createLifecycle, type Lifecycle } from "../kernel/lifecycle.ts";
import { systemRandom } from "../kernel/random.ts";
import { createLive } from "../live/index.ts";
import { createMetrics, type Metrics } from "../monitor/index.ts";
import { readSigningKey } from "../session/drivers/database-signing-key.ts";
import { beginSessionReads, settleSessionReads } from "../session/drivers/fastify-session-reads.ts";
import { fastifySessions } from "../session/drivers/fastify-sessions.ts";
import { createLoginThrottle, createPasswords, createSessions, seenSigner, sessionReads } from "../session/index.ts";
import { diskObjects } from "../storage/drivers/disk-objects.ts";
import { s3Objects } from "../storage/drivers/s3-objects.ts";
import { createPathSigner, type ObjectStore } from "../storage/index.ts";
import { processWork, refuseUngrouped, refuseUnsupported, type Topology } from "../topology/index.ts";
import { openAssets } from "../web/assets.ts";
import { serveAssets } from "../web/drivers/fastify-assets.ts";
import { createWebServer } from "../web/drivers/fastify-web.ts";
import { createShedder, type Shedder } from "../web/drivers/shed.ts";
import { openCache } from "./open/cache.ts";
import { openCalls } from "./open/calls.ts";
import { openCdn } from "./open/cdn.ts";
import { type OpenDatabases, openDatabases, type StartOptions } from "./open/databases.ts";
import { showNearSessions } from "./open/near-sessions.ts";
import { openRegions } from "./open/regions.ts";
import { limitRequests, openSharedState, showRedis } from "./open/shared-state.ts";
import { answerOperator } from "./operations.ts";
import { joinedMarks } from "./reads/joined-reads.ts";
import { type ReadFloors, readFloors } from "./reads/read-floors.ts";
import { readUnits } from "./reads/read-units.ts";
import { routeList } from "./route-list.ts";
import type { AppDefinition, ServiceContext } from "./service.ts";
import {
  showBacklog,
  showCache,
  showDatabases,
  showLive,
  showPurges,
  showQueue,
  showRelays,
  showReplication,
  showSessionReads,
  showShards,
  showShedding,
} from "./show/metrics.ts";

export { type OpenDatabases, openDatabases, type StartOptions };

/** A running app. */
export interface RunningApp<T> {
  /** Where it listens, e.g. `http://127.0.0.1:3000`. */
  readonly address: string;
  /** Where the embedded databases keep their data; empty when all databases are servers. */
  readonly dataDirectories: readonly string[];
  /** The tiers, for tools that run beside the routes. */
  readonly context: ServiceContext<T>;
  /** Answers a question of the operator about this process's memory: see `operations.ts`, also for what it raises. */
  answerOperator(question: unknown): Promise<unknown>;
  /** Drains requests, then stops everything it started. Gives what went wrong on the way. */
  stop(): Promise<readonly Error[]>;
}

const sweepEveryMs = 60 * 60 * 1_000;

/** Starts an app. When a step fails, what was started is stopped again before the error is raised. */
export async function startApp<T>(definition: AppDefinition<T>, options: StartOptions): Promise<RunningApp<T>> {
  const lifecycle = options.lifecycle ?? createLifecycle({ log: options.log });
  try {
    return await start(definition, options, lifecycle);
  } catch (error) {
    await lifecycle.stop();
    throw error;
  }
}

async function start<T>(
  definition: AppDefinition<T>,
  options: StartOptions,
  lifecycle: Lifecycle,
): Promise<RunningApp<T>> {
  const { topology, log } = options;
  refuseUnsupported(topology);
  refuseUngrouped(topology);
  const work = processWork(
    topology,
    definition.services.map(({ name }) => name),
  );
  // The cache needs what the processes share, which needs the databases: they tell it of their commits once it is there.
  const openedLater: { cache?: Cache; purger?: Purger | undefined; floors?: ReadFloors | undefined } = {};
  const databases = await openDatabases(definition, options, lifecycle, async (tags, shard) => {
    // Before the cache lets go: what it loads next must not come from a copy that has not heard of the commit.
    const upTo = await openedLater.floors?.committed(shard, readContext()?.writtenShards());
    await openedLater.cache?.invalidate(tags, upTo);
    // Only now: what the CDN fetches after its purge must not come from a cache that holds the old data.
    openedLater.purger?.changed(tags);
  });
  const { db, home, shared: appHome } = databases;
  const environment = options.environment ?? process.env;
  // Who is signed in is asked of leaders, whatever else the request may read.
  const homeLeader = {
    query: <R>(name: string | undefined, sql: string, values: unknown[]) =>
      onLeaders(() => appHome.query<R>(name, sql, values)),
  };
  const shared = await openSharedState({ topology, environment, home: homeLeader, log, lifecycle });
  const floors = openFloors(databases, lifecycle);
  openedLater.floors = floors;
  const { cache, bus } = await openCache({ topology, environment, redis: shared.redis, first: floors, log, lifecycle });
  openedLater.cache = cache;
  const { cdn, purger } = openCdn({ topology, environment, log, lifecycle });
  openedLater.purger = purger;
  // A process that reads from no followers passes on what others have read there.
  const hasFollowers = floors !== undefined || (appHome !== home && namesFollowers(topology));
  const hasRevisions = topology.region !== undefined || shared.near !== undefined;
  const reads =
    !hasFollowers && !hasRevisions
      ? undefined
      : sessionReads({
          units: readUnits({ limitMs: topology.web.requestTimeoutMs }),
          signer: seenSigner(await readSigningKey({ database: homeLeader, name: "seen" })),
          hasRevisions,
        });
  const marks = joinedMarks(bus);
  const sessions = createSessions({ store: shared.sessions, log, marks, seen: reads });
  const assets = await openAssets({ folders: definition.assets ?? [] });
  const metrics = createMetrics();
  lifecycle.started("metrics", async () => metrics.close());
  showRedis(metrics, shared.redis);
  showNearSessions(metrics, shared.near);
  const regions = await openRegions({ topology, databases, home: homeLeader, metrics, log, lifecycle });
  const live = createLive({ fanOut: shared.fanOut, log });
  showLive(metrics, live);
  const calls = await openCalls({
    ...{ definition, topology, home: homeLeader, hasFollowers, marks, metrics, log, lifecycle },
    context: () => context,
  });
  const directories = new Map<string, ReturnType<typeof directory>>();
  const context: ServiceContext<T> = {
    db,
    cache,
    sessions,
    passwords: createPasswords(),
    loginThrottle: createLoginThrottle({ store: shared.attempts }),
    assets,
    live,
    storage: openStorage(options),
    signedPaths: createPathSigner({ keys: [await readSigningKey({ database: homeLeader, name: "paths" })] }),
    call: calls.call,
    directory(space) {
      const opened = directories.get(space) ?? directory({ home: db.home as never, space });
      directories.set(space, opened);
      return opened;
    },
    environment,
    clock: systemClock,
    random: systemRandom,
    log,
  };
  showDatabases(metrics, { db, followerPools: databases.followerPools });
  if (db.shardCount > 1) showShards(metrics, databases.standings);
  if (floors !== undefined) showReplication(metrics, { shards: databases.replicated, floors });
  if (reads !== undefined) showSessionReads(metrics, reads);
  showCache(metrics, cache, bus);
  showPurges(metrics, purger);
  const shedder = startShedding(topology, databases, metrics, lifecycle);
  const web = createWebServer({
    ...topology.web,
    log,
    metrics,
    ...(shedder === undefined ? {} : { shedder }),
    ...(regions === undefined ? {} : { forwarded: regions.forwarded }),
    checks: [
      ...[...new Set([...databases.shards, home])].map((shard) => ({
        name: shard.name,
        check: () => (regions === undefined ? askLeader(shard) : askAnyMember(shard)),
        // Without another shard its own users are not served; without the home database nobody is.
        isEssential: shard === home,
      })),
      // Who is signed in is asked there, unless Redis knows.
      ...(appHome === home
        ? []
        : [
            {
              name: "home",
              check: () => homeLeader.query(undefined, "select 1", []),
              isEssential: shared.redis === undefined,
            },
          ]),
      ...(shared.redis === undefined ? [] : [{ name: "redis", check: shared.redis.check.bind(shared.redis) }]),
    ],
    ...(definition.answerError === undefined ? {} : { answerError: definition.answerError }),
  });
  const queue = await databases.queue.start({
    ...{ shards: databases.shards, home, context, log, only: handlersOf(definition, work.handlers) },
    relay: { bytesMax: topology.queue.outboxBytesMax },
    ...(regions === undefined ? {} : { mayClaim: (store: string) => regions.mayClaim(store) }),
  });
  // What waited there while the leader was elsewhere is for this region's handlers now.
  regions?.onArrival((store) => databases.queue.messages.committed(store));
  lifecycle.started("queue", () => queue.stop(), 15_000);
  showQueue(metrics, queue);
  showBacklog(metrics, queue, topology.group);
  showRelays(metrics, queue);
  if (reads !== undefined) beginSessionReads(web.fastify, { reads });
  const userOf = async (request: FastifyRequest) => (await request.session())?.userId ?? undefined;
  regions?.forward(web, {
    userOf(request) {
      const carried = request.carriedToken();
      return shared.near === undefined || carried === undefined
        ? userOf(request)
        : shared.near.store.ownerOf(carried.token);
    },
    traceparentOf: (request) => request.rungsCallScope?.traceparent,
    async onForward(request) {
      const carried = request.carriedToken();
      if (carried !== undefined) shared.near?.store.changedElsewhere(carried.token);
    },
  });
  limitRequests(web.fastify, { limits: topology.web.limits, rates: shared.rates, userOf, log, metrics });
  calls.serve(web.fastify);
  fastifyCachePolicy(web.fastify, { cdn });
  fastifySessions(web.fastify, { sessions });
  if (reads !== undefined) settleSessionReads(web.fastify, { sessions });
  serveAssets(web.fastify, assets);
  const routes = routeList();
  for (const service of definition.services) {
    if (!work.routes.includes(service.name)) continue;
    await web.fastify.register(async (scope) => {
      routes.watch(scope, service.name);
      await service.routes?.(scope, context);
    });
  }
  lifecycle.started("web", () => web.close(), 15_000);
  // Before the web server, which would wait for the streams as for any request under way.
  lifecycle.started("live streams", () => live.drain());
  // Before the streams end: their clients come back at once, and must find another process.
  lifecycle.started("new connections", () => web.refuse());
  const address = await web.listen();
  await Promise.all(databases.embedded.map((server) => server.announce({ address })));
  sweepRegularly("ended sessions", () => sessions.sweep(), log, lifecycle);
  sweepRegularly("old revocations", () => shared.sweep(), log, lifecycle);
  const sweepKeys = async () => {
    const counts = await Promise.allSettled(databases.shards.map((shard) => sweepIdempotencyKeys(shard)));
    return counts.reduce((sum, each) => sum + (each.status === "fulfilled" ? each.value : 0), 0);
  };
  sweepRegularly("old idempotency keys", sweepKeys, log, lifecycle);
  return {
    address,
    dataDirectories: databases.dataDirectories,
    context,
    answerOperator: (question) => answerOperator(question, { cache, bus, routes, queue, regions }),
    stop: () => lifecycle.stop(),
  };
}

/** Names of the handlers of these services, as stored messages carry them. */
function handlersOf<T>({ services }: AppDefinition<T>, names: readonly string[]): string[] {
  return services
    .filter(({ name }) => names.includes(name))
    .flatMap(({ name, on = {} }) => Object.keys(on).map((handler) => `${name}.${handler}`));
}

/** Whether a shard of the app's database has followers. */
function namesFollowers({ database: { shards } }: Topology): boolean {
  return typeof shards !== "number" && shards.some(({ followers = [] }) => followers.length > 0);
}

/** Undefined where no shard has followers: then reads need no bound, and nothing of this costs anything. */
function openFloors<T>({ replicated }: OpenDatabases<T>, lifecycle: Lifecycle): ReadFloors | undefined {
  if (replicated.size === 0) return undefined;
  const floors = readFloors(replicated);
  lifecycle.started("floors of reads", async () => floors.close());
  return floors;
}

const askLeader = (shard: ShardConnection) => onLeaders(() => shard.query(undefined, "select 1", []));

/** While the leader's region is away, the others serve reads from their members and hand writes on to nobody: they are ready. */
function askAnyMember(shard: ShardConnection): Promise<unknown> {
  const read = inReadContext(new ReadContext(), () => shard.query(undefined, "select 1", [], true));
  return Promise.any([askLeader(shard), read]);
}

/** Whether requests wait for a connection. */
function isPoolShort<T>({ db, followerPools }: OpenDatabases<T>): boolean {
  return [...db.poolStats(), ...followerPools()].some(({ waiting }) => waiting > 0);
}

/** Overload protection in front of the web server; undefined where the topology turns it off. */
function startShedding<T>(
  topology: Topology,
  databases: OpenDatabases<T>,
  metrics: Metrics,
  lifecycle: Lifecycle,
): Shedder | undefined {
  const { loopLatenessMsMax } = topology.web;
  if (loopLatenessMsMax === 0) return undefined;
  const isPressed = () => isPoolShort(databases);
  const shedder = createShedder({ clock: systemClock, random: systemRandom, loopLatenessMsMax, isPressed });
  lifecycle.started("overload protection", async () => shedder.stop());
  showShedding(metrics, shedder);
  return shedder;
}

/** The folder beside the databases, or the bucket; its keys are revealed here. */
function openStorage({ topology, environment = process.env }: StartOptions): ObjectStore {
  const { url, region, endpoint, accessKeyId, secretAccessKey } = topology.storage;
  if (url === undefined || region === undefined || accessKeyId === undefined || secretAccessKey === undefined) {
    return diskObjects({ directory: join(resolve(topology.dataDirectory), "objects") });
  }
  return s3Objects({
    bucket: new URL(url).host,
    region,
    accessKeyId: accessKeyId.reveal(environment),
    secretAccessKey: secretAccessKey.reveal(environment),
    ...(endpoint === undefined ? {} : { endpoint }),
  });
}

function sweepRegularly(
  what: string,
  sweep: () => Promise<number>,
  log: FastifyBaseLogger,
  lifecycle: Lifecycle,
): void {
  const run = () => {
    sweep().then(
      (count) => log.debug({ count }, `${what} were deleted`),
      (error: unknown) => log.warn({ error }, `${what} could not be deleted`),
    );
  };
  const timer = setInterval(run, sweepEveryMs).unref();
  lifecycle.started(`sweep of ${what}`, async () => clearInterval(timer));
}
