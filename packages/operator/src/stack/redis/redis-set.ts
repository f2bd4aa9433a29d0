/**
 * The sessions' Redis of several regions: a server a region, of which one is the master, and Sentinels that name another one when it is gone.
 *
 * - *start*: the master is the one that the Sentinels' own files named last; at the first start the first region's. The others copy it.
 * - *crash*: the server asks the Sentinels who is the master before it starts again, and waits while they are choosing: a former master
 *   that came back by its old file would take writes that are lost a moment later.
 * - *planned move*: writes wait at the old master until the new one has all of them; then the Sentinels are told.
 * - *Sentinels*: one a region, and witnesses up to three, so that one place can be lost and most are still there.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";
import { untilHolds } from "../process/until.ts";
import { askRedis, infoOf } from "./redis-ask.ts";
import { lastMasterPort, masterName, replicaConfig, sentinelConfig } from "./redis-set-config.ts";
import { moveMaster } from "./redis-set-move.ts";
import { type MasterWord, type SentinelPlace, wordOf } from "./sentinel-word.ts";

export interface RedisSetOptions {
  /** Path of redis-server. */
  readonly program: string;
  readonly folder: string;
  readonly logFolder: string;
  /** By name, the first master's first. */
  readonly regions: readonly string[];
  /** Those of {@link redisSetPorts}, and perhaps others. */
  readonly ports: Readonly<Record<string, number>>;
  readonly password: string;
  /** Of the Sentinels. */
  readonly sentinelPassword: string;
}

/** One server of the set, as it was just now. */
export interface RedisServerReport {
  readonly region: string;
  readonly name: string;
  readonly port: number;
  /** "away": it does not answer. */
  readonly role: "master" | "replica" | "away";
  /** Of a replica: whether it is connected to the master. */
  readonly isFollowing: boolean;
}

/** What a planned move took. */
export interface RedisMove {
  readonly from: string;
  readonly to: string;
  /** How long writes waited. */
  readonly pauseMs: number;
}

export interface RedisSet {
  readonly components: readonly Component[];
  /** For `sessions.url` of a process of a region: all Sentinels, its own first. With both passwords. */
  urlFor(region: string): string;
  /** For `sessions.replica`: the region's own server. With the password. */
  replicaUrlFor(region: string): string;
  /** Who is what, by the servers' own word; never raises. */
  report(signal: AbortSignal): Promise<RedisServerReport[]>;
  /** The region whose server the Sentinels call the master. Raises when none of them answers. */
  masterRegion(signal: AbortSignal): Promise<string | undefined>;
  /** Makes that region's server the master; undefined where it is already. Raises `UnavailableError` when it cannot be. */
  moveTo(region: string, signal: AbortSignal): Promise<RedisMove | undefined>;
}

const readyWithinMs = 30_000;
/** A former master waits this long while the Sentinels choose another one; after that nobody else is there to be chosen. */
const choiceMsMax = 12_000;
const answerWithinMs = 1_000;
const witnesses = 3;

const serverName = (region: string) => `${region}-redis`;

/** Names of the Sentinels, in the order of the regions; witnesses behind. */
function sentinelNames(regions: readonly string[]): { readonly name: string; readonly region?: string }[] {
  const more = Math.max(0, witnesses - regions.length);
  return [
    ...regions.map((region) => ({ name: `${region}-sentinel`, region })),
    ...Array.from({ length: more }, (_, index) => ({ name: `witness-sentinel-${index + 1}` })),
  ];
}

/** Names of the ports that it takes. */
export function redisSetPorts(regions: readonly string[]): string[] {
  return [...regions.map(serverName), ...sentinelNames(regions).map(({ name }) => name)];
}

/** Makes the components; the files are written when they start. */
export function redisSet(options: RedisSetOptions): RedisSet {
  const { program, folder, logFolder, regions, ports, password, sentinelPassword } = options;
  const place = join(folder, "redis-set");
  const portOf = (name: string) => ports[name] as number;
  const loginOf = (region: string) => ({ port: portOf(serverName(region)), password });
  const sentinels: readonly SentinelPlace[] = sentinelNames(regions).map(({ name }) => ({
    ...{ name, port: portOf(name), password: sentinelPassword },
  }));
  const regionAt = (port: number) => regions.find((region) => portOf(serverName(region)) === port);
  const atStart = onceOnly(() => masterAtStart({ place, regions, sentinels }));
  /** Who is the master, for a server that is about to start. */
  const masterFor = async (region: string, signal: AbortSignal): Promise<string> => {
    const until = performance.now() + choiceMsMax;
    for (;;) {
      const word = await wordOf(sentinels, signal);
      // Nobody is there to ask: the whole stack is starting.
      if (word === undefined) return atStart();
      const named = regionAt(word.port) ?? (await atStart());
      if (named !== region || !word.isDoubted || performance.now() > until) return named;
      await sleep(100, undefined, { signal });
    }
  };
  const servers = regions.map((region) => serverComponent({ options, place, region, masterFor }));
  const quorum = Math.floor(sentinels.length / 2) + 1;
  const watchers = sentinelNames(regions).map(({ name, region }) =>
    sentinelComponent({
      ...{ name, region, program, place, logFolder, sentinelPassword, quorum },
      port: portOf(name),
      needs: servers.map((server) => server.name),
      config: async (signal) => {
        const word = await wordOf(
          sentinels.filter((sentinel) => sentinel.name !== name),
          signal,
        );
        const master = (word && regionAt(word.port)) ?? (await atStart());
        const id = createHash("sha1").update(`${sentinelPassword} ${name}`).digest("hex");
        return sentinelConfig({
          ...{ port: portOf(name), password, sentinelPassword, quorum, id, data: join(place, name) },
          masterPort: portOf(serverName(master)),
        });
      },
    }),
  );
  const masterRegion = async (signal: AbortSignal) => {
    const word: MasterWord | undefined = await wordOf(sentinels, signal);
    if (word === undefined) throw new Error("No Sentinel answers.");
    return regionAt(word.port);
  };
  return {
    components: [...servers, ...watchers],
    masterRegion,
    urlFor(region) {
      const own = sentinels.filter(({ name }) => name === `${region}-sentinel`);
      const nodes = [...own, ...sentinels.filter((sentinel) => !own.includes(sentinel))];
      const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`).join(",");
      return `redis+sentinel://:${password}@${hosts}/${masterName}/0?sentinelPassword=${sentinelPassword}`;
    },
    replicaUrlFor: (region) => `redis://:${password}@127.0.0.1:${portOf(serverName(region))}/0`,
    report: (signal) => Promise.all(regions.map((region) => reportOf(region, loginOf(region), signal))),
    async moveTo(region, signal) {
      const from = await masterRegion(signal);
      if (from === undefined || from === region) return undefined;
      const servers = regions.map((each) => loginOf(each));
      const [old, next] = [loginOf(from), loginOf(region)];
      return { from, to: region, pauseMs: await moveMaster({ servers, old, next, sentinels, signal }) };
    },
  };
}

async function reportOf(
  region: string,
  login: { readonly port: number; readonly password: string },
  signal: AbortSignal,
): Promise<RedisServerReport> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);
  const info = await askRedis(login, [["INFO", "replication"]], within).then(
    ([reply]) => infoOf(reply),
    () => undefined,
  );
  const role = info === undefined ? "away" : info["role"] === "master" ? "master" : "replica";
  const isFollowing = role === "replica" && info?.["master_link_status"] === "up";
  return { region, name: serverName(region), port: login.port, role, isFollowing };
}

function serverComponent({
  options,
  place,
  region,
  masterFor,
}: {
  readonly options: RedisSetOptions;
  readonly place: string;
  readonly region: string;
  readonly masterFor: (region: string, signal: AbortSignal) => Promise<string>;
}): Component {
  const { program, logFolder, ports, password } = options;
  const name = serverName(region);
  const port = ports[name] as number;
  const data = join(place, name);
  const configFile = join(data, "redis.conf");
  const prepare = async (signal: AbortSignal) => {
    const master = await masterFor(region, signal);
    const masterPort = master === region ? undefined : (ports[serverName(master)] as number);
    await writePrivate(configFile, replicaConfig({ port, password, data, masterPort }));
  };
  const redis = new ManagedProcess({
    ...{
      name,
      role: "sessions",
      command: program,
      args: [configFile],
      folder: options.folder,
      port,
      logFolder,
      prepare,
    },
    environment: { PATH: process.env["PATH"], LC_ALL: "C.UTF-8" },
    probe: async (signal) => void (await askRedis({ port, password }, [["PING"]], signal)),
  });
  return {
    ...{ name, region, role: "sessions", needs: [], plan: `${program} ${configFile}` },
    async start(signal) {
      await mkdir(data, { recursive: true, mode: 0o700 });
      await redis.start(signal);
      await untilReady(`${name} copies the master`, signal, async (within) => {
        const [reply] = await askRedis({ port, password }, [["INFO", "replication"]], within);
        const info = infoOf(reply);
        return info["role"] === "master" || info["master_link_status"] === "up";
      });
    },
    stop: () => redis.stop(),
    lose: () => redis.lose(),
    processes: () => redis.report(),
  };
}

function sentinelComponent(options: {
  readonly name: string;
  readonly region: string | undefined;
  readonly program: string;
  readonly place: string;
  readonly logFolder: string;
  readonly port: number;
  readonly sentinelPassword: string;
  readonly quorum: number;
  readonly needs: readonly string[];
  readonly config: (signal: AbortSignal) => Promise<string>;
}): Component {
  const { name, region, program, place, logFolder, port, sentinelPassword, needs } = options;
  const data = join(place, name);
  const configFile = join(data, "sentinel.conf");
  const login = { port, password: sentinelPassword };
  const sentinel = new ManagedProcess({
    ...{ name, role: "failover", command: program, args: [configFile, "--sentinel"], folder: data, port, logFolder },
    environment: { PATH: process.env["PATH"], LC_ALL: "C.UTF-8" },
    prepare: async (signal) => writePrivate(configFile, await options.config(signal)),
    probe: async (signal) => void (await askRedis(login, [["SENTINEL", "MASTER", masterName]], signal)),
  });
  return {
    ...{ name, role: "failover", needs, plan: `${program} ${configFile} --sentinel` },
    ...(region === undefined ? {} : { region }),
    async start(signal) {
      await mkdir(data, { recursive: true, mode: 0o700 });
      await sentinel.start(signal);
      await untilReady(`${name} knows the other Sentinels`, signal, async (within) => {
        await askRedis(login, [["SENTINEL", "CKQUORUM", masterName]], within);
        return true;
      });
    },
    stop: () => sentinel.stop(),
    lose: () => sentinel.lose(),
    processes: () => sentinel.report(),
  };
}

function untilReady(
  what: string,
  signal: AbortSignal,
  holds: (within: AbortSignal) => Promise<boolean>,
): Promise<void> {
  return untilHolds({
    ...{ withinMs: readyWithinMs, signal },
    holds: () => holds(AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)])),
    late: (cause) => new Error(`Not within ${readyWithinMs / 1_000} s: ${what}.`, { cause }),
  });
}

/** By the files that the Sentinels and servers of the last start left; else the first region. */
async function masterAtStart({
  place,
  regions,
  sentinels,
}: {
  readonly place: string;
  readonly regions: readonly string[];
  readonly sentinels: readonly SentinelPlace[];
}): Promise<string> {
  const read = (path: string) => readFile(path, "utf8").catch(() => "");
  const words = await Promise.all(sentinels.map(({ name }) => read(join(place, name, "sentinel.conf"))));
  const port = lastMasterPort(words);
  const files = await Promise.all(regions.map((region) => read(join(place, serverName(region), "redis.conf"))));
  const index = files.findIndex((text) => port !== undefined && new RegExp(`^port ${port}$`, "m").test(text));
  return regions[Math.max(0, index)] as string;
}

function onceOnly<T>(work: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= work();
    return made;
  };
}
