/**
 * A running stack: all servers of a topology as children of this process.
 *
 * Up: take the folder, clear up after a killed launcher, choose ports, start everything in order, open the control socket.
 * Down: close the socket, stop everything the other way round, let go of the folder.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "rungs";
import { appGroups } from "./app-groups.ts";
import { brokerComponent, brokerPorts } from "./broker.ts";
import { type CompanionComponent, companionComponent } from "./companion.ts";
import type { Component, ProcessReport, StackStatus } from "./component.ts";
import { controlPath } from "./control-path.ts";
import { serveControl } from "./control-server.ts";
import { type DatabaseComponent, databaseComponent } from "./database.ts";
import { findProgram } from "./find-program.ts";
import { frontComponents } from "./front.ts";
import { groupReports, handlerReports } from "./group-reports.ts";
import { launcherLog } from "./launcher-log.ts";
import type { BalancerComponent } from "./nginx.ts";
import { internalPortNames, isOnAppPort } from "./planned-groups.ts";
import { choosePorts, isFree } from "./ports.ts";
import type { ProcessGroups } from "./process-groups.ts";
import { identify } from "./process-identity.ts";
import { redisComponent } from "./redis.ts";
import { clusterPorts, hasClusters, type ReplicatedDatabases, replicatedDatabases } from "./replicated-databases.ts";
import { generatedSecret, privateFolder } from "./secrets.ts";
import {
  brokerVariable,
  cacheVariable,
  foldersOf,
  publicAddress,
  purgeSecretFile,
  purgeVariable,
  redisVariable,
  type StackPlan,
  shardAddresses,
  shardVariable,
} from "./stack-plan.ts";
import { clearUp, holdFolder, readRecord, type StackRecord, writeRecord } from "./stack-record.ts";
import { startAll, stopAll } from "./start-order.ts";

/** A stack that runs. */
export interface Stack {
  status(signal?: AbortSignal): Promise<StackStatus>;
  readonly groups: ProcessGroups;
  /** Resolves when somebody asked for the end through the control socket. */
  readonly downAsked: Promise<void>;
  /** Stops everything; gives what went wrong on the way. */
  stop(): Promise<readonly Error[]>;
}

export interface UpOptions {
  readonly plan: StackPlan;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  /** Hears what happens, one line each. */
  readonly onProgress: (text: string) => void;
  /** Hears of a web process that does not start at first, in place of the failure of the start. */
  readonly onWebFailure?: (error: unknown) => void;
}

/** How long a port of ours may take to come free after a killed launcher. */
const portPatienceMs = 3_000;
const recordEveryMs = 500;
const statusWithinMs = 5_000;

/**
 * Starts a stack. Raises `DATA_DIRECTORY_IN_USE` with the pid of the launcher that holds the folder, `CONFIG_INVALID` for a port in
 * use, and `SERVER_START_FAILED` with the end of a log; nothing is left running then.
 */
export async function startStack(options: UpOptions): Promise<Stack> {
  const { plan, signal } = options;
  await mkdir(plan.folder, { recursive: true });
  const release = await holdFolder(plan.folder);
  try {
    const before = await readRecord(plan.folder);
    if (before !== undefined) {
      const left = await clearUp(before);
      if (left.length > 0) options.onProgress(`ended what a killed launcher had left: ${left.join(", ")}`);
    }
    signal.throwIfAborted();
    return await assemble(options, before, release);
  } catch (error) {
    await release();
    throw error;
  }
}

async function assemble(
  options: UpOptions,
  before: StackRecord | undefined,
  release: () => Promise<void>,
): Promise<Stack> {
  const { plan, signal, onProgress } = options;
  const { folder, topology } = plan;
  const { logs, secrets } = foldersOf(folder);
  for (const made of [logs, secrets]) await privateFolder(made);
  const ports = await portsOf(plan, before?.ports ?? {});
  const appPort = topology.web.port === 0 ? (ports["app"] as number) : topology.web.port;
  await refuseTakenPort(topology.web.host, appPort);
  const app = publicAddress(topology.web.host, appPort);
  tellOfEmbeddedData(options);
  const parts = await partsOf(options, { ports, appPort, app, logs, secrets });
  const { groups } = parts;
  const processes = () => parts.components.flatMap((component) => component.processes());
  const status = async (asking = AbortSignal.timeout(statusWithinMs)): Promise<StackStatus> => ({
    app,
    dashboard: null,
    rung: plan.rung,
    folder,
    launcherPid: process.pid,
    processes: processes(),
    groups: groupReports(groups, plan, ports),
    broker: plan.broker ?? null,
    placement: { strategy: topology.database.strategy, splits: topology.database.splits },
    shards: (await parts.databases?.reports(asking)) ?? [],
    handlers: await handlerReports(groups, asking),
  });
  const control = controlPath(folder);
  const recorder = keepRecord({ folder, control, ports, processes });
  try {
    await startAll(parts.components, {
      signal,
      onReady: ({ name }, ms) => {
        recorder.write();
        onProgress(`${name} ready after ${Math.round(ms)} ms`);
      },
    });
  } catch (error) {
    await recorder.stop();
    throw error;
  }
  let askDown: () => void = () => {};
  const downAsked = new Promise<void>((resolve) => {
    askDown = resolve;
  });
  const switchOver = parts.databases?.switchOver;
  const server = await serveControl(control, {
    ...{ status, groups, down: askDown },
    ...(switchOver === undefined ? {} : { switchOver }),
  });
  return {
    status,
    groups,
    downAsked,
    async stop() {
      const errors = await stopAll(parts.components);
      await recorder.stop();
      await server.close();
      await release();
      return errors;
    },
  };
}

async function portsOf(plan: StackPlan, before: Readonly<Record<string, number>>): Promise<Record<string, number>> {
  const names = [
    ...(plan.topology.web.port === 0 ? ["app"] : []),
    ...(plan.hasRedis ? ["redis"] : []),
    ...(plan.hasCache ? ["cache"] : []),
    ...clusterPorts(plan.clusters),
    ...(plan.hasVarnish ? ["balancer", "purge"] : []),
    ...(plan.broker === undefined ? [] : brokerPorts(plan.broker)),
    ...plan.groups
      .filter((group) => !isOnAppPort(group))
      .flatMap(({ name, places }) => Array.from({ length: places }, (_, index) => `${name}-${index + 1}`)),
    ...internalPortNames(plan.groups).map(({ name }) => name),
  ];
  return choosePorts(names, before);
}

async function refuseTakenPort(host: string, port: number): Promise<void> {
  const until = performance.now() + portPatienceMs;
  while (!(await isFree(port, host))) {
    if (performance.now() > until) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `Port ${port} on ${host} is in use by another program, or may not be opened by this user. Choose another: --port ${port + 1}.`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Rows do not move by themselves from one rung's servers to another's. */
function tellOfEmbeddedData({ plan, onProgress }: UpOptions): void {
  const embedded = join(plan.folder, "database");
  if (plan.clusters === 0 || !existsSync(embedded) || hasClusters(plan.folder)) return;
  onProgress(`new, empty databases: what is in ${embedded} stays there and is not moved`);
}

interface Places {
  readonly ports: Readonly<Record<string, number>>;
  readonly appPort: number;
  readonly app: string;
  readonly logs: string;
  readonly secrets: string;
}

async function partsOf(
  { plan, environment, onWebFailure }: UpOptions,
  { ports, appPort, app, logs, secrets }: Places,
): Promise<{ components: Component[]; groups: ProcessGroups; databases: ReplicatedDatabases | undefined }> {
  const { folder, topology } = plan;
  const replicated =
    plan.clusters === 0 ? undefined : await replicatedDatabases(plan, { ports, logs, secrets, environment });
  const databases: DatabaseComponent[] = Array.from({ length: plan.embedded }, (_, shard) =>
    databaseComponent({
      ...{ shard, folder, address: app, log: launcherLog(logs) },
      // Of all places, with what jobs and migrations take, and some for tools.
      connectionsMax: plan.places * (topology.database.pool.connectionsMax + 5) + 30,
    }),
  );
  const companions: CompanionComponent[] = plan.app.companions.map(({ name, program }) =>
    companionComponent({
      ...{ name, program, appFolder: plan.app.folder, secretFolder: secrets, logFolder: logs },
      environment: { ...environment, RUNGS_DIR: folder, RUNGS_APP_URL: app },
    }),
  );
  const redis: { readonly component: Component; readonly variable: string; readonly url: string }[] = [];
  const addRedis = async (name: string, role: "sessions" | "cache", variable: string) => {
    const password = await generatedSecret(secrets, `${name}-password`);
    const port = ports[name] as number;
    const program = findProgram("redis-server", environment) as string;
    const component = redisComponent({ name, role, program, folder, logFolder: logs, port, password });
    redis.push({ component, variable, url: `redis://:${password}@127.0.0.1:${port}/0` });
  };
  if (plan.hasRedis) await addRedis("redis", "sessions", redisVariable);
  if (plan.hasCache) await addRedis("cache", "cache", cacheVariable);
  const purgeSecret = plan.hasVarnish ? await generatedSecret(secrets, purgeSecretFile) : "";
  const broker =
    plan.broker === undefined
      ? undefined
      : await brokerComponent(plan.broker, { ports, folder, logFolder: logs, secrets, environment });
  const before: Component[] = [
    ...databases,
    ...(replicated?.components ?? []),
    ...companions,
    ...redis.map(({ component }) => component),
    ...(broker === undefined ? [] : [broker.component]),
  ];
  const inFront: { balancer?: BalancerComponent | undefined } = {};
  const variables = () => ({
    ...environment,
    ...Object.assign({}, ...companions.map((companion) => companion.provided())),
    ...shardAddresses(topology, environment),
    ...Object.fromEntries(databases.map((database, index) => [shardVariable(index), database.url()])),
    ...replicated?.environment,
    ...Object.fromEntries(redis.map(({ variable, url }) => [variable, url])),
    ...(broker === undefined ? {} : { [brokerVariable]: broker.url }),
    ...(plan.hasVarnish ? { [purgeVariable]: purgeSecret } : {}),
    RUNGS_DIR: folder,
  });
  const groups = appGroups(plan, {
    ...{ ports, appPort, logs, inFront, onWebFailure },
    needs: before.map(({ name }) => name),
    environment: variables,
  });
  const front = await frontComponents(plan, {
    ...{ ports, appPort, app, logs, groups, purgeSecret, environment },
  });
  inFront.balancer = front.balancer;
  return { components: [...before, ...groups.all, ...front.components], groups, databases: replicated };
}

/** Keeps the record up to date with the processes there are. */
function keepRecord(options: {
  readonly folder: string;
  readonly control: string;
  readonly ports: Readonly<Record<string, number>>;
  readonly processes: () => readonly ProcessReport[];
}): { write(): void; stop(): Promise<void> } {
  const { folder, control, ports, processes } = options;
  let written = "";
  let writing: Promise<void> = Promise.resolve();
  const write = () => {
    const children = processes().flatMap(({ name, pid, stopSignal }) => {
      const identity = identify(pid);
      return identity === undefined ? [] : [{ name, ...identity, ...(stopSignal === undefined ? {} : { stopSignal }) }];
    });
    const now = JSON.stringify(children);
    if (now === written) return;
    written = now;
    const launcher = identify(process.pid) ?? { pid: process.pid, startedAt: "" };
    // A full disk must not end the launcher.
    writing = writing.then(() => writeRecord(folder, { launcher, control, ports, children })).catch(() => {});
  };
  const timer = setInterval(write, recordEveryMs);
  return {
    write,
    async stop() {
      clearInterval(timer);
      write();
      await writing;
    },
  };
}
