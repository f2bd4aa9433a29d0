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
import type { Component, ProcessReport, StackStatus } from "./component.ts";
import { controlPath } from "./control/control-path.ts";
import { serveControl } from "./control/control-server.ts";
import { hasClusters } from "./databases/replicated-databases.ts";
import { groupReports, handlerReports } from "./groups/group-reports.ts";
import type { ProcessGroups } from "./groups/process-groups.ts";
import { choosePorts, isFree } from "./process/ports.ts";
import { identify } from "./process/process-identity.ts";
import { privateFolder } from "./process/secrets.ts";
import { portNames, stackParts } from "./stack-parts.ts";
import { foldersOf, publicAddress, type StackPlan } from "./stack-plan.ts";
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
  const { plan, environment, signal, onProgress, onWebFailure } = options;
  const { folder, topology } = plan;
  const { logs, secrets } = foldersOf(folder);
  for (const made of [logs, secrets]) await privateFolder(made);
  const hosts = plan.regions.map(({ host }) => host);
  const ports = await choosePorts(portNames(plan), before?.ports ?? {}, (name) => (name === "app" ? hosts : []));
  const appPort = topology.web.port === 0 ? (ports["app"] as number) : topology.web.port;
  for (const host of hosts) await refuseTakenPort(host, appPort);
  const app = publicAddress(hosts[0] ?? topology.web.host, appPort);
  tellOfEmbeddedData(options);
  const parts = await stackParts(plan, { ports, appPort, logs, secrets, environment, onWebFailure });
  for (const remark of parts.remarks) onProgress(remark);
  const { groups, operations } = parts;
  const processes = () => parts.components.flatMap(processesOf);
  const status = async (asking = AbortSignal.timeout(statusWithinMs)): Promise<StackStatus> => ({
    app,
    dashboard: null,
    rung: plan.rung,
    folder,
    launcherPid: process.pid,
    processes: processes(),
    groups: groupReports(groups, plan, ports),
    regions: parts.regions.flatMap(({ plan: { name }, app: address }) =>
      name === undefined ? [] : [{ name, app: address }],
    ),
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
    ...(operations === undefined ? {} : { regions: operations }),
  });
  return {
    status,
    groups,
    downAsked,
    async stop() {
      operations?.close();
      const errors = await stopAll(parts.components);
      await recorder.stop();
      await server.close();
      await release();
      return errors;
    },
  };
}

/** With the region of the part that they belong to. */
function processesOf(component: Component): ProcessReport[] {
  const { region } = component;
  return component.processes().map((process) => (region === undefined ? process : { ...process, region }));
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
